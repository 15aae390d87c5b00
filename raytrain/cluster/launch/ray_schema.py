"""What Ray's cluster launcher itself asks of a cluster file: its JSON schema, then what it makes of the values."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raytrain.config.document import Document, KeyPath
from raytrain.errors import ConfigError

_TAKEN = ("aws", "gcp", "azure", "local")
# Ray takes them before its schema sees the file.
_BEFORE_THE_SCHEMA = {"local": {"min_workers"}}


def ray_defaults(provider: dict[str, Any]) -> dict[str, Any]:
    """What Ray puts where a cluster file of this provider has no key."""
    from ray.autoscaler._private.providers import _get_default_config

    defaults: dict[str, Any] = _get_default_config(provider)
    return defaults


def check_schema(document: Document) -> None:
    """Raise ConfigError, with the place of each fault, where Ray's launcher would refuse the file."""
    values = document.values
    provider = values.get("provider")
    kind = provider.get("type") if isinstance(provider, dict) else None
    taken_before = _BEFORE_THE_SCHEMA.get(str(kind), set())
    faults = list(_schema_faults({key: value for key, value in values.items() if key not in taken_before}))
    if faults:
        raise _refused(document, faults)
    if kind not in _TAKEN:
        raise ConfigError(
            f"{document.origin(('provider', 'type'))}: provider.type: {kind} is not checked",
            why=f"raytrain knows the nodes of {', '.join(_TAKEN)}",
            fix="launch it with `ray up`; manifests for Kubernetes lie in clusters/kuberay",
        )
    message = _prepared(values)
    if message is not None:
        raise ConfigError(
            f"{document.origin(())}: Ray's launcher refuses this cluster file",
            why=message,
            fix="docs/clusters.md says what a cluster file needs",
        )


def _schema_faults(values: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    for error in jsonschema.Draft7Validator(schema).iter_errors(values):
        yield tuple(error.absolute_path), error.message


def _refused(document: Document, faults: list[tuple[KeyPath, str]]) -> ConfigError:
    (path, message), *others = faults
    key = ".".join(str(part) for part in path) or "the file"
    told = "; ".join(f"{document.origin(path)}: {message}" for path, message in others)
    return ConfigError(
        f"{document.origin(path)}: {key}: {message}",
        why="Ray's own schema of cluster files does not allow it" + (f"; also {told}" if told else ""),
        fix="docs/clusters.md says what a cluster file needs; clusters/ holds some to start from",
    )


def _prepared(values: dict[str, Any]) -> str | None:
    """Why Ray cannot make a whole config of the values, or None where it can. It asks no cloud yet."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    printed = io.StringIO()
    try:
        # It tells of some faults on the terminal, and raises an error without words; and it logs what it fills in.
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), _without_notes():
            validate_config(prepare_config(copy.deepcopy(values)))
    except Exception as error:  # noqa: BLE001  Ray raises whatever its code meets
        said = [line.strip() for line in printed.getvalue().splitlines() if line.strip()]
        return str(error).strip() or " ".join(said) or type(error).__name__
    return None


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    logger = logging.getLogger("ray.autoscaler")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
