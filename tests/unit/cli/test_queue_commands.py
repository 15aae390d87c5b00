"""`raytrain queue` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Told

from raytrain.cli.main import run
from raytrain.errors import StorageError
from raytrain.runs.queue.scheduler import Scheduler, Tick

pytestmark = pytest.mark.whole


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Relative, in the folder that the command is typed in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "1?", "answer": "2"}) + "\n")
    (tmp_path / "mine.yaml").write_text(
        "model: {base_model: tiny}\ndata: {sources: rows.jsonl}\nscaling: {num_workers: 3, cpus_per_worker: 2}\n"
    )
    return "mine.yaml"


def test_a_job_through_its_states(told: Told, recipe: str, tmp_path: Path) -> None:
    code, found = told(
        "queue", "submit", "train", recipe, "train.seed=3", "--priority", "p2", "--env", "A=b=c"
    )
    job = found["job"]
    assert (code, job["state"], job["priority"], job["environment"]) == (0, "queued", "P2", ["A"])
    assert (job["words"], job["folder"]) == (["train", recipe, "train.seed=3"], str(tmp_path))
    assert job["need"] == {"cpus": 6.0, "gpus": 0.0, "memory_bytes": 0}
    assert job["run_id"].startswith("mine-")
    (listed,) = told("queue", "list")[1]["jobs"]
    assert listed["id"] == job["id"]
    assert listed["waits_because"] == "it is its turn as soon as a machine has room, and a scheduler works"
    assert told("queue", "list", "--state", "running")[1] == {"jobs": []}
    assert told("queue", "cancel", job["id"])[1]["how"] == "at once"
    code, again = told("queue", "cancel", job["id"])
    assert (code, again["how"], again["job"]["state"]) == (0, "ended before", "cancelled")
    assert told("queue", "retry", job["id"])[1]["job"]["state"] == "queued"
    assert told("queue", "status", job["id"][:8])[1]["job"]["exit_reason"] is None


@pytest.mark.parametrize(
    ("typed", "command"), [("train", "train"), ("tune", "tune"), ("pipeline", "run"), ("run", "run")]
)
def test_the_queue_takes_the_words_of_submit(told: Told, recipe: str, typed: str, command: str) -> None:
    add_search(recipe)
    code, found = told("queue", "submit", typed, recipe)
    assert (code, found["job"]["words"][:2]) == (0, [command, recipe])


def test_what_is_no_command_at_all(told: Told) -> None:
    code, found = told("queue", "submit", "xyz", "mine.yaml")
    assert code == 2
    assert "long commands are: train, evaluate, tune, run, retrain" in found["error"]["why"]
    assert "xyz" not in found["error"]["fix"], "there is no such command to give"


SEARCH = "space: {train.learning_rate: {type: float, low: 1.0e-5, high: 1.0e-2, log: true}}"

POPULATION = "max_concurrent: 9, scheduler: pbt, population: {size: 4}"


def add_search(recipe: str, more: str = "") -> None:
    with Path(recipe).open("a") as file:
        file.write(f"search: {{{SEARCH}{more}}}\n")


@pytest.mark.parametrize("command", ["tune", "run"])
def test_what_other_commands_take_and_make_follows_from_their_recipe_too(
    told: Told, recipe: str, command: str
) -> None:
    add_search(recipe)
    code, found = told("queue", "submit", command, recipe, "cost.confirm_above=0.5", "--yes")
    assert (code, found["job"]["need"]["cpus"]) == (0, 6.0)
    assert found["job"]["words"][-2:] == ["search.max_concurrent=1", "--yes"], (
        "nobody is asked when it starts"
    )
    assert found["job"]["run_id"].startswith("mine-")
    code, again = told("queue", "submit", command, recipe)
    assert (code, again["error"]["kind"]) == (5, "refused"), "one run waits once"
    assert told("queue", "submit", "train", recipe)[0] == 0, "what trains alone is another run"


@pytest.mark.parametrize("command", ["tune", "run"])
@pytest.mark.parametrize(
    ("keys", "options", "cpus", "added"),
    [
        ("", [], 6.0, ["search.max_concurrent=1"]),
        ("max_concurrent: 3", [], 18.0, []),
        ("max_concurrent: 3, num_trials: 2", [], 12.0, []),
        ("max_concurrent: 3", ["--cpus", 7], 7.0, []),
        ("", ["--cpus", 13], 13.0, ["search.max_concurrent=2"]),
        ("", ["--cpus", 1], 1.0, ["search.max_concurrent=1"]),
        ("", ["--gpus", 2], 6.0, ["search.max_concurrent=1"]),
        (
            "max_concurrent: 9, scheduler: pbt, population: {size: 4}",
            ["train.max_steps=400", "train.schedule=constant"],
            24.0,
            [],
        ),
    ],
)
def test_trials_at_once_are_counted(
    told: Told, recipe: str, command: str, keys: str, options: list[object], cpus: float, added: list[str]
) -> None:
    add_search(recipe, f", {keys}" if keys else "")
    code, found = told("queue", "submit", command, recipe, *options)
    assert (code, found["job"]["need"]["cpus"]) == (0, cpus), found
    assert [word for word in found["job"]["words"] if "max_concurrent" in word] == added


def test_trials_that_together_pass_a_limit_never_wait(told: Told, recipe: str) -> None:
    add_search(recipe, ", max_concurrent: 3")
    assert told("queue", "limit", "nightly", "--cpus", 12)[0] == 0
    code, found = told("queue", "submit", "tune", recipe, "--queue", "nightly")
    assert (code, "it needs 18 CPUs, the queue's limit is 12" in found["error"]["why"]) == (2, True)
    assert told("queue", "submit", "tune", recipe, "search.max_concurrent=2", "--queue", "nightly")[0] == 0


def test_cancelled_twice_is_told_kindly(recipe: str, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    job = told("queue", "submit", "train", recipe)[1]["job"]["id"]
    for expected in (f"{job} is cancelled", f"nothing to do: {job} is cancelled (cancelled before it ran)"):
        assert run(["queue", "cancel", job]) == 0
        assert capsys.readouterr().out.strip() == expected


def test_states_and_limits_of_a_queue(told: Told, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told("queue", "limit", "nightly", "--cpus", 4, "--running", 2, "--memory", 64)[1]["queue"] == {
        "name": "nightly", "state": "open",
        "limits": {"cpus": 4.0, "gpus": None, "memory_bytes": 64 * 10**9, "running": 2},
    }  # fmt: skip
    code, found = told("queue", "submit", "train", recipe, "--queue", "nightly")
    assert (code, found["error"]["kind"]) == (2, "config")
    assert "it needs 6 CPUs, the queue's limit is 4" in found["error"]["why"]
    assert told("queue", "submit", "train", recipe, "--queue", "nightly", "--cpus", 1)[0] == 0
    for command, state in (
        ("pause", "paused"),
        ("drain", "draining"),
        ("resume", "open"),
        ("drain", "draining"),
    ):
        assert told("queue", command, "nightly")[1]["queue"]["state"] == state
    code, found = told("queue", "submit", "evaluate", "x", "--queue", "nightly")
    assert (code, found["error"]["kind"]) == (5, "refused")
    (queue,) = told("queue", "status")[1]["queues"]
    assert (queue["queued"], queue["running"], queue["used"]["cpus"]) == (1, 0, 0.0)
    assert run(["queue", "status"]) == 0
    out = capsys.readouterr().out
    assert "queue nightly is draining; at most 4 CPUs, 64 GB, 2 jobs at once: 0 run, 1 wait" in out
    assert "no scheduler works" in out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["tarin", "mine.yaml"], "did you mean `train`?"),
        (["train", "absent.yaml"], "absent.yaml"),
        (["train", "mine.yaml", "train.lerning_rate=1"], "did you mean `learning_rate`?"),
        (["train", "mine.yaml", "--priority", "P7"], "P0, P1, P2"),
        (["train", "mine.yaml", "--backend", "celery"], "local, ray"),
        (["train", "mine.yaml", "--backend", "ray"], "add --address"),
        (["train", "mine.yaml", "--backend", "local", "--address", "http://head:8265"], "a Ray of its own"),
        (["train", "mine.yaml", "--address", "ray://head:10001"], "dashboard"),
        (["train", "mine.yaml", "--env", "NOVALUE"], "a name, =, and a value"),
        (["train", "mine.yaml", "--queue", "nightly"], "`raytrain queue limit nightly` makes it"),
        (["--", "train", "mine.yaml", "--fresh"], "--run-id NAME"),
        (["--", "train", "mine.yaml", "--fersh"], "--fersh"),
    ],
)
def test_what_is_refused_before_it_waits(told: Told, recipe: str, words: list[str], part: str) -> None:
    code, found = told("queue", "submit", *words) if "--" not in words else _told_behind(told, words)
    assert code == 2
    assert part in json.dumps(found["error"], ensure_ascii=False)
    assert told("queue", "list")[1] == {"jobs": []}


def _told_behind(told: Told, words: list[str]) -> tuple[int, dict[str, object]]:
    """--json goes before `--`, behind which everything is the command's."""
    return told("queue", "submit", "--json", *words)


def test_names_of_nothing(told: Told) -> None:
    for words in (
        ["cancel", "x"],
        ["retry", "x"],
        ["status", "x"],
        ["pause", "x"],
        ["list", "--state", "done"],
    ):
        code, found = told("queue", *words)
        assert (code, found["error"]["kind"]) == (2, "config"), words
        assert found["error"]["fix"]


def test_one_look_of_a_scheduler_with_nothing_to_do(told: Told, recipe: str) -> None:
    assert told("queue", "work", "--once") == (0, {"started": 0, "settled": 0, "left": 0, "stopped_by": None})
    assert told("queue", "submit", "train", recipe)[0] == 0
    assert told("queue", "work", "--once", "--cpus", 2)[1]["left"] == 1
    code, found = told("queue", "work", "--once", "--until-empty")
    assert code == 2 and "one look" in found["error"]["why"]
    assert told("queue", "status")[1]["schedulers"] == [], "each took its leave"


def test_a_scheduler_outlives_a_restart_of_the_database(
    told: Told, recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("raytrain.runs.queue.patience.TRY_EVERY_S", 0.01)
    breaks, tick = ["a look", "the next look", "its leave"], Scheduler.tick

    def shaky(scheduler: Scheduler) -> Tick:
        if len(breaks) > 1:
            raise StorageError("the database does not answer", why=breaks.pop(0), fix="wait")
        return tick(scheduler)

    def gone(_: Scheduler) -> None:
        raise StorageError("the database does not answer", why=breaks.pop(0), fix="wait")

    monkeypatch.setattr(Scheduler, "tick", shaky)
    monkeypatch.setattr(Scheduler, "end", gone)
    assert run(["queue", "work", "--until-empty", "--every", "0.1"]) == 0
    assert "the database does not answer (the next look)" in capsys.readouterr().err.replace("\n", " ")
    assert breaks == []


@pytest.mark.slow
def test_a_job_is_worked_off(told: Told, recipe: str) -> None:
    """Its suite is nowhere: exit code 2, which no retry changes."""
    words = ["--", "evaluate", "outputs.jsonl", "--suite", "absent.yaml"]
    job = told("queue", "submit", "--json", *words)[1]["job"]["id"]
    code, found = told("queue", "work", "--until-empty", "--every", 0.2)
    assert (code, found["started"], found["left"]) == (0, 1, 0)
    shown = told("queue", "status", job)[1]["job"]
    assert (shown["state"], shown["exit_code"], shown["num_starts"]) == ("failed", 2, 1)
    assert "absent.yaml" in shown["log_tail"]
