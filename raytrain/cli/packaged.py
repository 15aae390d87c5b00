"""The folder that a command takes with it to a cluster."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raytrain.runs.packaging import Package


def inside(folder: Path, word: str) -> str:
    """A place below the folder as it is called there; the cluster knows no other."""
    place = Path(word)
    return str(place.relative_to(folder)) if place.is_absolute() and place.is_relative_to(folder) else word


def packed(words: Sequence[str], folder: Path) -> Package:
    """What the folder has that git keeps, and what the command line and its recipe name. ConfigError for its faults."""
    from raytrain.cli.queued_jobs import what_it_makes
    from raytrain.runs.packaging import collect

    with chdir(folder):
        what_it_makes(words)
    return collect(folder, [*words[1:], *_texts_of_recipe(words, folder)])


def _texts_of_recipe(words: Sequence[str], folder: Path) -> list[str]:
    """Every text in the recipe and its overrides: those that are names of files go with the job."""
    from raytrain.config.recipe import load_recipe

    recipe = next((folder / word for word in words[1:] if word.endswith((".yaml", ".yml"))), None)
    if recipe is None or not recipe.is_file():
        return []
    overrides = [word for word in words[1:] if "=" in word and not word.startswith("-")]
    document = load_recipe(recipe, overrides)
    files = {origin.rpartition(":")[0] for origin in document.origins.values()}
    # Where results go is no input; a run may be called as a folder is.
    read = {
        key: value for key, value in document.values.items() if key not in ("name", "storage", "tracking")
    }
    texts = _texts(read)
    beside = _texts(document.values.get("pipeline") or {})
    return [*_found(texts, folder), *_found(beside, recipe.parent), *files]


def _found(texts: list[str], folder: Path) -> list[str]:
    """With patterns as the files that they fit below a folder."""
    found = []
    for text in texts:
        if glob.has_magic(text) and not Path(text).is_absolute():
            found += [str(one) for one in folder.glob(text)]
        else:
            found.append(str(folder / text) if (folder / text).exists() else text)
    return found


def _texts(values: Any) -> list[str]:
    if isinstance(values, str):
        return [values]
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list) else []
    return [text for one in inner for text in _texts(one)]


@contextmanager
def zipped(package: Package) -> Iterator[Path]:
    """The package as a zip file, for as long as it takes to send it."""
    import tempfile

    from raytrain.runs.packaging import write_zip

    with tempfile.TemporaryDirectory(prefix="raytrain-") as folder:
        file = Path(folder) / "package.zip"
        write_zip(package, file)
        yield file
