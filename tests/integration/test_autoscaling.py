"""A cluster without a node for workers grows for a run, and shrinks when it is done: with Ray's own autoscaler, and
nodes that it makes of this machine."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from bench import BIN, Bench, end_ray, free_port, new_ray_folder, run_id_of, wait_until, write_recipe

NUM_WORKERS = 3
# CPUs of the nodes that live; Ray joins a cluster once in a process, which is why it is one of its own.
NODES = """
import ray, logging, sys
ray.init(address=sys.argv[1], logging_level=logging.ERROR, log_to_driver=False)
for node in ray.nodes():
    if node["Alive"]:
        print("node", node["Resources"].get("CPU", 0))
"""


@dataclass(frozen=True)
class Growing:
    address: str
    ray_folder: Path
    environment: dict[str, str]

    def cpus_of_nodes(self) -> list[float]:
        told = subprocess.run(
            [sys.executable, "-c", NODES, self.address],
            env={**os.environ, **self.environment}, check=True, capture_output=True, text=True, timeout=60,
        ).stdout  # fmt: skip
        return sorted(float(line.split()[1]) for line in told.splitlines() if line.startswith("node"))


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Growing]:
    """A head without CPUs for workers, and leave to make up to three nodes with one each."""
    from ray.util import get_node_ip_address

    ray_folder, port = new_ray_folder(), free_port()
    address = f"{get_node_ip_address()}:{port}"
    config = {
        "cluster_name": "growing",
        "max_workers": NUM_WORKERS,
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": 0.3,
        "provider": {
            # By its module: Ray's wheel lacks the defaults that its short name asks for.
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "launch_multiple": True,
            "disable_node_updaters": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 1, "object_store_memory": 80_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": NUM_WORKERS,
            },
        },
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        **{
            key: []
            for key in (
                "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
                "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files",
            )
        },
    }  # fmt: skip
    file = tmp_path / "growing.yaml"
    file.write_text(yaml.safe_dump(config))
    head_id = "f" * 51 + "00000"
    environment = {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": str(ray_folder),
        "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    as_head = {
        "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": head_id, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": head_id,
        "RAY_NODE_TYPE_NAME": "ray.head.default",
    }  # fmt: skip
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    try:
        head = subprocess.run(
            [str(BIN / "ray"), "start", "--head", f"--port={port}", "--num-cpus=0", f"--temp-dir={ray_folder}",
             f"--autoscaling-config={file}", "--object-store-memory=80000000",
             "--include-dashboard=false", f"--ray-client-server-port={free_port()}", "--disable-usage-stats"],
            env={**kept, **environment, **as_head}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert head.returncode == 0, head.stdout + head.stderr
        yield Growing(address, ray_folder, environment)
    finally:
        end_ray(ray_folder)


@pytest.mark.timeout(400)
@pytest.mark.thorough
def test_a_cluster_grows_for_a_run_and_shrinks_after_it(
    growing: Growing, tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    assert growing.cpus_of_nodes() == [0.0], "the head alone, and no room for a worker"
    recipe = write_recipe(
        tmp_path / "three.yaml", model=tiny_llama, rows=rows_file,
        train={"max_steps": 4, "global_batch_size": 6, "save_every": 0, "save_every_minutes": None, "hooks": []},
        scaling={"num_workers": NUM_WORKERS, "cpus_per_worker": 1, "placement_strategy": "STRICT_SPREAD"},
    )  # fmt: skip
    bench = Bench(tmp_path / "growing", growing.ray_folder, growing.address, growing.environment)
    outcome = bench.train(recipe, timeout_s=240)
    assert outcome.code == 0, outcome.told()
    workers = bench.events(run_id_of(recipe), "worker")
    assert {one["data"]["world_rank"] for one in workers} == set(range(NUM_WORKERS))
    assert growing.cpus_of_nodes() == [0.0, *[1.0] * NUM_WORKERS], "a node for each worker"
    wait_until(
        lambda: growing.cpus_of_nodes() == [0.0], 90, lambda: f"idle nodes to end: {growing.cpus_of_nodes()}"
    )
