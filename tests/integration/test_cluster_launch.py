"""clusters/onprem.yaml, launched with `raytrain cluster up` over SSH on two machines that are made of namespaces."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bench import BIN, ROOT, run_id_of, wait_until, write_recipe
from machines import Machine, Site, new_site, what_is_missing

TOKEN = "c0ffee" * 8
missing = what_is_missing()
pytestmark = [pytest.mark.alone, pytest.mark.skipif(missing is not None, reason=str(missing))]


@dataclass(frozen=True)
class Launched:
    site: Site
    file: Path
    environment: dict[str, str]

    @property
    def head(self) -> Machine:
        return self.site.machines[0]

    @property
    def worker(self) -> Machine:
        return self.site.machines[1]

    def raytrain(self, *words: str, timeout_s: float = 180) -> tuple[int, dict[str, Any], str]:
        done = subprocess.run(
            [str(BIN / "raytrain"), *words, "--json"],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr

    def num_nodes(self) -> int:
        """Nodes that Ray's own status counts, asked over SSH."""
        code, told, stderr = self.raytrain("cluster", "status", str(self.file))
        assert code == 0, f"{told}\n{stderr[-3000:]}"
        assert told["head"] == self.head.address
        active = told["status"].partition("Active:")[2].partition("Pending:")[0]
        return sum(int(line.split()[0]) for line in active.splitlines() if line.strip()[:1].isdigit())


def onprem_file(site: Site) -> Path:
    """The shipped file, filled in. Nodes share this machine's environment: it stands for what install.sh brings."""
    text = (ROOT / "clusters/onprem.yaml").read_text(encoding="utf-8")
    head, worker = (machine.address for machine in site.machines)
    for old, new in {
        "<head>": head, "[<first worker>, <second worker>]": f"[{worker}]", "<user>": "root",
        "<path of the key>": str(site.key), "min_workers: 2": "min_workers: 1", "max_workers: 2": "max_workers: 1",
        "bash ~/raytrain/clusters/install.sh 3.11 s3,deepspeed":
            "bash -n ~/raytrain/clusters/install.sh && echo 'export PYTHONPATH=~/raytrain' >> ~/.bashrc",
        "--disable-usage-stats": "--disable-usage-stats --num-cpus=1 --object-store-memory=100000000",
    }.items():  # fmt: skip
        assert old in text, old
        text = text.replace(old, new)
    file = site.folder / "onprem.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    folder = tmp_path_factory.mktemp("site")
    home = folder / "launching"
    (home / ".ray").mkdir(parents=True)
    token = home / ".ray/auth_token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment = {**kept, "HOME": str(home), "RAY_TMPDIR": str(folder), "PATH": f"{BIN}:{kept['PATH']}"}
    with new_site(folder, ["head", "worker"]) as site:
        here = Launched(site, onprem_file(site), environment)
        code, told, stderr = here.raytrain("cluster", "check", str(here.file))
        assert (code, told["can_launch"], told["price_per_hour"]) == (0, True, None), told
        for _ in range(2):
            code, told, stderr = here.raytrain("cluster", "up", str(here.file), "--yes")
            # Ray's raylet gives up where its agents take longer than 15 s to start, as on a busy machine they may.
            if code == 0 or "Failed to setup head node" not in stderr:
                break
        assert code == 0, f"{told}\n{stderr[-6000:]}"
        assert told["head"] == here.head.address
        yield here
        code, told, stderr = here.raytrain("cluster", "down", str(here.file), "--yes")
        assert (code, told.get("ended")) == (0, True), f"{told}\n{stderr[-6000:]}"
        left = here.head.run("pgrep -x raylet || true") + here.worker.run("pgrep -x raylet || true")
        assert left == "", "no node is left"


@pytest.mark.timeout(420)
@pytest.mark.thorough
def test_a_cluster_of_two_machines(launched: Launched) -> None:
    wait_until(lambda: launched.num_nodes() == 2, 240, lambda: "two nodes")
    for machine in launched.site.machines:
        token = machine.folder / "home/.ray/auth_token"
        assert token.read_text() == TOKEN and stat.S_IMODE(token.stat().st_mode) & 0o077 == 0
        assert (machine.folder / "home/raytrain/raytrain/errors.py").is_file(), (
            "the code that was launched with"
        )
        assert not (machine.folder / "home/raytrain/.git").exists()
    for port in (8265, 10001):
        with socket.socket() as one:
            one.settimeout(3)
            reached = one.connect_ex((launched.head.address, port)) == 0
        assert not (reached and port == 8265), "the dashboard answers on the head alone"
    refused = launched.head.run("RAY_AUTH_TOKEN=wrong ray status 2>&1 || true")
    assert "Autoscaler status" not in refused and "uthentic" in refused, refused


@pytest.mark.timeout(300)
@pytest.mark.thorough
def test_a_run_on_both_machines(launched: Launched, tiny_llama: Path, rows_file: Path) -> None:
    recipe = write_recipe(
        launched.site.folder / "both.yaml", model=tiny_llama, rows=rows_file,
        train={"max_steps": 4, "hooks": []},
        scaling={"num_workers": 2, "cpus_per_worker": 1, "placement_strategy": "STRICT_SPREAD"},
        storage={"path": str(launched.site.folder / "storage")},
    )  # fmt: skip
    told = json.loads(launched.head.run(f"raytrain train {recipe} --address auto --json", timeout_s=240))
    assert told["global_step"] == 4, told
    events = launched.head.folder / "home/raytrain-home/runs" / run_id_of(recipe) / "events.jsonl"
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    hosts = {one["data"].get("host") or one["data"].get("node") for one in lines if one["kind"] == "worker"}
    assert len(hosts) == 2, lines
