"""Two Ray nodes on machines of their own, whose link can be cut and whose head can lose its power."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from bench import ROOT, Bench, free_port, wait_until
from machines import Machine, Site, new_site

_PORT = 6379


@dataclass
class NodesApart:
    """A head and a worker node. With `redis` the head keeps what it knows there, and finds it again."""

    site: Site
    head_cpus: int
    worker_cpus: int
    redis: str | None = None
    token: str = field(default_factory=lambda: secrets.token_hex(32))

    @property
    def head(self) -> Machine:
        return self.site.machines[0]

    @property
    def worker(self) -> Machine:
        return self.site.machines[1]

    @property
    def address(self) -> str:
        return f"{self.head.address}:{_PORT}"

    @property
    def environment(self) -> dict[str, str]:
        """Of whoever joins; the token is one of its own, whatever lies in the user's ~/.ray."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "HF_HUB_OFFLINE": "1"}

    def start_head(self) -> None:
        of_redis = {"RAY_REDIS_ADDRESS": self.redis, "RAY_external_storage_namespace": "tests"}
        self._start_node(
            self.head, self.head_cpus, f"--head --port={_PORT} --include-dashboard=false",
            **(of_redis if self.redis else {}),
        )  # fmt: skip

    def start_worker(self) -> None:
        self._start_node(self.worker, self.worker_cpus, f"--address={self.address}")

    def _start_node(self, machine: Machine, num_cpus: int, words: str, **environment: str | None) -> None:
        exported = {
            **self.environment, **environment, "PYTHONPATH": str(ROOT),
            "RAY_health_check_failure_threshold": "10",  # as in clusters/
            "RAY_worker_niceness": "0",  # else Ray's workers go last, behind whatever else this machine does
        }  # fmt: skip
        variables = " ".join(f"{name}={value}" for name, value in exported.items())
        command = (
            f"env {variables} ray start {words} --num-cpus={num_cpus} --object-store-memory=100000000 "
            "--disable-usage-stats </dev/null >/tmp/ray/start.log 2>&1"
        )
        log = machine.folder / "ray/start.log"
        for _ in range(3):
            if machine.run(f"{command} && echo started || true", timeout_s=240):
                return
            # Ray's raylet gives up where its agents take longer than 15 s to start, as on a busy machine they may.
            machine.kill_all()
        raise AssertionError(log.read_text()[-3000:])

    def bench(self, folder: Path, machine: Machine) -> Bench:
        """Commands run on that machine."""
        return Bench(folder, Path("/tmp/ray"), self.address, dict(self.environment), before=machine.inside)

    def restart_gcs_server(self) -> None:
        """SIGKILL to it alone, and the same again, as whoever watches over it would."""
        (server,) = self.processes(self.head, "gcs_server")
        command, environment = server.cmdline(), server.environ()
        server.send_signal(signal.SIGKILL)
        server.wait(10)
        with (self.site.folder / "gcs_server.log").open("ab") as log:
            # A child of that machine's first process, which `kill_all` finds.
            subprocess.run(
                [*self.head.inside, "setsid", "--fork", *command],
                env=environment, stdout=log, stderr=log, check=True,
            )  # fmt: skip

    def processes(self, machine: Machine, name: str) -> list[psutil.Process]:
        """Of that machine, by how their names begin."""
        found = []
        for one in psutil.Process(machine.pid).children(recursive=True):
            with suppress(psutil.Error):
                if one.name().startswith(name):
                    found.append(one)
        return found


@contextmanager
def nodes_apart(
    folder: Path, *, head_cpus: int, worker_cpus: int, with_redis: bool = False
) -> Iterator[NodesApart]:
    """Both, until the block ends."""
    with new_site(folder, ["head", "worker"]) as site:
        _know_each_other(site.machines)
        nodes = NodesApart(site, head_cpus, worker_cpus)
        if not with_redis:
            nodes.start_head()
            nodes.start_worker()
            yield nodes
            return
        with _redis(site) as nodes.redis:
            nodes.start_head()
            nodes.start_worker()
            yield nodes


def _know_each_other(machines: list[Machine]) -> None:
    """As with a router between them: where the link is cut, packets vanish, and no neighbour is found to be missing."""
    hardware = {}
    for machine in machines:
        (told,) = json.loads(machine.run(f"ip -json link show dev {machine.link}i"))
        hardware[machine.address] = told["address"]
    for machine in machines:
        for address, of in hardware.items():
            if address != machine.address:
                machine.run(f"ip neigh replace {address} lladdr {of} dev {machine.link}i nud permanent")


@contextmanager
def _redis(site: Site) -> Iterator[str]:
    """On this machine, which both reach at the bridge."""
    port, host = free_port(), f"{site.network}.254"
    server = subprocess.Popen(
        [str(shutil.which("redis-server")), "--port", str(port), "--bind", host, "--protected-mode", "no",
         "--save", "", "--appendonly", "no", "--dir", str(site.folder)],
        stdout=(site.folder / "redis.log").open("wb"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_until(
            lambda: "Ready to accept" in (site.folder / "redis.log").read_text(),
            20,
            lambda: (site.folder / "redis.log").read_text(),
        )
        yield f"{host}:{port}"
    finally:
        server.kill()
        server.wait(10)
