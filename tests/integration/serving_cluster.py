"""A server that `raytrain serve start` has started, as a test asks it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import psutil
from bench import Bench, Running, processes_below, wait_until
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from served_releases import Releases
from serving_site import NUM_TOKENS, PROMPTS

from benchmarks.serving_load import Load, Question


@dataclass
class Server:
    bench: Bench
    running: Running
    releases: Releases
    url: str
    texts: dict[tuple[str, str], str] = field(default_factory=dict)
    """What each digest answers to each prompt, by PEFT."""
    classifiers: dict[str, Path] = field(default_factory=dict)
    """By digest."""

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    def ready(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=5) as answer:
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            return dict(json.loads(error.read()))
        except OSError as error:
            return {"is_ready": False, "problems": [str(error)], "production": {}}

    def address(self, running: Running) -> str:
        """Of the cluster that a command has started, as it tells it."""
        told = re.search(r"--address (\S+)", running.files[1].read_text())
        assert told is not None
        return told[1]

    def answering(self) -> int:
        with urllib.request.urlopen(f"{self.url}/operate/standing", timeout=5) as answer:
            return int(json.loads(answer.read())["answering"])

    def replicas(self) -> list[psutil.Process]:
        found = []
        for process in processes_below(self.bench.ray_folder):
            try:
                if "ServeReplica:raytrain:replica" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def load(self) -> Load:
        """Four clients of `sums`."""
        port = int(self.url.rpartition(":")[2])
        asked = [Question("sums", one, NUM_TOKENS, row % 3 == 2) for row, one in enumerate(PROMPTS)]
        return Load(port, asked, num_connections=4)

    def wait_until_production_is(self, digest: str) -> None:
        wait_until(
            lambda: self.ready().get("production", {}).get("sums") == digest, 60, lambda: str(self.ready())
        )

    def metrics(self) -> list[Sample]:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as page:
            told = page.read().decode()
        return [one for family in text_string_to_metric_families(told) for one in family.samples]

    def engine(self, number: str) -> float:
        """Of all replicas."""
        found = [one for one in self.metrics() if one.name == "raytrain_engine"]
        return sum(one.value for one in found if one.labels["number"] == number)

    def num_replicas(self) -> float:
        """That answer."""
        return next(one.value for one in self.metrics() if one.name == "raytrain_replicas")

    def session(self) -> Path:
        """Where Ray keeps its logs, and writes which ports it took."""
        return next(self.bench.ray_folder.glob("**/session_latest")).resolve()
