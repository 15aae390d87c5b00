"""A CycloneDX document: the Python environment and, above it, the model. The same facts give the same bytes."""

from __future__ import annotations

import importlib.metadata
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError, IntegrityError, PlatformError
from raytrain.release.inventory.packages import Environment, Package
from raytrain.storage.manifest import digest_of

SBOM_FILE = "sbom.cdx.json"
_SPECIFICATION = "1.6"
"""Has model cards, and is what scanners and trackers read today."""

Json = dict[str, Any]


def environment_components(environment: Environment) -> list[Json]:
    """One component a package, as the CycloneDX library writes them. Raises ConfigError where it is not installed."""
    try:
        from cyclonedx.model.bom import Bom
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as error:
        raise ConfigError(
            "no inventory can be written",
            why=str(error),
            fix="pip install 'cyclonedx-python-lib[json-validation]'",
        ) from error
    bom = Bom(components=[_component(one) for one in environment.packages])
    written = json.loads(JsonV1Dot6(bom).output_as_string())
    components: list[Json] = sorted(written.get("components", []), key=lambda one: str(one["bom-ref"]))
    return components


def package_ref(name: str) -> str:
    """By what a package is referred to in the document."""
    return f"package:{name}"


def environment_dependencies(environment: Environment) -> list[Json]:
    return [
        {"ref": package_ref(one.name), "dependsOn": [package_ref(need) for need in one.requires]}
        for one in environment.packages
    ]


def assemble(model: Json, others: list[Json], dependencies: list[Json], environment: Environment) -> Json:
    """The whole document. Its serial number comes of its content, and it tells no time."""
    components = [*others, *environment_components(environment)]
    is_whole = "incomplete" if environment.missing else "complete"
    document: Json = {
        "bomFormat": "CycloneDX",
        "specVersion": _SPECIFICATION,
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [_tool()]},
            "component": model,
            "properties": [{"name": "raytrain:not_installed", "value": one} for one in environment.missing],
        },
        "components": components,
        "dependencies": [*dependencies, *environment_dependencies(environment)],
        "compositions": [
            {"aggregate": is_whole, "dependencies": [package_ref(one) for one in environment.roots]}
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, digest_of(document))
    return {"serialNumber": f"urn:uuid:{serial}", **document}


def to_text(document: Json) -> str:
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def validate_sbom(document: Json) -> None:
    """Against CycloneDX's own schema, model cards included; and that every reference leads somewhere.

    Raises IntegrityError with the first fault, ConfigError where the validator is not installed.
    """
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonValidator

    try:
        fault = JsonValidator(SchemaVersion.from_version(_SPECIFICATION)).validate_str(json.dumps(document))
    except MissingOptionalDependencyException as error:
        raise ConfigError(
            "an inventory cannot be held against its schema",
            why=str(error).strip(),
            fix="pip install jsonschema",
        ) from error
    if fault is not None:
        data = fault.data
        place = "/".join(str(one) for one in getattr(data, "absolute_path", []))
        raise _refused(f"{place}: {getattr(data, 'message', data)}"[:300])
    lost = sorted(set(_references(document)) - set(_defined(document)))
    if lost:
        raise _refused(f"it refers to {lost[0]}, which is not in it")


def read_sbom(folder: Path) -> Json:
    """A folder's, valid. Raises ConfigError where there is none, IntegrityError where it is not valid."""
    place = folder / SBOM_FILE
    if not place.is_file():
        raise ConfigError(
            f"{folder} holds no inventory",
            why=f"it has no {SBOM_FILE}" if folder.is_dir() else "nothing is there",
            fix="name the folder of a bundle that `raytrain export` has written",
        )
    try:
        document: Json = json.loads(place.read_text(encoding="utf-8"))
        validate_sbom(document)
    except PlatformError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{place} cannot be read",
            why=f"{type(error).__name__}: {error}",
            fix="name the folder of a bundle; take another copy of it, or export it again",
        ) from error
    return document


def _refused(why: str) -> IntegrityError:
    return IntegrityError(
        "this is not a valid CycloneDX document", why=why, fix="take another copy of it, or export again"
    )


def _component(one: Package) -> Any:
    from cyclonedx.factory.license import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    noted = {"raytrain:files_sha256": one.files_sha256}
    return Component(
        type=ComponentType.LIBRARY,
        name=one.name,
        version=one.version,
        bom_ref=package_ref(one.name),
        purl=PackageURL("pypi", name=one.name, version=one.version),
        licenses=[LicenseFactory().make_from_string(one.licence)] if one.licence else [],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=one.archive_sha256)]
        if one.archive_sha256
        else [],
        properties=[Property(name=name, value=value) for name, value in noted.items() if value],
    )


def _tool() -> Json:
    return {"type": "application", "name": "raytrain", "version": importlib.metadata.version("raytrain")}


def _references(document: Json) -> Iterator[str]:
    for one in document.get("dependencies", []):
        yield from (one["ref"], *one.get("dependsOn", []))
    for one in document.get("compositions", []):
        yield from (*one.get("dependencies", []), *one.get("assemblies", []))
    card = document.get("metadata", {}).get("component", {}).get("modelCard", {})
    yield from (one["ref"] for one in card.get("modelParameters", {}).get("datasets", []) if "ref" in one)


def _defined(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("bom-ref"), str):
            yield value["bom-ref"]
        for inner in value.values():
            yield from _defined(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _defined(inner)
