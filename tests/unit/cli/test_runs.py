"""`raytrain runs`, through its own typer group."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from raytrain.cli.runs import app
from raytrain.errors import ConfigError, StorageError, TrainingError
from raytrain.runs.ownership import Owner
from raytrain.runs.records import Records, open_records

pytestmark = pytest.mark.whole


@pytest.fixture
def records() -> Records:
    """Two runs of the past and one that goes on in this process."""
    records = open_records()
    for i, (run_id, learning_rate) in enumerate(
        (("demo-1a2b", 1e-4), ("demo-9c", 2e-4), ("größer-77", 1e-4))
    ):
        config = {"train": {"learning_rate": learning_rate, "seed": 7}, "note": "[bold]ünï[/]"}
        created_at = time.time() - 3600 * (3 - i)
        records.create_run(
            run_id.replace("ö", "o").replace("ß", "s"),
            kind="train",
            name=run_id,
            config=config,
            max_steps=20,
            created_at=created_at,
        )
    for run_id in ("demo-1a2b", "demo-9c", "groser-77"):
        records.claim_run(run_id, Owner.current())
        curve = [
            (step, 1.7e9 + step, {"train/loss": 4 / step, "eval/exact_match": step / 20})
            for step in range(1, 21)
        ]
        records.add_metrics(run_id, curve)
        records.heartbeat(run_id, Owner.current(), global_step=20)
    parents = {"dataset": "sha256:dd"}
    records.add_artifact("demo-1a2b", "dataset", "read", "dataset", "sha256:dd", "/data")
    records.add_artifact("demo-1a2b", "model", "written", "adapter", "sha256:aa", "/models/[x]", parents)
    records.set_state("demo-1a2b", "succeeded")
    error = TrainingError("bad gradients", why="NaN in layer [3]", fix="lower the learning rate")
    records.set_state("demo-9c", "failed", "bad gradients", error.as_dict())
    return records


class Shell:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> str:
        app(list(arguments), standalone_mode=False)
        return self._capsys.readouterr().out

    def json(self, *arguments: str) -> Any:
        return json.loads(
            self(*arguments, "--json"), parse_constant=lambda name: pytest.fail(f"{name} is not JSON")
        )


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class TestList:
    def test_newest_first(self, shell: Shell, records: Records) -> None:
        lines = shell("list").splitlines()
        assert lines[0].split() == ["run", "kind", "state", "step", "loss", "age", "duration"]
        assert [line.split()[0] for line in lines[1:]] == ["groser-77", "demo-9c", "demo-1a2b"]
        assert "20/20" in lines[1]
        assert "0.2" in lines[1]

    def test_filters_and_pages(self, shell: Shell, records: Records) -> None:
        assert [run["id"] for run in shell.json("list", "--state", "failed")["runs"]] == ["demo-9c"]
        assert len(shell.json("list", "--kind", "train")["runs"]) == 3
        assert [run["id"] for run in shell.json("list", "--name", "größer")["runs"]] == ["groser-77"]
        assert [run["id"] for run in shell.json("list", "--since", "90m")["runs"]] == ["groser-77"]
        page = shell.json("list", "--limit", "1", "--offset", "1")
        assert (page["total"], [run["id"] for run in page["runs"]]) == (3, ["demo-9c"])
        assert "2 to 2 of 3" in shell("list", "--limit", "1", "--offset", "1")
        assert "only 3 runs fit" in shell("list", "--offset", "9")

    def test_an_empty_database(self, shell: Shell) -> None:
        assert shell("list").strip() == "no run fits"
        assert shell.json("list") == {"runs": [], "total": 0, "limit": 20, "offset": 0}

    def test_bad_filters(self, shell: Shell, records: Records) -> None:
        with pytest.raises(ConfigError) as caught:
            shell("list", "--state", "runing")
        assert caught.value.fix == "did you mean `running`?"
        with pytest.raises(ConfigError, match="`trian` is no kind of a run") as caught:
            shell("list", "--kind", "trian")
        assert caught.value.fix == "did you mean `train`?"
        for option in ("--state", "--kind"):
            with pytest.raises(ConfigError, match="`` is no"):
                shell("list", option, "")
        with pytest.raises(ConfigError, match="neither an age nor a date"):
            shell("list", "--since", "long ago")
        with pytest.raises(typer.BadParameter):
            shell("list", "--limit", "0")


class TestShow:
    def test_a_run_that_succeeded(self, shell: Shell, records: Records) -> None:
        text = shell("show", "demo-1")
        for part in (
            "succeeded",
            "20/20",
            "train/loss",
            "/models/[x]",
            "adapter aa  by demo-1a2b",
            "dataset: dataset dd",
        ):
            assert part in text, text
        assert "resume" not in text

    def test_a_run_that_failed(self, shell: Shell, records: Records, home: Path) -> None:
        (home / "runs" / "demo-9c" / "recipe.yaml").write_text("name: demo\n")
        text = shell("show", "demo-9c")
        assert "NaN in layer [3]" in text
        assert f"raytrain train {home / 'runs' / 'demo-9c' / 'recipe.yaml'}" in text
        assert shell.json("show", "demo-9c")["run"]["error"]["fix"] == "lower the learning rate"

    def test_a_run_whose_owner_is_gone(self, shell: Shell, records: Records) -> None:
        child = subprocess.Popen([sys.executable, "-c", "pass"])
        child.wait()
        records.claim_run("demo-9c", Owner(Owner.current().host, child.pid, time.time()))
        assert "failed (owner gone)" in shell("show", "demo-9c")
        assert "failed (owner gone)" in shell("list")
        run = shell.json("show", "demo-9c")["run"]
        assert (run["state"], run["owner_gone"], run["resumable"]) == ("failed", True, True)

    def test_as_json(self, shell: Shell, records: Records) -> None:
        shown = shell.json("show", "latest")
        assert shown["run"]["id"] == "groser-77"
        assert shown["metrics"]["eval/exact_match"]["best"]["value"] == 1.0
        assert shell.json("show", "demo-1a2b")["lineage"]["parents"][0]["digest"] == "sha256:dd"

    def test_a_name_that_fits_no_run_or_several(self, shell: Shell, records: Records) -> None:
        with pytest.raises(ConfigError, match="fits several runs"):
            shell("show", "demo")
        with pytest.raises(ConfigError) as caught:
            shell("show", "demo-9d")
        assert caught.value.fix == "did you mean `demo-9c`?"


class TestMetrics:
    def test_a_summary(self, shell: Shell, records: Records) -> None:
        assert "train/loss" in shell("metrics", "latest")

    def test_series_as_json(self, shell: Shell, records: Records) -> None:
        records.add_metrics("groser-77", [(21, 1.7e9, {"train/loss": math.nan})])
        found = shell.json("metrics", "latest", "--key", "train/loss", "--since-step", "20")["metrics"]
        assert [(point["global_step"], point["value"]) for point in found["train/loss"]] == [
            (20, 0.2),
            (21, "NaN"),
        ]

    def test_csv(self, shell: Shell, records: Records) -> None:
        records.add_metrics("groser-77", [(20, 1.7e9, {"late": 1.0})])
        lines = shell("metrics", "latest", "--csv", "--since-step", "19").splitlines()
        assert lines[0] == "global_step,eval/exact_match,late,train/loss"
        assert lines[1].startswith("19,0.95,,0.2105")

    def test_charts(self, shell: Shell, records: Records, tmp_path: Path) -> None:
        text = shell("metrics", "latest", "--plot", "--png", str(tmp_path / "loss.png"))
        assert "┤" in text
        assert "loss.png" in text
        assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")

    def test_a_key_that_is_not_there(self, shell: Shell, records: Records) -> None:
        with pytest.raises(ConfigError) as caught:
            shell("metrics", "latest", "--key", "train/los")
        assert caught.value.fix == "did you mean `train/loss`?"

    def test_a_run_without_metrics(self, shell: Shell, records: Records, tmp_path: Path) -> None:
        records.create_run("new-1", kind="train", name="new", config={})
        assert "no metrics yet" in shell("metrics", "new-1", "--plot")
        with pytest.raises(ConfigError, match="nothing to draw"):
            shell("metrics", "new-1", "--png", str(tmp_path / "x.png"))


class TestLogs:
    def test_events_and_log(self, shell: Shell, records: Records, home: Path) -> None:
        (home / "runs" / "demo-1a2b" / "log.txt").write_bytes("größe\nzwei\ndrei\n".encode() + b"\xff")
        text = shell("logs", "demo-1a2b")
        assert "[state] succeeded" in text
        assert text.index("größe") < text.index("drei")
        assert shell.json("logs", "demo-1a2b", "--tail", "2")["log"] == ["drei", "\ufffd"]

    def test_following_ends_with_the_run(self, shell: Shell, records: Records, home: Path) -> None:
        log = home / "runs" / "groser-77" / "log.txt"
        log.write_text("first\n")

        def go_on() -> None:
            time.sleep(0.2)
            with log.open("a") as stream:
                stream.write("second\n")
            records.set_state("groser-77", "succeeded")

        writer = threading.Thread(target=go_on)
        writer.start()
        text = shell("logs", "latest", "--follow")
        writer.join()
        assert text.count("first") == text.count("second") == text.count("[state] succeeded") == 1


class TestStop:
    def test_asking(self, shell: Shell, records: Records) -> None:
        assert "was asked to save and end" in shell("stop", "latest")
        assert records.stop_requested("groser-77")
        assert "running (stopping)" in shell("list")

    def test_waiting(self, shell: Shell, records: Records) -> None:
        def trainer() -> None:
            while not records.stop_requested("groser-77"):
                time.sleep(0.05)
            records.set_state("groser-77", "cancelled", "asked to stop", global_step=12)

        running = threading.Thread(target=trainer)
        running.start()
        assert shell.json("stop", "latest", "--wait")["run"]["state"] == "cancelled"
        running.join()

    def test_a_run_that_does_not_listen(self, shell: Shell, records: Records) -> None:
        with pytest.raises(TrainingError, match="has not stopped after 0 s"):
            shell("stop", "latest", "--wait", "--timeout", "0")

    def test_a_run_that_has_ended(self, shell: Shell, records: Records) -> None:
        with pytest.raises(ConfigError) as caught:
            shell("stop", "demo-1a2b")
        assert caught.value.why == "it is succeeded"


class TestCompare:
    def test_side_by_side(self, shell: Shell, records: Records, tmp_path: Path) -> None:
        text = shell("compare", "demo-1", "demo-9", "--png", str(tmp_path / "both.png"), "--plot")
        assert "train.learning_rate" in text
        assert "train.seed" not in text
        assert "0.2 (best 0.2 at 20)" in text
        assert "x demo-9c" in text
        assert (tmp_path / "both.png").is_file()

    def test_as_json(self, shell: Shell, records: Records) -> None:
        found = shell.json("compare", "demo-1", "groser", "--key", "train/loss")
        assert found["config"] == {}
        assert found["metrics"]["train/loss"]["groser-77"]["best"]["value"] == 0.2

    def test_one_run_is_not_enough(self, shell: Shell, records: Records) -> None:
        with pytest.raises(ConfigError, match="two runs or more"):
            shell("compare", "demo-1", "demo-1a2b")


class TestRebuild:
    def test_after_damage(self, shell: Shell, records: Records, home: Path) -> None:
        records.close()
        for file in home.glob("raytrain.db*"):
            file.unlink()
        (home / "raytrain.db").write_bytes(b"damaged" * 1000)
        with pytest.raises(StorageError, match="is damaged"):
            shell("list")
        told = shell.json("rebuild")
        assert len(told["runs"]) == 3
        assert Path(told["moved_aside"]).read_bytes().startswith(b"damaged")
        assert shell.json("list")["total"] == 3
        assert "added 0 runs (3 were known already)" in shell("rebuild")


def test_importing_the_group_is_cheap() -> None:
    heavy = ("sqlalchemy", "psutil", "rich.table", "matplotlib")
    code = f"import sys, raytrain.cli.runs; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
