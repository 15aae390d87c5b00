"""Freezing, watching, the reports that are left, and who may act."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browsers import headless_chromium, looked_at

from raytrain.cli.main import run
from raytrain.errors import DataError, StorageError
from raytrain.monitoring.drift.freezing import freeze, reference_place
from raytrain.monitoring.drift.section import WatchSection
from raytrain.monitoring.drift.watching import Look, look, metrics_of
from raytrain.runs.records import Records, open_records

pytestmark = pytest.mark.whole

START = 1_700_000_000.0
LATER = START + 10**6


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYTRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def records() -> Any:
    opened = open_records()
    yield opened
    opened.close()


def write_rows(path: Path, num: int, start: float, *, shift: float = 0.0, seed: int = 0, **more: Any) -> None:
    generator = np.random.default_rng(seed)
    names = np.array(["book", "weather", "news"])
    texts = [f"Please tell me about {names[i % 3]} number {generator.integers(100, 999)}" for i in range(num)]
    columns = {
        "at": start + np.arange(num), "score": generator.normal(shift, 1.0, num),
        "tool": names[generator.integers(0, 3, num)].tolist(), "question": texts, **more,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def watch_of(**more: Any) -> WatchSection:
    asked = {
        "watch": "test",
        "rows": "rows",
        "window": {"rows": 100, "settle_s": 0},
        "permutations": 199,
        **more,
    }
    return WatchSection.model_validate(asked)


def scores(found: Look) -> dict[int, list[str]]:
    return {
        one.number: [moved.name for moved in one.judgement.moved] for one, _ in found.reports if one.judgement
    }


def test_windows_are_judged_once_and_drift_is_named(records: Records) -> None:
    write_rows(Path("rows/a.parquet"), 600, START)
    section = watch_of()
    frozen = freeze(section, now=LATER)
    assert frozen.reference.num_rows == 600 and frozen.reference.ends_at == START + 599
    assert any(
        "reference is small" in one
        for one in freeze(watch_of(window={"rows": 300}), now=LATER, replace=True).notes
    )
    frozen = freeze(section, now=LATER, replace=True)
    write_rows(Path("rows/b.parquet"), 250, START + 1000, seed=1)
    will_be_told = metrics_of(section)
    found = look(section, records, now=LATER)
    assert (found.num_judged, found.num_waiting, found.alarms) == (2, 50, [])
    assert set(records.latest_metrics(found.run_id)) == will_be_told, "known before a window was judged"
    assert look(section, records, now=LATER).reports == (), "nothing new is judged"
    write_rows(Path("rows/c.parquet"), 150, START + 2000, shift=2.0, seed=2)
    found = look(section, records, now=LATER)
    assert [one.number for one, _ in found.reports] == [3, 4]
    assert scores(found)[4] == ["score"] and "window 4: drift of score" in found.alarms[-1]
    artifact = found.reports[-1][1]
    told = json.loads((artifact.path / "report.json").read_text())
    assert told["is_alarm"] and told["window"]["begins"].startswith("2023-11-14T")
    assert artifact.manifest.parents["reference"] == frozen.artifact.digest
    assert {one["label"] for one in told["distributions"]["tool"]} == {"book", "weather", "news"}
    run_of = records.get_run(found.run_id)
    assert (run_of.kind, run_of.state, run_of.global_step) == ("watch", "succeeded", 4)
    assert [point.global_step for point in records.metrics(found.run_id, ["drift/score"])["drift/score"]] == [
        1,
        2,
        3,
        4,
    ]
    assert [one.data["window"] for one in records.events(found.run_id) if one.kind == "drift"][-1] == 4


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "input", "path", "rect", "circle", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_stands_alone_and_shows_nothing_as_markup(records: Records) -> None:
    hostile = "<script>alert(1)</script>"
    write_rows(Path("rows/a.parquet"), 300, START, **{hostile: [hostile, "b", "c"] * 100})
    freeze(watch_of(), now=LATER)
    write_rows(Path("rows/b.parquet"), 200, START + 1000, shift=1.5, seed=1, **{hostile: [hostile] * 200})
    found = look(watch_of(), records, now=LATER)
    text = (found.reports[-1][1].path / "report.html").read_text()
    assert "<script>alert" not in text and "default-src 'none'" in text
    page = _Page()
    page.feed(text)
    assert page.open == [] and page.seen.count("svg") >= 3, "a timeline, and distributions of what moved"
    assert "then" in text and "window 1" in text and found.reports[0][1].digest in text
    assert "http://" not in text and "https://" not in text


@pytest.mark.slow
def test_the_page_is_seen(records: Records) -> None:
    """In a browser: why it is an alarm, the timeline, what moved, and the table, which can be searched."""
    write_rows(Path("rows/a.parquet"), 300, START)
    freeze(watch_of(), now=LATER)
    write_rows(Path("rows/b.parquet"), 200, START + 1000, shift=1.5, seed=1)
    found = look(watch_of(), records, now=LATER)
    with headless_chromium() as browser:
        page = looked_at(browser, (found.reports[-1][1].path / "report.html").resolve())
        shown = page.seen("body")
        for words in ("Moved: score", "drift of score", "Timeline", "Every feature", "rows of the reference"):
            assert words in shown, shown
        plots = browser.find_elements("css selector", "figure svg")
        assert len(plots) >= 3, "a timeline, and distributions of what moved"
        assert all(one.find_elements("css selector", "path, rect, circle") for one in plots)
        assert page.find(".badge").value_of_css_property("background-color") != "rgba(0, 0, 0, 0)", (
            "it has colours"
        )
        rows = browser.find_elements("css selector", "tbody tr[data-feature]")
        page.fill("#wanted", "score")
        assert [one.get_attribute("data-feature") for one in rows if one.is_displayed()] == ["score"] != rows


def test_what_differs_from_the_reference_is_told(records: Records) -> None:
    write_rows(Path("rows/a.parquet"), 300, START)
    freeze(watch_of(), now=LATER)
    write_rows(Path("rows/b.parquet"), 100, START + 1000, seed=1, brand_new=list(range(100)))
    found = look(watch_of(), records, now=LATER)
    assert "columns that the reference does not have are not compared: brand_new" in found.reports[0][0].notes
    Path("rows/a.parquet").unlink()
    pq.write_table(
        pa.table({"at": [START + 5000.0 + i for i in range(100)], "x": range(100)}), "rows/b.parquet"
    )
    with pytest.raises(DataError, match="no column question, score, tool") as told:
        look(watch_of(), records, now=LATER)
    assert "frozen" in told.value.why
    assert records.get_run(found.run_id).state == "failed"


def test_a_reference_of_another_schema_is_told(records: Records) -> None:
    write_rows(Path("rows/a.parquet"), 300, START)
    section = watch_of()
    with pytest.raises(DataError, match="there is no reference"):
        look(section, records, now=LATER)
    freeze(section, now=LATER)
    from raytrain.monitoring.drift import reference
    from raytrain.storage.artifact import ArtifactWriter, open_artifact

    place = reference_place(section)
    frozen = open_artifact(place)
    told = json.loads((frozen.path / "reference.json").read_text())
    with ArtifactWriter(place, kind=reference.KIND) as writer:
        (writer.path / "features.parquet").write_bytes((frozen.path / "features.parquet").read_bytes())
        (writer.path / "reference.json").write_text(json.dumps({**told, "schema": 0}))
        writer.commit(replace=True)
    with pytest.raises(DataError, match="has schema 0") as found:
        look(section, records, now=LATER)
    assert "--replace" in found.value.fix


def test_fixed_limits_alarm_or_are_told(records: Records) -> None:
    write_rows(Path("rows/a.parquet"), 600, START)
    rules = [
        {"distance": "psi", "above": 5.0, "warn_above": 0.1, "feature": "score"},
        {"distance": "js", "above": 0.2},
    ]
    section = watch_of(level=None, fixed=rules)
    freeze(section, now=LATER)
    write_rows(Path("rows/b.parquet"), 100, START + 1000, shift=1.0, seed=1)
    ((judged, artifact),) = look(section, records, now=LATER).reports
    assert judged.judgement is None
    recorded = records.latest_metrics(records.list_runs(kind="watch").runs[0].id)
    assert set(recorded) == metrics_of(section), "no chance is computed, and none is told"
    assert [one.partition(" is ")[0] for one in judged.alarms] == ["score: js"]
    assert judged.warnings[0].startswith("score: psi is ") and judged.warnings[0].endswith("above 0.1")
    page = (artifact.path / "report.html").read_text()
    assert "Worth a look" in page and "Alarm: score: js is 0." in page


def write_log(folder: Path, num: int, start: float, *, refused: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    helped = ["It is sunny.", "The train leaves at nine.", '{"tool": "news", "arguments": {}}']
    rows = []
    for i in range(num):
        says_no = generator.random() < refused
        answer = "I'm sorry, but I can't help with that." if says_no else helped[generator.integers(0, 3)]
        at = datetime.fromtimestamp(start + i, UTC)
        more = {
            "key": None,
            "model": "helper@1.0.0",
            "digest": f"sha256:{1 + (refused > 0.1)}",
            "finish": ["stop"],
        }
        rows.append(
            {
                "at": at,
                "request_id": f"{start}-{i}",
                "prompts": ["Tell me more."],
                "answers": [answer],
                **more,
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"requests-{start:.0f}.parquet")


def test_a_log_in_which_refusals_begin(records: Records, home: Path) -> None:
    folder = home / "serving" / "requests"
    section = WatchSection.model_validate({"watch": "served", "window": {"rows": 150}, "permutations": 199})
    write_log(folder, 600, START, refused=0.05, seed=0)
    frozen = freeze(section, now=LATER)
    assert {"answer: refusal", "answer: tool", "prompt: language"} <= {
        one.name for one in frozen.reference.features
    }
    write_log(folder, 150, START + 1000, refused=0.05, seed=1)
    write_log(folder, 150, START + 2000, refused=0.4, seed=2)
    (folder / "requests-9.parquet").write_bytes(b"PAR1")
    quiet, loud = (one for one, _ in look(section, records, now=LATER).reports)
    assert quiet.alarms == [] and loud.judgement is not None
    assert "answer: refusal" in [one.name for one in loud.judgement.moved]
    assert loud.digests == {"sha256:2": 150} and quiet.digests == {"sha256:1": 150}
    assert "sorry" in [one.word for one in loud.words["answer"]]
    assert any("requests-9.parquet" in one for one in loud.notes)


def test_a_time_without_rows_and_a_table_without_time(records: Records) -> None:
    write_rows(Path("rows/a.parquet"), 300, START)
    section = watch_of(window={"rows": None, "hours": 1, "settle_s": 0})
    freeze(section, now=LATER)
    (only,) = look(section, records, now=LATER).reports
    assert only[0].num_rows == 0 and only[0].alarms == [] and "empty" in only[0].judgement.notes[0]  # type: ignore[union-attr]
    assert "No rows came" in (only[1].path / "report.html").read_text()
    pq.write_table(pa.table({"x": np.arange(300.0)}), "then.parquet")
    pq.write_table(pa.table({"x": np.arange(300.0) + 200}), "now.parquet")
    freeze(watch_of(watch="plain", rows="then.parquet"), now=LATER)
    found = look(watch_of(watch="plain", rows="now.parquet"), records, now=LATER)
    assert found.alarms and found.num_judged == 1
    assert look(watch_of(watch="plain", rows="now.parquet"), records, now=LATER).num_judged == 1, (
        "the same rows"
    )


def test_what_a_killed_watcher_did_not_record_the_next_one_does(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(Path("rows/a.parquet"), 300, START)
    freeze(watch_of(), now=LATER)
    write_rows(Path("rows/b.parquet"), 100, START + 1000, shift=3.0, seed=1)

    def away(*_: Any) -> None:
        raise StorageError("the database is away", why="it is", fix="wait")

    with monkeypatch.context() as patched:
        patched.setattr(Records, "add_artifact", away)
        with pytest.raises(StorageError):
            look(watch_of(), records, now=LATER)
    found = look(watch_of(), records, now=LATER)
    assert found.reports == () and found.num_judged == 1, "its report is there"
    assert [one.data["window"] for one in records.events(found.run_id) if one.kind == "drift"] == [1]
    assert records.latest_metrics(found.run_id)["drift/alarm"].value == 1.0
    assert records.latest_metrics(found.run_id)["mean/score"].value > 2
    look(watch_of(), records, now=LATER)
    assert len([one for one in records.events(found.run_id) if one.kind == "drift"]) == 1


OTHER = """
import sys, time
from raytrain.runs.carrying import carried
from raytrain.runs.records import open_records
with carried(open_records(), sys.argv[1], lambda: 0):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_of_two_watchers_one_acts(records: Records, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("rows/a.parquet"), 300, START)
    section = watch_of()
    freeze(section, now=LATER)
    run_id = look(section, records, now=LATER).run_id
    write_rows(Path("rows/b.parquet"), 100, START + 1000, seed=1)
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, run_id], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None and other.stdout is not None
    assert other.stdout.readline() == "held\n"
    found = look(section, records, now=LATER)
    assert found.reports == () and f"process {other.pid}" in str(found.held_by)
    other.kill()  # it has no time to let go
    other.wait()
    assert len(look(section, records, now=LATER).reports) == 1


@pytest.mark.slow
def test_a_watch_goes_on_until_it_is_interrupted(records: Records) -> None:
    """Each window is told once, whenever it comes; Ctrl-C ends it between two looks, and nothing is held any more."""
    write_rows(Path("rows/a.parquet"), 300, START)
    freeze(watch_of(), now=LATER)
    told_of = {"watch": "test", "rows": "rows", "window": {"rows": 100, "settle_s": 0}, "permutations": 199}
    Path("watch.yaml").write_text(json.dumps(told_of))
    words = [sys.executable, "-m", "raytrain", "watch", "run", "watch.yaml", "--every", "1", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        looks = [json.loads(process.stdout.readline())]
        assert looks[0]["num_judged"] == 0
        for number in (1, 2):
            write_rows(Path("new.parquet"), 100, START + 1000 * number, seed=number)
            Path("new.parquet").rename(f"rows/b{number}.parquet")  # whole at once: a look may be at it
            while looks[-1]["num_judged"] < number:
                looks.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in err, err
    looks += [json.loads(line) for line in rest.splitlines()]
    assert [one["window"]["number"] for told in looks for one in told["reports"]] == [1, 2]
    found = records.get_run(looks[0]["run_id"])
    assert (found.state, found.global_step) == ("succeeded", 2)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("rows/a.parquet"), 300, START)
    lines = [
        "watch: test",
        "rows: rows",
        "window: {rows: 100}",
        "permutations: 199",
        "falls: [{feature: score, by: 1}]",
    ]
    Path("watch.yaml").write_text("\n".join(lines))
    assert run(["watch", "run", "watch.yaml", "--json"]) == 3
    assert "no reference" in json.loads(capsys.readouterr().out)["error"]["what"]
    assert run(["watch", "freeze", "watch.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_rows"] == 300
    write_rows(Path("rows/b.parquet"), 100, START + 1000, seed=1)
    command = ["watch", "run", "watch.yaml", "--metrics", "out/raytrain.prom"]
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reports"][0]["is_alarm"] is False
    write_rows(Path("rows/c.parquet"), 100, START + 2000, seed=2, shift=-1.5)
    assert run(command) == 5
    told = capsys.readouterr().out
    assert (
        "window 2, 100 rows: ALARM. Moved: score" in told and "report.html" in told and "score: mean" in told
    )
    from prometheus_client.parser import text_string_to_metric_families

    text = Path("out/raytrain.prom").read_text()
    found = {
        (one.name, one.labels.get("feature")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert found[("raytrain_drift_alarm", None)] == 1 and found[("raytrain_drift_windows", None)] == 2
    assert found[("raytrain_drift_distance", "score")] > found[("raytrain_drift_threshold", "score")] > 0
    assert run(["watch", "freeze", "watch.yaml"]) == 5, "another reference is there"
    assert run(["watch", "run", "watch.yaml", "falls=[{feature: scor, by: 1}]"]) == 2
    assert "did you mean `score`" in capsys.readouterr().err


@pytest.mark.slow
def test_texts_are_compared_as_points_where_a_model_is_named(records: Records, tiny_llama: Path) -> None:
    def texts(*words: str) -> dict[str, list[str]]:
        return {"question": [f"{words[i % len(words)]} and then some more words {i}" for i in range(80)]}

    section = watch_of(
        rows="then.parquet", embedding_model=str(tiny_llama), columns={"question": "text"}, level=0.01
    )
    pq.write_table(pa.table(texts("sun", "moon", "stars")), "then.parquet")
    frozen = freeze(section, now=LATER)
    assert "question: embedding" in [one.name for one in frozen.reference.features]
    pq.write_table(pa.table(texts("0 1 2 3 4 5 6 7 8 9", "11 12 13 14 15")), "now.parquet")
    found = look(section.model_copy(update={"rows": "now.parquet"}), records, now=LATER)
    assert "question: embedding" in scores(found)[1]
