"""A server as a team has it: a Ray cluster of two nodes, a replica on each, a registry, and versions in it."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from bench import BIN, Bench, end_ray, free_port, new_ray_folder, processes_below
from served_models import peft_answer
from served_releases import Releases
from tiny_models import save_tiny_llama
from transformers import AutoTokenizer

from benchmarks.serving_load import Connection, Question, wait_until
from raytrain.models.base import resolve_base_model
from raytrain.models.section import ModelSection
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.store import open_store
from raytrain.serving import haproxy, launch
from raytrain.serving.engine.text_stream import TextStream
from raytrain.storage.location import Location

END = 2
PROMPTS = ["What is the sum", "five", "The answer is two and three", "of", "What what what"]
NUM_TOKENS = 8
CONTEXT_TOKENS = 8192
"""An answer that fills it takes many seconds."""
MAX_ROWS, MAX_WAITING = 8, 16


@dataclass
class Site:
    """`sums` changes, `words` never does."""

    bench: Bench
    releases: Releases
    port: int
    disk: Path
    """Where the request log goes; nothing else is there."""
    address: str
    references: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def questions(self) -> list[Question]:
        """Of each model some as a stream."""
        models = ("sums", "words", "sums@production", "words@1.0.0", "sums", "base")
        return [
            Question(model, prompt, NUM_TOKENS, is_streamed=(row + column) % 3 == 2)
            for row, prompt in enumerate(PROMPTS)
            for column, model in enumerate(models)
        ]

    @property
    def connection(self) -> Connection:
        return Connection(self.port)

    def ready(self) -> dict[str, Any]:
        connection = self.connection
        try:
            return dict(json.loads(connection.send("GET", "/ready")[2]))
        except (OSError, ValueError) as error:
            return {"is_ready": False, "problems": [str(error)], "production": {}}
        finally:
            connection.close()

    def production(self, name: str = "sums") -> str | None:
        """None where replicas differ, or none says."""
        found: str | None = self.ready().get("production", {}).get(name)
        return found

    def numbers(self) -> dict[str, float]:
        """Of /metrics, with their labels."""
        connection = self.connection
        text = connection.send("GET", "/metrics")[2].decode()
        connection.close()
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def engine(self, number: str) -> float:
        """Of all replicas."""
        start = f'raytrain_engine{{number="{number}",'
        return sum(value for name, value in self.numbers().items() if name.startswith(start))

    def processes(self, word: str) -> list[psutil.Process]:
        """Of Ray's, whose command has this word."""
        found = []
        for one in processes_below(self.bench.ray_folder):
            with suppress(psutil.Error):
                if word in " ".join(one.cmdline()):
                    found.append(one)
        return found

    def proxies(self) -> list[psutil.Process]:
        """What listens, one on each node."""
        if haproxy.ENABLES_HAPROXY in self.bench.environment:
            return [one for one in self.processes("haproxy.cfg") if one.name() == "haproxy"]
        return self.processes("ray::ProxyActor")

    def replicas(self) -> list[psutil.Process]:
        return self.processes("ServeReplica:raytrain:replica")

    def is_whole(self) -> bool:
        """Two replicas say that they are ready, and agree."""
        found = self.ready()
        return bool(found["is_ready"] and not found["problems"]) and self.numbers()["raytrain_replicas"] == 2

    def wait_until_whole(self, within_s: float = 120.0) -> float:
        """How long that took."""
        start = time.monotonic()
        wait_until(self.is_whole, within_s, lambda: f"two ready replicas: {self.ready()}")
        return time.monotonic() - start

    def add_node(self) -> None:
        _start_node(self.bench, [f"--address={self.address}", "--num-cpus=1"])

    def raylets(self) -> list[psutil.Process]:
        return [one for one in self.processes("raylet/raylet") if one.name() == "raylet"]


@contextmanager
def site(folder: Path, registry: str | None = None, *, behind_haproxy: bool = False) -> Iterator[Site]:
    """registry: its URI; None = a folder."""
    releases = Releases(folder, save_tiny_llama(folder / "base"))
    _lengthen(releases.base)
    if registry is not None:
        releases.registry = Registry(open_store(registry))
    for name, version, seed in (("sums", "1.0.0", 1), ("sums", "1.1.0", 2), ("words", "1.0.0", 3)):
        releases.release(name, version, seed=seed)
    for reference in ("sums@1.0.0", "words@1.0.0"):
        releases.promote(reference)
    references = references_of(releases.base, _base_digest(releases), None)
    for digest, adapter in releases.adapters.items():
        references |= references_of(releases.base, digest, adapter)
    assert len(set(references.values())) > 2 * len(PROMPTS), "the versions can be told apart"
    bench, disk, port = Bench(folder / "bench", new_ray_folder()), folder / "disk", free_port()
    disk.mkdir()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Ray lets its workers go last, behind whatever else this machine does.
    patience = {"RAY_raylet_start_wait_time_s": "220", "RAY_worker_niceness": "0"}
    bench.environment.update(token | launch.ENVIRONMENT | patience)
    sockets = Path(tempfile.mkdtemp(prefix="raytrain-", dir="/tmp"))
    if behind_haproxy:
        bench.environment.update(haproxy.haproxy_environment(sockets))
    config = folder / "serving.yaml"
    config.write_text(json.dumps(_config(releases, registry, port, disk)))
    try:
        address = f"127.0.0.1:{free_port()}"
        head = ["--head", f"--port={address.rpartition(':')[2]}", f"--ray-client-server-port={free_port()}"]
        _start_node(
            bench, [*head, "--num-cpus=1", "--include-dashboard=false", f"--temp-dir={bench.ray_folder}"]
        )
        _start_node(bench, [f"--address={address}", "--num-cpus=1"])
        running = bench.start("serve", "start", config, "--address", address)
        wait_until(
            lambda: running.process.poll() is not None, 240, lambda: running.files[1].read_text()[-3000:]
        )
        assert running.process.poll() == 0, running.files[1].read_text()[-3000:]
        found = Site(bench, releases, port, disk, address, references)
        found.wait_until_whole()
        yield found
    finally:
        end_ray(bench.ray_folder)
        shutil.rmtree(sockets)


def _config(releases: Releases, registry: str | None, port: int, disk: Path) -> dict[str, Any]:
    return {
        "base_model": str(releases.base),
        "releases": {"registry": registry or releases.registry.place, "keys": str(releases.ring.folder)},
        "replicas": {"num_replicas": 2, "cpus_per_replica": 1},
        "engine": {"max_rows": MAX_ROWS, "max_waiting": MAX_WAITING},
        "http": {
            "num_ingresses": 2,
            "insecure": True,
            "port": port,
            "open_metrics": True,
            "access_log": False,
            "request_log": {"share": 0.02, "feedback": True, "folder": str(disk), "flush_s": 0.5},
        },
        "storage": {"path": str(releases.folder / "cache")},
    }


def _start_node(bench: Bench, words: list[str]) -> None:
    started = subprocess.run(
        [
            str(BIN / "ray"), "start", "--object-store-memory=100000000", "--disable-usage-stats",
            f"--dashboard-agent-listen-port={free_port()}", *words,
        ],
        env=bench.child_environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert started.returncode == 0, started.stdout + started.stderr


def _lengthen(base: Path) -> None:
    """Rotary positions have no weights: any number of them will do."""
    file = base / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_position_embeddings": CONTEXT_TOKENS}))


def _base_digest(releases: Releases) -> str:
    section = ModelSection.model_validate({"base_model": str(releases.base)})
    return str(resolve_base_model(section, Location(str(releases.folder / "cache"))).digest)


def references_of(base: Path, digest: str, adapter: Path | None) -> dict[tuple[str, str], str]:
    """By PEFT, which reads everything anew for each token."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    found = {}
    for prompt in PROMPTS:
        stream = TextStream(tokenizer)
        tokens = peft_answer(base, adapter, tokenizer(prompt)["input_ids"], NUM_TOKENS, ends=[END])
        found[digest, prompt] = "".join(map(stream.take, tokens)) + stream.finish()
    return found
