"""The folder that a command takes with it to a cluster."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raytrain.config.document import Document
    from raytrain.runs.packaging import Package


def inside(folder: Path, word: str) -> str:
    """A place below the folder as it is called there; the cluster knows no other."""
    place = Path(word)
    return str(place.relative_to(folder)) if place.is_absolute() and place.is_relative_to(folder) else word


def packed(words: Sequence[str], folder: Path) -> Package:
    """What the folder has that git keeps, and what the command line, its recipe and the suites that it asks name.
    ConfigError for the faults of these."""
    from raytrain.cli.queued_jobs import what_it_makes
    from raytrain.runs.packaging import collect

    with chdir(folder):
        what_it_makes(words)
        of_suites = [text for file in _suites(words) for text in _texts_of_suite(file)]
    return collect(folder, [*words[1:], *_texts_of_recipe(words, folder), *of_suites])


def _suites(words: Sequence[str]) -> list[Path]:
    """The files of the suites that the command asks; it is called in the folder. One elsewhere may be on the cluster
    alone."""
    from raytrain.cli.queued_jobs import arguments_of
    from raytrain.config.recipe import load_recipe
    from raytrain.pipeline.section import read_section

    given = arguments_of(words)
    if words[0] == "run":
        recipe = Path(given["recipe"])
        named = read_section(load_recipe(recipe, given["overrides"])).suites
        found = [recipe.parent / Path(one).expanduser() for one in named]
    else:
        found = [Path(one) for one in given.get("suite") or []]
    return [one for one in found if one.exists() or not one.is_absolute()]


def _texts_of_suite(file: Path) -> list[str]:
    """The files that it is written in, and where its items and worked examples lie: relative to its own folder."""
    from raytrain.config.recipe import build, load_recipe
    from raytrain.evaluation.suite import SUITE, SuiteSection

    document = load_recipe(file, form=SUITE)
    section = build(SuiteSection, document)
    few_shot = section.prompt.few_shot
    sources = [section.items.source] if few_shot is None else [section.items.source, few_shot.source]
    paths = [str(Path(one.path).expanduser()) for one in sources if one.path is not None]
    return [*_written_in(document), *_found(paths, file.parent)]


def _texts_of_recipe(words: Sequence[str], folder: Path) -> list[str]:
    """Every text in the recipe and its overrides: those that are names of files go with the job."""
    from raytrain.config.recipe import load_recipe

    if words[0] == "evaluate":  # whose YAML files are suites
        return []
    recipe = next((folder / word for word in words[1:] if word.endswith((".yaml", ".yml"))), None)
    if recipe is None or not recipe.is_file():
        return []
    overrides = [word for word in words[1:] if "=" in word and not word.startswith("-")]
    document = load_recipe(recipe, overrides)
    # Where results go is no input; a run may be called as a folder is.
    read = {
        key: value for key, value in document.values.items() if key not in ("name", "storage", "tracking")
    }
    texts = _texts(read)
    beside = _texts(document.values.get("pipeline") or {})
    return [*_found(texts, folder), *_found(beside, recipe.parent), *_written_in(document)]


def _written_in(document: Document) -> set[str]:
    """Its file, and those that it extends."""
    return {origin.rpartition(":")[0] for origin in document.origins.values()}


def _found(texts: list[str], folder: Path) -> list[str]:
    """With patterns as the files that they fit below a folder."""
    found = []
    for text in texts:
        # Most texts are no names, and some cannot be one: a chat's template.
        with suppress(OSError, ValueError):
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
