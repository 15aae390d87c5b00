"""A workbench for real runs: `raytrain` as a process of its own, with a home and a Ray of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from raytrain.training.spec import load_spec

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    object: dict[str, Any]
    stdout: str
    stderr: str
    seconds: float

    @property
    def error(self) -> dict[str, str]:
        assert "error" in self.object, f"no error: {self.told()}"
        found: dict[str, str] = self.object["error"]
        return found

    def told(self) -> str:
        """What a person needs to see of a command that did not do what a test expects."""
        return f"exit {self.code} after {self.seconds:.0f} s\n{self.stdout[-3000:]}\n{self.stderr[-3000:]}"


@dataclass
class Running:
    """A `raytrain train` that goes on."""

    process: subprocess.Popen[str]
    started_at: float
    files: tuple[Path, Path]
    is_json: bool

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, timeout_s: float = 120) -> Outcome:
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self.process.kill()  # it would take the cores from the tests that follow
            raise AssertionError(
                f"still running after {timeout_s:.0f} s: {self.files[1].read_text()[-3000:]}"
            ) from error
        stdout, stderr = (file.read_text() for file in self.files)
        found: dict[str, Any] = {}
        if self.is_json and code >= 0:  # a killed process says nothing
            try:
                found = json.loads(stdout)
            except ValueError as error:
                raise AssertionError(f"stdout is not one JSON object:\n{stdout}\n{stderr}") from error
        return Outcome(code, found, stdout, stderr, time.monotonic() - self.started_at)


@dataclass
class Bench:
    """One home, one hook folder, one Ray temp folder. Several may share storage or recipes."""

    folder: Path
    ray_folder: Path
    address: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)
    """Words before every command, which bring it to another machine."""
    num_started: int = 0

    def __post_init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []
        self.home = self.folder / "home"
        self.hooks = self.folder / "hooks"
        self.hooks.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(__file__).with_name("watching.py"), self.hooks)

    # Commands

    def start(self, *words: str | Path) -> Running:
        """Start a raytrain command."""
        self.num_started += 1
        files = (
            self.folder / f"command-{self.num_started}.out",
            self.folder / f"command-{self.num_started}.err",
        )
        command = [*self.before, str(BIN / "raytrain"), *(str(word) for word in words)]
        with files[0].open("w") as stdout, files[1].open("w") as stderr:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.child_environment(),
                stdout=stdout,
                stderr=stderr,
                text=True,
            )
        self._started.append(process)
        return Running(process, time.monotonic(), files, "--json" in command)

    def end_all(self) -> None:
        """What a failed test left would keep the cluster's CPUs from the next one's runs."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait(30)

    def run(self, *words: str | Path, timeout_s: float = 180) -> Outcome:
        return self.start(*words).ended(timeout_s)

    def begin(self, recipe: Path, *words: str) -> Running:
        """Start `raytrain train`."""
        address = ["--address", self.address] if self.address else []
        return self.start("train", recipe, *words, "--json", *address)

    def train(self, recipe: Path, *words: str, timeout_s: float = 180) -> Outcome:
        return self.begin(recipe, *words).ended(timeout_s)

    def child_environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        paths = [str(self.hooks), *filter(None, [kept.get("PYTHONPATH")])]
        return {
            **kept,
            "RAYTRAIN_HOME": str(self.home),
            "RAY_TMPDIR": str(self.ray_folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # else Ray's workers go last, behind whatever else this machine does
            "PYTHONPATH": os.pathsep.join(paths),
            "HF_HUB_OFFLINE": "1",
            "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
            **self.environment,
            **({"RAY_JOB_CONFIG_JSON_ENV_VAR": self._job_config()} if self.address else {}),
        }

    def _job_config(self) -> str:
        """What `ray job submit` does for a job's own modules: a cluster's workers do not know a driver's PYTHONPATH."""
        paths = os.pathsep.join([str(self.hooks), str(ROOT)])
        cloud = {name: value for name, value in self.environment.items() if name.startswith("AWS_")}
        return json.dumps({"runtime_env": {"env_vars": {"PYTHONPATH": paths, **cloud}}})

    # What a run leaves

    def show(self, run_id: str) -> dict[str, Any]:
        outcome = self.run("runs", "show", run_id, "--json")
        assert outcome.code == 0, outcome.told()
        return outcome.object

    def run_folder(self, run_id: str) -> Path:
        return self.home / "runs" / run_id

    def steps_told(self, run_id: str) -> list[int]:
        """Steps in metrics.jsonl that carry a training loss."""
        return [line["global_step"] for line in self.metric_lines(run_id) if "train/loss" in line["metrics"]]

    def resumed_at(self, run_id: str) -> list[int]:
        """Steps at which its resumes began."""
        notes = [one["message"] for one in self.events(run_id, "note")]
        return [int(note.split()[3]) for note in notes if note.startswith("resumed at step")]

    def metric_lines(self, run_id: str) -> list[dict[str, Any]]:
        return list(json_lines(self.run_folder(run_id) / "metrics.jsonl"))

    def events(self, run_id: str, kind: str | None = None) -> list[dict[str, Any]]:
        lines = json_lines(self.run_folder(run_id) / "events.jsonl")
        return [line for line in lines if kind is None or line["kind"] == kind]

    def worker_pids(self, run_id: str) -> dict[int, int]:
        """Process id by rank, of the newest workers."""
        return {one["data"]["world_rank"]: one["data"]["pid"] for one in self.events(run_id, "worker")}

    def checkpoints(self, run_id: str, storage: Path | None = None) -> list[Path]:
        folder = (storage or self.home / "storage") / "runs" / run_id / "checkpoints"
        return sorted(folder.glob("step-*"))

    def seen(self) -> list[dict[str, Any]]:
        """What the hook of every rank noted, in the order of writing."""
        return list(json_lines(self.hooks / "seen.jsonl"))

    # Acting in the middle of a run

    def hold_at(self, step: int | None, before_micro_batch: int | None = None) -> None:
        """Have the hook hold the next run (or the present one) after `step`; None lets it go.

        With `before_micro_batch` (counted from 0) it holds inside `step`, when those before it have been through
        their backward pass.
        """
        staged = self.hooks / "pace.tmp"
        staged.write_text(json.dumps({"hold_at": step, "before_micro_batch": before_micro_batch}))
        staged.replace(self.hooks / "pace.json")

    def wait_until_held(self, run_id: str, *, world_size: int) -> None:
        """Until every worker of the run stands where `hold_at` wants it."""
        pace = json.loads((self.hooks / "pace.json").read_text())

        def all_held() -> bool:
            places = [self.hooks / f"held-{pid}" for pid in self.worker_pids(run_id).values()]
            held = [
                place for place in places if place.exists() and json.loads(place.read_text() or "0") == pace
            ]
            return len(held) == world_size

        wait_until(all_held, 60, lambda: f"{world_size} workers held at {pace}")

    def wait_for_step(self, running: Running, run_id: str, step: int, timeout_s: float = 120) -> None:
        """Until the driver has told of `step`."""

        def is_there() -> bool:
            if running.process.poll() is not None:
                raise AssertionError(f"ended before step {step}: {running.ended().told()}")
            return any(one >= step for one in self.steps_told(run_id))

        wait_until(
            is_there, timeout_s, lambda: f"step {step} of {run_id}; stderr: {running.files[1].read_text()}"
        )

    def wait_for_event(self, run_id: str, text: str, timeout_s: float = 30, count: int = 1) -> None:
        wait_until(
            lambda: sum(text in one["message"] for one in self.events(run_id)) >= count,
            timeout_s,
            lambda: f"an event {text!r} among {[one['message'] for one in self.events(run_id)]}",
        )

    def wait_for_checkpoint(self, run_id: str, step: int, storage: Path | None = None) -> Path:
        """Until the checkpoint of `step` stands."""
        folder = (storage or self.home / "storage") / "runs" / run_id / "checkpoints" / f"step-{step:08d}"
        wait_until((folder / "manifest.json").exists, 30, lambda: f"the checkpoint {folder}")
        return folder

    def kill_now(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines of a .jsonl file that may still grow."""
    if path.exists():
        for line in path.read_text().splitlines():
            with suppress(ValueError):
                yield json.loads(line)


def wait_until(condition: Callable[[], bool], timeout_s: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what()}"
        time.sleep(0.1)


def assert_every_row_once_per_epoch(
    seen: list[dict[str, Any]], *, num_epochs: int, world_size: int | Callable[[int], int]
) -> None:
    """`seen` is what the hooks noted. Where a kill had a step made again, its last making counts.

    `world_size` is a function of the step where the number of workers changed.
    """

    def size_at(step: int) -> int:
        return world_size if isinstance(world_size, int) else world_size(step)

    by_step: dict[int, list[dict[str, Any]]] = {}
    for line in seen:
        by_step.setdefault(line["step"], []).append(line)
    assert sorted(by_step) == list(range(1, max(by_step) + 1)), "no step is missing"
    steps_in_epoch, rest = divmod(len(by_step), num_epochs)
    assert rest == 0, f"{len(by_step)} steps do not make {num_epochs} epochs"
    for epoch in range(num_epochs):
        steps = range(epoch * steps_in_epoch + 1, (epoch + 1) * steps_in_epoch + 1)
        rows = sorted(
            row for step in steps for line in by_step[step][-size_at(step) :] for row in line["rows"]
        )
        assert rows == list(range(len(rows))), f"rows of epoch {epoch}: {rows}"
        # No state of the hooks is lost or counted twice either.
        assert all(line["calls"] == step for step in steps for line in by_step[step][-size_at(step) :])


# Ray clusters of the tests


def new_ray_folder() -> Path:
    """Short, because Ray puts Unix sockets below it, whose paths may have 107 characters."""
    return Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))


def processes_below(ray_folder: Path) -> list[psutil.Process]:
    """Processes that belong to a Ray whose temp folder is `ray_folder`: it stands in their environment or command."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            told = " ".join(process.cmdline()) + " " + process.environ().get("RAY_TMPDIR", "")
            if process.pid != os.getpid() and str(ray_folder) in told:
                found.append(process)
    return found


def end_ray(ray_folder: Path) -> None:
    """End what a test's Ray left, each process by its id."""
    left = processes_below(ray_folder)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=10)
    shutil.rmtree(ray_folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# Recipes


def write_recipe(path: Path, *, model: Path, rows: Path, **sections: dict[str, Any]) -> Path:
    """A recipe of 20 steps over 3 epochs of about 50 rows; `sections` are merged over it."""
    recipe: dict[str, Any] = {
        "model": {"base_model": str(model)},
        "adapter": {"lora_rank": 4, "lora_dropout": 0.1},
        # Rows have about 48 tokens: two of them fill a packed micro-batch, and two workers accumulate over two.
        "data": {
            "sources": [str(rows)],
            "val_fraction": 0.15,
            "near_duplicate_threshold": None,
            "max_seq_len": 64,
        },
        "train": {
            "num_epochs": 3,
            "global_batch_size": 8,
            "micro_batch_size": 2,
            "learning_rate": 1e-2,
            "warmup_steps": 3,
            "save_every": 4,
            "hooks": ["watching:Watch"],
        },
        "scaling": {"num_workers": 2, "cpus_per_worker": 1},
    }
    for section, values in sections.items():
        recipe[section] = {**recipe.get(section, {}), **values}
    path.write_text(yaml.safe_dump(recipe))
    return path


def run_id_of(recipe: Path, *overrides: str) -> str:
    return load_spec(recipe, list(overrides)).run_id


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
