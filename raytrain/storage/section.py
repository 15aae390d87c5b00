"""The `storage:` section of a recipe."""

from __future__ import annotations

from raytrain.config.section import Section


class StorageSection(Section):
    path: str | None = None
    """Folder or URI (file://, s3://, gs://) for datasets, checkpoints and models; null = $RAYTRAIN_HOME/storage."""
    mirror: str | None = None
    """A second place (a mounted drive, say) that gets a copy of every checkpoint, in the background."""
