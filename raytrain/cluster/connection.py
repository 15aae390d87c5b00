"""The Ray cluster a run uses: started in this process on a laptop, or joined by address."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
from typing import Any

from raytrain.cluster.head import have_ray_wait_longer
from raytrain.cluster.section import ACCELERATOR_TYPE, WorkersSection
from raytrain.cluster.token import check_token, sends_token, wrong_token
from raytrain.errors import ClusterError

_DEFAULT_PORT = 6379
_REACHABLE_WITHIN_S = 10.0
_OTHER_VERSIONS = re.compile(r"Version mismatch:" + r".*?Ray: (\S+)\s+Python: (\S+)" * 2, re.DOTALL)
_NO_TOKEN = "no authentication token was found"
_NOISY_LOGGERS = ("ray", "ray.train", "ray.tune", "ray.data", "ray.serve")


def connect(address: str | None, *, verbose: bool) -> None:
    """Join the cluster at `address` (`auto`, host:port; also from $RAY_ADDRESS), or start one here. Idempotent.

    Raises ClusterError where nobody answers at the address.
    """
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray Train looks at its workers every 2 s by default; at each start, report and end somebody waits for that look.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    if not verbose:
        for name in _NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
    options: dict[str, Any] = {
        "logging_level": logging.INFO if verbose else logging.ERROR,
        "log_to_driver": verbose,
    }
    address = address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        if check_somebody_answers(address):
            check_token(address.rpartition("/")[2])
        have_ray_wait_longer()
    try:
        if address is None:
            # Nobody takes nodes away from a cluster on one machine.
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
            # The dashboard costs seconds at every start, and `raytrain runs` shows what it would show of one run.
            _start(include_dashboard=False, **options)
        else:
            ray.init(address=address, **options)
    except Exception as error:  # of no kind of its own where Ray waited in vain for what it had started
        raise _not_joined(address, error) from error


def _not_joined(address: str | None, error: BaseException) -> ClusterError:
    """What Ray said, in the words of the person who has to deal with it."""
    said = str(error).strip() or type(error).__name__
    if address is None:
        return ClusterError(
            "Ray cannot be started on this machine",
            why=said.splitlines()[0],
            fix="see `raytrain doctor`; free memory and /dev/shm are the usual causes",
        )
    if _is_about_the_token(error):
        return wrong_token(address, is_missing=not sends_token() or _NO_TOKEN in said)
    versions = _OTHER_VERSIONS.search(said)
    if versions is not None:
        return ClusterError(
            f"the cluster at {address} and this command are of different versions",
            why="the cluster has Ray {} with Python {}, this command Ray {} with Python {}".format(
                *versions.groups()
            ),
            fix="use the same version of both on every machine: install the cluster's here, or start the cluster "
            "with those of this installation",
        )
    return ClusterError(
        f"Ray cannot be reached at {address}",
        why=said.splitlines()[0],
        fix=f"something answers there: check that it is the port of Ray itself ({_DEFAULT_PORT} by default), "
        "that it is the same version of Ray, that RAY_AUTH_MODE is token, and that RAY_AUTH_TOKEN or "
        "~/.ray/auth_token is that cluster's token",
    )


def _is_about_the_token(error: BaseException | None) -> bool:
    """Ray tries a refused token again and again, and tells the refusal at last in the text of a cause."""
    while error is not None:
        if "AuthenticationError" in f"{type(error).__name__}: {error}":
            return True
        error = error.__cause__
    return False


def _start(**options: Any) -> None:
    """A cluster of this machine's. Ray's raylet ends where its agents take longer than 15 s to start (issue 65983 of
    ray-project/ray), as they may on a busy machine: they are tried once more, when what they read is in memory."""
    import ray

    try:
        ray.init(**options)
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        ray.shutdown()
        ray.init(**options)


def check_somebody_answers(address: str, within_s: float = _REACHABLE_WITHIN_S) -> bool:
    """Raise ClusterError where no process listens at host:port; Ray by itself would go on asking for minutes.

    Names that Ray looks up by itself (`auto`, `local`) are let through: false, nobody was asked.
    """
    host, colon, port = address.rpartition("/")[2].rpartition(":")
    if not colon or not port.isdigit():
        return False
    deadline = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=within_s).close()
            return True
        except (OSError, OverflowError) as error:
            if time.monotonic() >= deadline or not isinstance(error, OSError):
                raise ClusterError(
                    f"Ray cannot be reached at {address}",
                    why=f"nobody answered within {within_s:g} s: {error}",
                    fix="check the address with `ray status --address …`, or leave --address out to start Ray here",
                ) from error
        time.sleep(min(0.5, within_s))


def check_capacity(scaling: WorkersSection) -> None:
    """Refuse at once a run of which the cluster can never place the least number of workers. Raises ClusterError.

    An autoscaling cluster may grow beyond what it shows now, so there only a warning would be true: it is let through.
    """
    nodes = alive_nodes()
    placed = num_placeable(scaling)
    if placed >= scaling.min_workers or autoscales():
        return
    total = {name: sum(node.get(name, 0.0) for node in nodes) for name in scaling.worker_resources}
    least = "at least " if scaling.is_elastic else ""
    if (wanted := scaling.accelerator_type) and not total[f"{ACCELERATOR_TYPE}{wanted}"]:
        types = sorted({name for node in nodes for name in node if name.startswith(ACCELERATOR_TYPE)})
        raise ClusterError(
            f"no node of the cluster has a GPU of the type {wanted}",
            why="its types are "
            + (", ".join(one.removeprefix(ACCELERATOR_TYPE) for one in types) or "none: it has no GPUs"),
            fix="take one of these as scaling.accelerator_type, leave it out, or join another cluster",
        )
    is_strict = scaling.placement_strategy.startswith("STRICT_")
    raise ClusterError(
        f"the cluster can place {placed} of {least}{scaling.min_workers} workers",
        why=f"each needs {_told(scaling.worker_resources)}; the cluster has {_told(total)} on {len(nodes)} node(s)"
        + (f", and scaling.placement_strategy is {scaling.placement_strategy}" if is_strict else ""),
        fix=f"set {'scaling.placement_strategy=PACK, or ' if is_strict else ''}"
        f"scaling.num_workers={num_workers_for(scaling, placed)}, "
        "lower scaling.cpus_per_worker, or use a larger cluster",
    )


def num_workers_for(scaling: WorkersSection, placed: int) -> str:
    """What to write as scaling.num_workers where so many workers have room."""
    fewer = max(1, placed)
    return f"[{fewer},{scaling.max_workers}]" if scaling.is_elastic else str(fewer)


def num_placeable(scaling: WorkersSection) -> int:
    """Workers that the cluster has room for, as it is now, at most as many as are wanted."""
    return count_placeable(
        alive_nodes(), scaling.worker_resources, scaling.max_workers, scaling.placement_strategy
    )


def alive_nodes() -> list[dict[str, float]]:
    """The resources of each node of the cluster that this process has joined."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def count_placeable(
    nodes: list[dict[str, float]],
    worker: dict[str, float],
    num_workers: int,
    placement_strategy: str = "PACK",
) -> int:
    """How many equal workers fit on the nodes, at most `num_workers`, when nothing else runs there."""
    on_each = [0]
    for node in nodes:
        fits = [int(node.get(name, 0.0) / amount + 1e-9) for name, amount in worker.items() if amount > 0]
        on_each.append(min(fits) if fits else num_workers)
    if placement_strategy == "STRICT_PACK":
        placed = max(on_each)
    elif placement_strategy == "STRICT_SPREAD":
        placed = sum(min(fits, 1) for fits in on_each)
    else:
        placed = sum(on_each)
    return min(placed, num_workers)


def autoscales() -> bool:
    """Whether an autoscaler runs that may add nodes. Ray tells so through no public call (2.60); what it reports names
    the kinds of nodes that its cluster file has, and on other clusters each node by its id."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.experimental.internal_kv import _internal_kv_get

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    kinds = [node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)]
    # The older autoscaler, which RAY_UP_enable_autoscaler_v2=0 chooses, reports here.
    report = json.loads(_internal_kv_get("__autoscaling_status") or b"{}").get("autoscaler_report") or {}
    kinds += [*(report.get("active_nodes") or {}), *(report.get("idle_nodes") or {})]
    return any(is_kind_of_node(kind) for kind in kinds)


def is_kind_of_node(name: str) -> bool:
    """Whether an autoscaler's name for a node's kind comes from a cluster file; without one Ray makes it of the id."""
    return bool(name) and re.fullmatch(r"node_[0-9a-f]{40,}", name) is None


def _told(resources: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
