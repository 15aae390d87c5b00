from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bench import BIN, Bench, Outcome, end_ray, free_port, new_ray_folder, run_id_of, write_recipe, write_rows
from inside import Inside

_LONGEST_S = 900.0
"""Of a test that names no limit of its own: several starts of Ray, while another file's tests use the cores too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with the longest tests first, so that processes that share the files end at about the same time."""
    longest: dict[Path, float] = {}
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_LONGEST_S))
        for limit in item.iter_markers("timeout"):
            longest[item.path] = max(longest.get(item.path, 0.0), limit.args[0])
    items.sort(key=lambda item: -longest[item.path])


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty question and answer rows, the same at every call."""
    generator = random.Random(7)
    pairs = [(generator.randint(100, 999), generator.randint(100, 999)) for _ in range(60)]
    rows = [
        {"question": f"Case {i}: add {a} and {b}.", "answer": f"The sum is {a + b}."}
        for i, (a, b) in enumerate(pairs)
    ]
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", rows)


@pytest.fixture(scope="session")
def recipe(tiny_llama: Path, rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe that most scenarios share, so that their results can be compared with the straight run's."""
    folder = tmp_path_factory.mktemp("recipes")
    return write_recipe(folder / "sums.yaml", model=tiny_llama, rows=rows_file)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Bench]:
    """Runs start a Ray of their own, as on a laptop."""
    ray_folder = new_ray_folder()
    yield Bench(tmp_path / "local", ray_folder)
    end_ray(ray_folder)


@dataclass(frozen=True)
class Cluster:
    address: str
    ray_folder: Path
    dashboard: str
    environment: dict[str, str]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Ray cluster of one node with four CPUs, for the runs that join one."""
    ray_folder = new_ray_folder()
    port, dashboard_port = free_port(), free_port()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    # A token of its own, whatever lies in the user's ~/.ray.
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    usage = {"RAY_TMPDIR": str(ray_folder), "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    try:
        head = subprocess.run(
            [
                str(BIN / "ray"), "start", "--head", f"--port={port}", "--num-cpus=4", f"--temp-dir={ray_folder}",
                "--object-store-memory=200000000", "--include-dashboard=true", f"--dashboard-port={dashboard_port}",
                f"--ray-client-server-port={free_port()}",
                f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats",
            ],
            env={**kept, **usage, **own}, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert head.returncode == 0, head.stdout + head.stderr
        yield Cluster(f"127.0.0.1:{port}", ray_folder, f"http://127.0.0.1:{dashboard_port}", own)
    finally:
        end_ray(ray_folder)


@pytest.fixture
def joined(tmp_path: Path, cluster: Cluster) -> Iterator[Bench]:
    """Runs join the shared cluster."""
    bench = Bench(tmp_path / "joined", cluster.ray_folder, cluster.address, cluster.environment)
    yield bench
    bench.end_all()


@pytest.fixture(scope="module")
def connected(cluster: Cluster) -> Iterator[Cluster]:
    """The shared cluster, which this process joins with its first run and leaves after a file's last."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**cluster.environment, "RAY_TMPDIR": str(cluster.ray_folder)}.items():
            patch.setenv(name, value)
        import ray
        from ray._private.authentication_test_utils import reset_auth_token_state

        reset_auth_token_state()  # Ray reads it when it is imported, which another file's helpers have done before
        yield cluster
        ray.shutdown()


@pytest.fixture
def inside(tmp_path: Path, connected: Cluster) -> Inside:
    """Runs join the shared cluster, from this process."""
    return Inside(tmp_path / "inside", connected.ray_folder, connected.address, connected.environment)


@dataclass(frozen=True)
class Straight:
    """The shared recipe, run from its first to its last step without a stop on a Ray of its own."""

    bench: Bench
    outcome: Outcome
    run_id: str

    @property
    def digest(self) -> str:
        digest: str = self.outcome.object["digest"]
        return digest


@pytest.fixture(scope="session")
def straight(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Straight]:
    ray_folder = new_ray_folder()
    try:
        yield run_straight(Bench(tmp_path_factory.mktemp("straight"), ray_folder), recipe)
    finally:
        end_ray(ray_folder)


def run_straight(bench: Bench, recipe: Path) -> Straight:
    outcome = bench.train(recipe, timeout_s=400)
    assert outcome.code == 0, outcome.told()
    return Straight(bench, outcome, run_id_of(recipe))
