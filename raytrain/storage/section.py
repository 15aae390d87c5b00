"""The `storage:` section of a recipe."""

from __future__ import annotations

from typing import Self

from pydantic import field_validator

from raytrain.config.section import Section
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import Location

_SCHEMES = ("file", "s3", "gs", "gcs", "hdfs", "abfs", "abfss")  # what pyarrow.fs opens


class StorageSection(Section):
    """Where artifacts lie. The records database and the run folders lie in RAYTRAIN_HOME whatever stands here."""

    path: str | None = None
    """Folder or URI (file://, s3://, gs://) for datasets, checkpoints and models; null = $RAYTRAIN_HOME/storage."""
    mirror: str | None = None
    """A second place (a mounted drive, say) that gets a copy of every checkpoint, in the background."""

    @field_validator("path", "mirror")
    @classmethod
    def _check_scheme(cls, value: str | None) -> str | None:
        if value is not None and "://" in value and value.partition("://")[0] not in _SCHEMES:
            raise ValueError(
                f"must be a path, or a URI that begins with {', '.join(f'{one}://' for one in _SCHEMES)}"
            )
        return value

    @property
    def location(self) -> Location:
        """`path`, or the default below RAYTRAIN_HOME."""
        return Location.parse(self.path or raytrain_home() / "storage")

    def resolved(self) -> Self:
        """The same places as absolute ones, which a worker with another RAYTRAIN_HOME or folder finds as well."""
        mirror = str(Location.parse(self.mirror)) if self.mirror else None
        return self.model_copy(update={"path": str(self.location), "mirror": mirror})
