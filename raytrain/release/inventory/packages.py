"""Installed Python packages: those that requirements lead to, with licence, and a digest of what is installed."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from raytrain.errors import ConfigError, IntegrityError

_LONGEST_LICENCE = 100
"""In characters; what is longer is the text of a licence and no name of one."""


@dataclass(frozen=True)
class Package:
    """An installed distribution."""

    name: str
    """In its canonical form."""
    version: str
    licence: str | None
    """An SPDX expression, or the name that the package gives."""
    requires: tuple[str, ...]
    """Packages that it needs here, for the extras that somebody asks of it."""
    files_sha256: str | None
    """Over names and digests of its files as the installer recorded them: the same wheel, the same digest."""
    archive_sha256: str | None
    """Of the wheel, where the installer has noted it."""


@dataclass(frozen=True)
class Environment:
    """All that requirements lead to."""

    roots: tuple[str, ...]
    packages: tuple[Package, ...]
    missing: tuple[str, ...]
    """Needed by one of them, and not installed."""


def read_requirements(place: Path) -> list[str]:
    """The lines of a requirements file, without comments, options and hashes."""
    lines = place.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    bare = (line.split(" #")[0].split(" --")[0].strip() for line in lines)
    return [one for one in bare if one and not one.startswith(("#", "-"))]


def environment_of(requirements: Sequence[str]) -> Environment:
    """Walk from requirements to all that they need here.

    Raises ConfigError where a line is no requirement or is not installed, IntegrityError where another version is
    installed than it asks for: an inventory of something else would be written.
    """
    roots = [_parsed(line) for line in requirements]
    wanted: dict[str, set[str]] = {}
    found: dict[str, importlib.metadata.Distribution] = {}
    missing: set[str] = set()
    edges: dict[str, set[str]] = {}
    waiting = [("", one) for one in roots if _applies(one, set())]
    while waiting:
        parent, one = waiting.pop()
        name = canonicalize_name(one.name)
        if parent:
            edges[parent].add(name)
        if name not in found:
            distribution = _distribution(name)
            if distribution is None:
                if not parent:
                    raise _not_installed(one)
                missing.add(name)
                continue
            found[name], wanted[name], edges[name] = distribution, set(), set()
        elif not one.extras - wanted[name]:
            continue
        if not parent:
            _check_version(one, found[name].version)
        wanted[name] |= one.extras
        needs = [_parsed(line) for line in found[name].requires or []]
        waiting += [(name, need) for need in needs if _applies(need, wanted[name])]
    packages = [_package(name, one, edges[name] - missing) for name, one in sorted(found.items())]
    names = {canonicalize_name(one.name) for one in roots} & found.keys()
    return Environment(tuple(sorted(names)), tuple(packages), tuple(sorted(missing)))


def constraints_of(environment: Environment, *, of: str | None = None) -> str:
    """Lines for `pip install -c`: elsewhere the same versions are installed, of another build or not.

    of: what led to these, where that is not the inventory's requirements.txt.
    """
    led = f"{of} led" if of else "requirements.txt led"
    listed = "." if of else ", as sbom.cdx.json lists it."
    lines = [f"# All that {led} to where the bundle was checked{listed}"]
    lines += [f"{one.name}=={one.version.partition('+')[0]}" for one in environment.packages]
    return "\n".join(lines) + "\n"


def _parsed(line: str) -> Requirement:
    try:
        return Requirement(line)
    except InvalidRequirement as error:
        raise ConfigError(
            f"{line!r} is not a requirement", why=str(error).splitlines()[0], fix="write NAME==VERSION"
        ) from error


def _applies(one: Requirement, extras: set[str]) -> bool:
    return one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _distribution(name: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _not_installed(one: Requirement) -> ConfigError:
    return ConfigError(
        f"{one.name} is not installed here",
        why="an inventory is made of what is there, and the requirements name it",
        fix=f"pip install '{one}'",
    )


def _check_version(one: Requirement, installed: str) -> None:
    if not one.specifier.contains(installed, prereleases=True):
        raise IntegrityError(
            f"{one.name} {installed} is installed, and the requirements ask for {one.specifier}",
            why="the inventory would be of another environment than the bundle's",
            fix=f"pip install '{one}', or write the installed version into the requirements",
        )


def _package(name: str, found: importlib.metadata.Distribution, requires: Iterable[str]) -> Package:
    return Package(
        name,
        found.version,
        _licence(found),
        tuple(sorted(requires)),
        _files_sha256(found),
        _archive_sha256(found),
    )


def _licence(found: importlib.metadata.Distribution) -> str | None:
    # The protocol of the standard library leaves out what every implementation has.
    told: Any = found.metadata
    expression = told.get("License-Expression")
    if expression:
        return str(expression)
    stated = str(told.get("License") or "").strip()
    if stated and "\n" not in stated and len(stated) <= _LONGEST_LICENCE and stated.upper() != "UNKNOWN":
        return stated
    classifiers = (str(one).split(" :: ") for one in told.get_all("Classifier") or [])
    names = [parts[-1] for parts in classifiers if parts[0] == "License" and len(parts) > 1]
    return names[0] if names else None


def _files_sha256(found: importlib.metadata.Distribution) -> str | None:
    record = found.read_text("RECORD")
    if record is None:
        return None
    rows = (row for row in csv.reader(record.splitlines()) if len(row) >= 2)
    # What the installer adds lies outside of the packages, or has no digest.
    kept = sorted(f"{name} {digest}" for name, digest, *_ in rows if digest and _is_of_wheel(name))
    return hashlib.sha256("\n".join(kept).encode()).hexdigest() if kept else None


def _is_of_wheel(name: str) -> bool:
    of_installer = ("/INSTALLER", "/REQUESTED", "/direct_url.json", "/RECORD")
    return not name.startswith("../") and not (".dist-info/" in name and name.endswith(of_installer))


def _archive_sha256(found: importlib.metadata.Distribution) -> str | None:
    try:
        told = json.loads(found.read_text("direct_url.json") or "{}")["archive_info"]
        return str(told["hashes"]["sha256"])
    except (ValueError, KeyError, TypeError):
        return None
