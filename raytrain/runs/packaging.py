"""The folder that goes to a cluster with a job: what git would keep, and what the command names, in one zip file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from pathspec import GitIgnoreSpec

from raytrain.errors import ConfigError
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import translated_errors

MOST_BYTES = 100 * 2**20
_MOST_TOLD = 8

_IGNORE_FILES = (".gitignore", ".rayignore")
_NEVER = {".git", "__pycache__", ".venv", "node_modules"}
_SECRETS = (".env", ".env.*", ".netrc", "*.pem", "id_rsa*", "id_ed25519*", "id_ecdsa*")
"""Names that go to no cluster, whatever .gitignore says: variables of the environment are given with --env."""
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same files are the same package, which Ray then has already


@dataclass(frozen=True)
class Package:
    """`files` are relative to `folder`; `outside` is named by the command and does not go with it."""

    folder: Path
    files: dict[str, int]
    """With their bytes."""
    outside: list[str] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        return sum(self.files.values())

    def told(self) -> str:
        return f"{len(self.files)} files, {in_units(self.num_bytes)}"


def collect(folder: Path, named: Iterable[str] = (), most_bytes: int = MOST_BYTES) -> Package:
    """Files below `folder` that no .gitignore or .rayignore leaves out, and those that are `named` although one does.

    Raises ConfigError where they are larger than `most_bytes` together, with the largest of them.
    """
    folder = folder.resolve()
    with translated_errors(folder, "read"):
        kept = set(_kept(folder))
        inside, outside = _named(folder, named)
        files = {
            path: (folder / path).stat().st_size
            for path in sorted(kept | inside)
            if not _stays_here(folder / path)
        }
    package = Package(folder, files, outside)
    if package.num_bytes > most_bytes:
        raise _too_large(package, most_bytes)
    return package


def write_zip(package: Package, target: Path) -> None:
    with translated_errors(target, "write"):
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.with_name(f".{target.name}.{os.getpid()}")
        with zipfile.ZipFile(staged, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in package.files:
                source = package.folder / path
                entry = zipfile.ZipInfo(path, _ZIP_TIME)
                entry.external_attr = (source.stat().st_mode & 0o777 | 0o100000) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, source.read_bytes())
        staged.replace(target)


def _kept(folder: Path) -> Iterator[str]:
    above = [(place, spec) for place in _above(folder) if (spec := _spec_of(place)) is not None]
    above = _of_the_repository(folder) + above
    specs: dict[Path, list[tuple[Path, GitIgnoreSpec]]] = {folder.parent: above}
    for place, folders, names in _walk(folder):
        own = _spec_of(place)
        here = specs[place.parent] + ([(place, own)] if own is not None else [])
        specs[place] = here
        folders[:] = [
            name
            for name in sorted(folders)
            if name not in _NEVER and not _is_ignored(place / name, here, is_folder=True)
        ]
        for name in names:
            if (place / name).is_file() and not _is_ignored(place / name, here, is_folder=False):
                yield (place / name).relative_to(folder).as_posix()


def _stays_here(path: Path) -> bool:
    """Secrets, and everything of raytrain's own: keys, records, earlier packages."""
    return path.is_relative_to(raytrain_home().resolve()) or any(fnmatch(path.name, one) for one in _SECRETS)


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    for place, folders, names in os.walk(folder):
        yield Path(place), folders, names


def _above(folder: Path) -> list[Path]:
    """Folders of the same repository that `folder` lies in, outermost first."""
    for number, place in enumerate((folder, *folder.parents)):
        if (place / ".git").exists():
            return [*reversed(folder.parents[:number])]
    return []


def _of_the_repository(folder: Path) -> list[tuple[Path, GitIgnoreSpec]]:
    """What this clone alone leaves out: .git/info/exclude."""
    for place in (folder, *folder.parents):
        file = place / ".git" / "info" / "exclude"
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            return [(place, GitIgnoreSpec.from_lines(lines))]
    return []


def _spec_of(place: Path) -> GitIgnoreSpec | None:
    lines = [
        line
        for name in _IGNORE_FILES
        if (place / name).is_file()
        for line in (place / name).read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    return GitIgnoreSpec.from_lines(lines) if lines else None


def _is_ignored(path: Path, specs: list[tuple[Path, GitIgnoreSpec]], *, is_folder: bool) -> bool:
    """The innermost file that says something of a path decides, as in git."""
    for place, spec in reversed(specs):
        found = spec.check_file(path.relative_to(place).as_posix() + ("/" if is_folder else "")).include
        if found is not None:
            return bool(found)
    return False


def _named(folder: Path, named: Iterable[str]) -> tuple[set[str], list[str]]:
    """Of the texts, those that are files: inside `folder`, and elsewhere. A folder stands for its files."""
    inside: set[str] = set()
    outside: list[str] = []
    for text in dict.fromkeys(named):
        place = _as_place(folder, text)
        if place is None:
            continue
        if not place.is_relative_to(folder):
            outside.append(str(place))
        elif place.is_file():
            inside.add(place.relative_to(folder).as_posix())
        elif place != folder:
            inside |= set(_all_of(place, folder))
    return inside, outside


def _all_of(place: Path, folder: Path) -> Iterator[str]:
    for here, folders, names in _walk(place):
        folders[:] = sorted(set(folders) - _NEVER)
        yield from ((here / name).relative_to(folder).as_posix() for name in names if (here / name).is_file())


def _as_place(folder: Path, text: str) -> Path | None:
    """The file or folder that a text names; None where it names none, as most texts do."""
    if not text or len(text) > 4096 or "\n" in text or "\0" in text:
        return None
    try:
        place = (folder / text.removeprefix("file://")).expanduser().resolve()
        return place if place.exists() else None
    except (OSError, RuntimeError):
        return None


def _too_large(package: Package, most_bytes: int) -> ConfigError:
    largest = sorted(package.files.items(), key=lambda item: -item[1])[:_MOST_TOLD]
    told = "; ".join(f"{path} {in_units(size)}" for path, size in largest)
    return ConfigError(
        f"{package.folder} is {in_units(package.num_bytes)}, a package has at most {in_units(most_bytes)}",
        why=f"the largest of its {len(package.files)} files: {told}",
        fix="put them into .gitignore or .rayignore, name a smaller folder with --working-dir, or leave large "
        "data where the cluster reads it (s3://, a shared disk)",
    )


def in_units(num_bytes: float) -> str:
    """Binary units, as the limit is one."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"
