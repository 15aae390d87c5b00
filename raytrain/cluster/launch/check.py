"""`raytrain cluster check`: Ray's schema, every rule, and what the cluster costs."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.cluster.launch.cluster_file import ClusterFile, Finding, read_cluster
from raytrain.cluster.launch.demand_rules import unmet_demand
from raytrain.cluster.launch.machines import HourlyPrice, MachineTable, hourly_price
from raytrain.cluster.launch.network_rules import no_token, open_dashboard, open_ports, public_addresses
from raytrain.cluster.launch.node_rules import (
    idle_nodes,
    missing_disks,
    missing_files,
    other_lock,
    other_versions,
    placeholders,
    spot_head,
)
from raytrain.cluster.launch.nodes import node_types
from raytrain.cluster.section import WorkersSection
from raytrain.errors import ConfigError

# Rules that look at the file alone, in the order in which their findings are told.
RULES = (public_addresses, open_ports, open_dashboard, no_token, spot_head, missing_disks, idle_nodes)


@dataclass(frozen=True)
class Checked:
    """What was found in a cluster file, and what the cluster costs an hour."""

    cluster: ClusterFile
    findings: list[Finding]
    price: HourlyPrice | None
    table: MachineTable

    def of(self, *levels: str) -> list[Finding]:
        return [one for one in self.findings if one.level in levels]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; values may still be missing."""
        return not self.of("error")

    @property
    def can_launch(self) -> bool:
        return not self.of("error", "unfilled")

    def as_dict(self) -> dict[str, Any]:
        price = None
        if self.price is not None:
            price = {
                **vars(self.price),
                "currency": "USD",
                "written_on": str(self.table.written_on),
                "source": self.table.source,
            }
        return {
            "file": str(self.cluster.path),
            "provider": self.cluster.provider_type,
            "passed": self.passed,
            "can_launch": self.can_launch,
            "findings": [one.as_dict() for one in self.findings],
            "price_per_hour": price,
        }


def check_cluster(
    path: Path, table: MachineTable, scaling: WorkersSection | None = None, root: Path | None = None
) -> Checked:
    """Check a cluster file, and with `scaling` whether a recipe's workers find a place on it.

    `root` is where `ray up` would be typed. Raises ConfigError where Ray's own schema refuses the file.
    """
    import ray

    cluster = read_cluster(path)
    root = root or Path.cwd()
    findings = [found for rule in RULES for found in rule(cluster)]
    findings += other_versions(cluster, ray.__version__, platform.python_version())
    findings += other_lock(cluster, ray.__version__, root)
    if scaling is not None:
        findings += unmet_demand(cluster, scaling, table)
    findings += placeholders(cluster)
    findings += missing_files(cluster, root)
    max_workers = int(cluster.get("max_workers") or 0)
    price = hourly_price(cluster.provider_type, node_types(cluster), max_workers, table)
    return Checked(cluster, findings, price, table)


def refuse(checked: Checked) -> ConfigError:
    """What `up` says of a file that it does not launch; the first thing to mend, and how many there are."""
    against = checked.of("error", "unfilled")
    first = against[0]
    others = f"; {len(against) - 1} more" if len(against) > 1 else ""
    return ConfigError(
        f"{first.place}: {first.key}: {first.what}{others}",
        why="`cluster up` launches what the check has nothing against, and every value of which is filled in",
        fix=f"{first.fix}; `raytrain cluster check {checked.cluster.path}` tells everything",
    )
