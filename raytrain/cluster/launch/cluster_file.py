"""A file of Ray's cluster launcher, with the line of every key, and what Ray would add to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from raytrain.config.document import Document, Form, KeyPath, read_document
from raytrain.errors import ConfigError

CLUSTER = Form("cluster file", "cluster_name and provider", "clusters/", "docs/clusters.md")
CLOUDS = ("aws", "gcp", "azure")
Level = Literal["error", "unfilled", "warning"]


@dataclass(frozen=True)
class Finding:
    """What a rule has against a cluster file: an error, a place that waits for a value, or a warning."""

    rule: str
    level: Level
    place: str
    """`file:line` of the key, or of the nearest key above it that is there."""
    key: str
    what: str
    fix: str

    def as_dict(self) -> dict[str, str]:
        return dict(vars(self))


@dataclass(frozen=True)
class ClusterFile:
    """The file's own values and, for what it leaves out at the top, Ray's."""

    path: Path
    document: Document
    defaults: dict[str, Any]

    @property
    def provider_type(self) -> str:
        return str(self.get("provider", "type"))

    @property
    def is_on_demand(self) -> bool:
        """Whether nodes are rented, and begin and end with the cluster."""
        return self.provider_type in CLOUDS

    def get(self, *path: str | int) -> Any:
        """The value at a key path, Ray's own where the file has none; None where neither has one."""
        values = {**self.defaults, **self.document.values}
        return value_at(values, path)

    def finding(self, rule: str, level: Level, path: KeyPath, what: str, fix: str) -> Finding:
        """With the line of `path`; where the key is not in the file, the finding says that Ray's own value counts."""
        key = ".".join(str(part) for part in path)
        if path and path[0] not in self.document.values and path[0] in self.defaults:
            what = f"{what} (Ray's own value, as the file has no `{path[0]}`)"
        return Finding(rule, level, self.document.origin(path), key, what, fix)


def value_at(values: Any, path: tuple[str | int, ...]) -> Any:
    """The value at a path through mappings and lists, or None."""
    for part in path:
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return None
    return values


def read_cluster(path: Path) -> ClusterFile:
    """Read a cluster file and check it against Ray's own schema. Raises ConfigError with file, line and key."""
    from raytrain.cluster.launch.ray_schema import check_schema, ray_defaults

    _refuse_manifests(path)
    document = read_document(path, CLUSTER)
    check_schema(document)
    return ClusterFile(path, document, ray_defaults(document.values["provider"]))


def _refuse_manifests(path: Path) -> None:
    """Raise ConfigError for what kubectl takes. What is wrong with any other file is told by who reads it."""
    try:
        found = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    kinds = [
        str(one["kind"]) for one in found if isinstance(one, dict) and {"apiVersion", "kind"} <= one.keys()
    ]
    if kinds:
        raise ConfigError(
            f"{path}: holds Kubernetes manifests ({', '.join(kinds)})",
            why="`raytrain cluster` takes files of Ray's cluster launcher, which rents or joins machines itself",
            fix=f"kubectl takes it: `kubectl apply -f {path}`; docs/clusters.md tells more",
        )
