"""The file that a version travels in: what may stand in it, written and unpacked. See `transfer`."""

from __future__ import annotations

import re
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from raytrain.errors import ConfigError, DataError, IntegrityError, PlatformError
from raytrain.release.registry.shelf import SHELVES
from raytrain.release.signing import SIGNATURE_SUFFIX, signature_place
from raytrain.storage.location import translated_errors

VERSION, JOURNAL, KEY, BUNDLE, PROOF = "version.json", "journal.jsonl", "key.pem", "bundle", "proof"
EVIDENCE = "evidence"
_BESIDE = re.compile(rf"({PROOF}/({'|'.join(SHELVES)})|{EVIDENCE})/[0-9a-f]{{64}}(\.sig|/.+)")
_LARGEST_DOCUMENT = 1 << 28
_LONGEST_NAME = 255


def add_signed(tar: tarfile.TarFile, name: str, folder: Path) -> None:
    """An artifact, and the signature beside it."""
    signature = signature_place(folder)
    inside = {f"{name}/{one.relative_to(folder).as_posix()}": one for one in sorted(folder.rglob("*"))}
    for member, path in {**inside, name + SIGNATURE_SUFFIX: signature}.items():
        if path.is_file():
            with path.open("rb") as stream:
                tar.addfile(member_of(member, path.stat().st_size), stream)


def member_of(name: str, size: int) -> tarfile.TarInfo:
    """No clock, no owner: the same version, the same file."""
    found = tarfile.TarInfo(name)
    found.size, found.mode = size, 0o644
    return found


def unpack(file: Path, folder: Path) -> None:
    if not file.exists():
        raise ConfigError(f"there is no file {file}", why="nothing is there", fix="check the path")
    seen, folders = set[str](), set[str]()
    try:
        with tarfile.open(file, mode="r:") as tar:
            for member in tar:
                _check_member(file, member, seen, folders)
                place = folder / member.name
                source = tar.extractfile(member)
                assert source is not None, "a regular file has content"
                with translated_errors(place, "write"):
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with place.open("wb") as stream:
                        shutil.copyfileobj(source, stream)
    except PlatformError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read",
            why=f"{type(error).__name__}: {error}",
            fix="give a file that `raytrain registry export` has written, and all of it",
        ) from error


def _check_member(file: Path, member: tarfile.TarInfo, seen: set[str], folders: set[str]) -> None:
    """seen, folders: what was before it, and the folders that this is in."""
    name = PurePosixPath(member.name)
    known = (VERSION, JOURNAL, KEY, BUNDLE + SIGNATURE_SUFFIX)
    if not member.isreg():
        raise broken(file, f"{member.name!r} is no ordinary file")
    if name.is_absolute() or ".." in name.parts or "\0" in member.name or str(name) != member.name:
        raise broken(file, f"{member.name!r} would be written elsewhere")
    if member.name not in known and name.parts[0] != BUNDLE and not _BESIDE.fullmatch(member.name):
        raise broken(file, f"{member.name!r} does not belong there")
    if member.name in seen or member.name == BUNDLE:
        raise broken(file, f"{member.name!r} is there twice")
    above = {str(one) for one in name.parents}
    if member.name in folders or above & seen:
        raise broken(file, f"{member.name!r} is a file and a folder")
    if max(len(part.encode(errors="surrogateescape")) for part in name.parts) > _LONGEST_NAME:
        raise broken(file, f"{member.name[:80]!r}… is a longer name than any disk takes")
    if member.name in known and member.size > _LARGEST_DOCUMENT:
        raise broken(file, f"{member.name!r} has {member.size} bytes")
    seen.add(member.name)
    folders |= above


def broken(file: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{file} is not taken", why=why, fix="export the version again; do not use this file"
    )
