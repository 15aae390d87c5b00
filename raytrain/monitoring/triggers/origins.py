"""What rows come from, by name and content: another content is something new to learn from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raytrain.data.remote import is_remote
from raytrain.data.section import SourceSection, load_data_recipe
from raytrain.data.sources import Source, open_sources
from raytrain.errors import PlatformError
from raytrain.storage.manifest import digest_of

_SHOWN = 12


@dataclass(frozen=True)
class Origins:
    """None = nobody can say, and `note` says why."""

    names: frozenset[str] | None
    note: str | None = None


def origins_of(recipe: Path) -> Origins:
    """Of all sources of a recipe. One that cannot be read is a note, not an error: what else is looked at does not
    hang on it."""
    try:
        sources = open_sources(load_data_recipe(recipe).data.sources)
    except PlatformError as error:
        return Origins(None, f"what rows come from is not known: {error.what} ({error.why}); {error.fix}")
    return Origins(frozenset(name for one in sources for name in _names(one)))


def _names(source: Source[SourceSection]) -> Iterator[str]:
    """NAME@CONTENT of each file; of a generator or a dataset of a hub there is one."""
    section, identity = source.section, dict(source.identity)
    if section.path is None:
        yield f"{section.dataset or section.generator}@{_shown(digest_of(identity))}"
        return
    place = section.path.rstrip("/") if is_remote(section.path) else os.path.normpath(section.path)
    for file in identity["files"]:
        label = file["file"]
        name = place if Path(place).name == label else f"{place}: {label}"
        yield f"{name}@{_shown(file['sha256'])}"
    if "images" in identity:
        yield f"{place}: images@{_shown(identity['images'])}"


def _shown(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_SHOWN]
