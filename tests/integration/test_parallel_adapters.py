"""Eight adapters that learn on one cluster of four CPUs, started by the queue: each gets its turn, and becomes what it
becomes alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, run_id_of, write_recipe
from conftest import Cluster
from inside import Inside
from test_submit import words

NUM_CPUS = 4
WORKERS = (2, 4, 1, 2, 1, 1, 2, 1)
"""Of each run, in the order of submission. Together they take 14 CPUs; the second takes all that there are."""
LOOK_S = 8.0
"""A look begins, finds that a job has ended, and starts what follows; it may take so long on a busy machine."""


@dataclass(frozen=True)
class Job:
    """One of the queue, when it is over."""

    id: str
    run_id: str
    num_workers: int
    created_at: float
    started_at: float
    ended_at: float


def as_seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.fixture
def recipes(tmp_path: Path, tiny_llama: Path, rows_file: Path) -> list[Path]:
    """In a folder of their own, which goes to the cluster."""
    folder = tmp_path / "working"
    folder.mkdir()
    (folder / "rows.jsonl").write_bytes(rows_file.read_bytes())
    return [
        write_recipe(
            folder / f"adapter-{number}.yaml", model=tiny_llama, rows=Path("rows.jsonl"),
            train={"max_steps": 6, "hooks": [], "seed": number}, scaling={"num_workers": num_workers},
        )
        for number, num_workers in enumerate(WORKERS)
    ]  # fmt: skip


def digest_of_run(bench: Bench, run_id: str) -> str:
    (digest,) = [one["digest"] for one in bench.show(run_id)["artifacts"] if one["role"] == "model"]
    return str(digest)


def over(bench: Bench, job_id: str, run_id: str, num_workers: int) -> Job:
    outcome = bench.run("queue", "status", job_id, "--json")
    found: dict[str, Any] = outcome.object["job"]
    assert (found["state"], found["num_starts"]) == ("succeeded", 1), found
    times = (as_seconds(found[name]) for name in ("created_at", "started_at", "ended_at"))
    return Job(job_id, run_id, num_workers, *times)


def told(jobs: list[Job]) -> str:
    """When each waited and ran, for a person."""
    first = jobs[0].created_at
    return "\n".join(
        f"{one.id}: {one.num_workers} workers, {one.started_at - first:.0f} to {one.ended_at - first:.0f} s"
        for one in jobs
    )


@pytest.mark.thorough
@pytest.mark.timeout(2700)
def test_eight_at_once_each_get_their_turn_and_become_what_they_become_alone(
    joined: Bench, inside: Inside, cluster: Cluster, recipes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    joined.folder = recipes[0].parent
    submitted = []
    for recipe in recipes:
        queued = joined.run("queue", "submit", "train", recipe.name, "--json", *words(joined, cluster))
        assert queued.code == 0, queued.told()
        submitted.append(queued.object["job"])
    assert [job["need"]["cpus"] for job in submitted] == list(map(float, WORKERS))
    worked = joined.run("queue", "work", "--until-empty", "--json", "--every", "0.5", timeout_s=1500)
    assert (worked.code, worked.object["started"], worked.object["left"]) == (0, len(WORKERS), 0), (
        worked.told()
    )
    jobs = [over(joined, job["id"], job["run_id"], num) for job, num in zip(submitted, WORKERS, strict=True)]

    besides = [
        [other for other in jobs if other.started_at <= one.started_at < other.ended_at - LOOK_S]
        for one in jobs
    ]
    assert all(sum(one.num_workers for one in beside) <= NUM_CPUS for beside in besides), told(jobs)
    assert max(map(len, besides)) > 1, f"they learn in parallel: {told(jobs)}"
    for num_workers in set(WORKERS):
        alike = [one for one in jobs if one.num_workers == num_workers]
        assert alike == sorted(alike, key=lambda one: one.started_at), told(jobs)
    print(told(jobs))

    monkeypatch.chdir(joined.folder)
    for recipe, job in zip(recipes, jobs, strict=True):
        assert run_id_of(recipe) == job.run_id
        alone = inside.train(Path(recipe.name))
        assert alone.code == 0, alone.told()
        assert alone.object["digest"] == digest_of_run(joined, job.run_id), told(jobs)
