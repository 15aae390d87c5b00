"""`raytrain compare`: exit codes, references, one object under --json, and a page whose place is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluations import evaluation_of, pairs_with, records_with, timed, two_models
from suites import write_rows, write_suite

from raytrain.cli.main import run
from raytrain.evaluation.baseline import baseline_names, baseline_place, find_baseline, freeze
from raytrain.evaluation.results import Evaluation
from raytrain.evaluation.statistics.power import about
from raytrain.runs.records import open_records
from raytrain.storage.section import StorageSection

pytestmark = pytest.mark.whole

BEFORE, AFTER = two_models(600, 0.5, 0.62)


@pytest.fixture
def baseline(tmp_path: Path) -> Evaluation:
    return evaluation_of(tmp_path / "base", {"sums": records_with(BEFORE)})


@pytest.fixture
def candidate(tmp_path: Path) -> Evaluation:
    return evaluation_of(tmp_path / "candidate", {"sums": records_with(AFTER)})


def compared(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code = run(["compare", *map(str, arguments), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


def test_a_better_candidate_is_promoted(
    baseline: Evaluation, candidate: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = compared(capsys, baseline.artifact.path, candidate.artifact.path)
    assert code == 0
    assert found["promoted"] is True
    assert found["chosen"] == "candidate"
    assert "error" not in found
    assert (Path(found["decision"]["place"]) / "decision.html").is_file()


def test_one_that_is_not_is_exit_5_with_the_record_and_why(
    baseline: Evaluation, candidate: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = compared(capsys, candidate.artifact.path, baseline.artifact.path)
    assert code == 5
    assert found["promoted"] is False
    assert found["decisions"][0]["verdict"]["word"] == "worse"
    assert found["error"]["kind"] == "refused"
    assert found["error"]["what"].startswith("base is not promoted")


def test_what_is_to_do_asks_for_more_items_than_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2,000 items see the 2 points that anybody cares for, and not whether 1 point is one."""
    pairs = pairs_with(115, 96, 2000)
    places = [
        evaluation_of(tmp_path / name, {"sums": records_with(scores.tolist())}).artifact.path
        for name, scores in (("base", pairs.baseline), ("candidate", pairs.candidate))
    ]
    asked = "contract: c\nsuites: [{suite: sums}]\noverall: {min_gain: 0, margin: 0.02}\n"
    (tmp_path / "c.yaml").write_text(asked)
    code, found = compared(capsys, *places, "--contract", tmp_path / "c.yaml")
    assert code == 5
    number = found["error"]["fix"].removeprefix("about ").removesuffix(" items would tell")
    assert int(number.replace(",", "")) > 2000
    assert found["decisions"][0]["headline"] == f"Cannot tell: needs about {number} items"


def test_the_headline_and_what_to_do_tell_the_largest_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six items are too few for the gain, and by far too few to rule out a loss."""
    before, after = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    places = [
        evaluation_of(tmp_path / name, {"sums": records_with(scores)}).artifact.path
        for name, scores in (("base", before), ("candidate", after))
    ]
    code, found = compared(capsys, *places)
    (decided,) = found["decisions"]
    numbers = {one["name"]: one["needs_items"] for one in decided["gates"] if one["needs_items"]}
    assert numbers["sums: no loss"] == max(numbers.values()) > decided["verdict"]["needs_items"]
    assert code == 5
    told = f"about {about(numbers['sums: no loss']):,} items"
    assert decided["headline"] == f"Cannot tell: needs {told}"
    assert found["error"]["fix"] == f"{told} would tell"
    assert found["error"]["why"].startswith("sums: no loss: ")


def test_of_several_suites_the_headline_names_the_one_that_needs_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0] * 4, [1.0, 0.0, 1.0, 0.0, 0.0, 0.0] * 4
    places = [
        evaluation_of(
            tmp_path / name, {"sums": records_with(scores * 3), "words": records_with(scores)}
        ).artifact.path
        for name, scores in (("base", first), ("candidate", second))
    ]
    _, found = compared(capsys, *places)
    assert found["decisions"][0]["headline"].endswith(" items of words")


def test_of_one_evaluation_no_number_of_items_is_told(
    baseline: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor of a baseline that was frozen of it."""
    frozen = freeze(baseline, baseline_place(StorageSection().location, "small"))
    code, found = compared(capsys, frozen.path, baseline.artifact.path)
    (decided,) = found["decisions"]
    assert code == 5
    assert decided["headline"] == "Nothing can differ: both are the same evaluation"
    assert "needs about" not in json.dumps(found)
    assert "items would tell" not in found["error"]["fix"]


def test_a_person_sees_gates_the_verdict_and_where_the_page_lies(
    baseline: Evaluation, candidate: Evaluation, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = [str(baseline.artifact.path), str(candidate.artifact.path), "--output", str(tmp_path / "out")]
    assert run(["compare", *arguments]) == 0
    told = capsys.readouterr().out
    for part in ("candidate against base", "sums: no loss", "Better by 12.0 points", "Promote."):
        assert part in told
    assert str(tmp_path / "out" / "decisions") in told
    assert told.strip().endswith("decision.html")


def test_unlike_conditions_are_exit_5_and_named(
    baseline: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = evaluation_of(tmp_path / "other", {"sums": records_with(AFTER)}, template=None)
    code, found = compared(capsys, baseline.artifact.path, other.artifact.path)
    assert code == 5
    assert found["error"]["kind"] == "refused"
    assert "template" in found["error"]["why"]


def test_a_subset_needs_a_word(
    baseline: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = evaluation_of(tmp_path / "part", {"sums": records_with(AFTER[:500])})
    assert compared(capsys, baseline.artifact.path, part.artifact.path)[0] == 5
    code, found = compared(capsys, baseline.artifact.path, part.artifact.path, "--common-items")
    assert code == 0
    assert "only 500 common items" in " ".join(found["decisions"][0]["notes"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("contract: c\nsuites: []\n", "is empty"),
        ("contract: c\nsuites: [{suite: sum}]\n", "nobody was evaluated on a suite `sum`"),
        ("contract: c\nsuites: [{suite: sums, metric: acc}]\n", "no metric `acc`"),
        ("contract: c\nsuites: [{suite: sums}]\nlimit: {}\n", "unknown key"),
    ],
)
def test_a_faulty_contract_is_exit_2(
    baseline: Evaluation,
    candidate: Evaluation,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    told: str,
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    code, found = compared(
        capsys, baseline.artifact.path, candidate.artifact.path, "--contract", tmp_path / "c.yaml"
    )
    assert code == 2
    assert told in found["error"]["what"]


def test_a_run_stands_for_the_evaluation_that_it_wrote(
    baseline: Evaluation, candidate: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    records = open_records()
    for name, one in (("base-eval-1", baseline), ("lora-eval-2", candidate)):
        records.create_run(name, kind="evaluate", name=name, config={})
        records.add_artifact(
            name, "evaluation", "written", one.artifact.kind, one.artifact.digest, str(one.artifact.location)
        )
    records.create_run("empty-run", kind="train", name="empty", config={})
    assert compared(capsys, "base-eval-1", "lora-eval-2")[0] == 0
    code, found = compared(capsys, "base-eval-1", "empty-run")
    assert (code, found["error"]["what"]) == (2, "run empty-run has no evaluation")
    code, found = compared(capsys, "base-eval-1", "no-such-thing")
    assert (code, found["error"]["what"]) == (2, "`no-such-thing` is no evaluation")


def test_from_outputs_to_a_decision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two files of outputs, evaluated and frozen by the commands that do so, compared by run and by place."""
    rows = [{"question": f"{i} + 3?", "answer": str(i + 3)} for i in range(400)]
    suite = str(write_suite(tmp_path, "sums", rows))
    outputs = {"base": range(0, 400, 2), "better": range(400)}
    for name, right in outputs.items():
        answers = [
            {"item_id": str(i + 1), "output": str(i + 3) if i in right else "no idea"} for i in range(400)
        ]
        write_rows(tmp_path / f"{name}.jsonl", answers)
    frozen = [
        "baseline",
        "freeze",
        str(tmp_path / "base.jsonl"),
        "--suite",
        suite,
        "--name",
        "first",
        "--json",
    ]
    assert run(frozen) == 0
    place = json.loads(capsys.readouterr().out)["baseline"]
    assert run(["evaluate", str(tmp_path / "better.jsonl"), "--suite", suite, "--json"]) == 0
    run_id = json.loads(capsys.readouterr().out)["run_id"]
    code, found = compared(capsys, place, run_id)
    assert code == 0
    assert found["decisions"][0]["headline"] == "Better by 50.0 points"
    assert (found["baseline"]["name"], found["chosen"]) == ("base.jsonl", "better.jsonl")
    other = str(write_suite(tmp_path, "sums", rows, generation={"max_new_tokens": 9}))
    assert run(["evaluate", str(tmp_path / "better.jsonl"), "--suite", other, "--json"]) == 0
    code, found = compared(capsys, place, json.loads(capsys.readouterr().out)["run_id"])
    assert code == 5
    assert "suite sums, generation.max_new_tokens: 5 against 9" in found["error"]["why"]


def test_a_baseline_goes_by_its_name(
    baseline: Evaluation, candidate: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = StorageSection().location
    for name in ("small", "small-b"):
        freeze(baseline, baseline_place(storage, name))
    code, found = compared(capsys, "small", candidate.artifact.path)
    assert (code, found["promoted"]) == (0, True)
    for words in (["compare", "smal", str(candidate.artifact.path)], ["baseline", "verify", "smal"]):
        code = run([*words, "--json"])
        found = json.loads(capsys.readouterr().out)
        assert (code, found["error"]["kind"]) == (2, "config")
        assert "there are small, small-b in" in found["error"]["why"]
    run(["baseline", "verify", "small", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["baseline"] == str(storage / "baselines" / "small")
    assert found["findings"][0]["thing"] == "files"


def test_a_timed_baseline_is_listed_once(tmp_path: Path) -> None:
    suites = {"sums": records_with(BEFORE)}
    timed_one = evaluation_of(tmp_path / "timed", suites, timings=timed(suites, 0.1))
    storage = StorageSection().location
    freeze(timed_one, baseline_place(storage, "timed"))
    assert (storage / "baselines" / "timed.timings").exists()
    assert baseline_names(storage) == ["timed"]
    assert find_baseline(storage, "../baselines/timed") is None


def test_what_is_no_evaluation_is_exit_5(
    baseline: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    code, found = compared(capsys, baseline.artifact.path, tmp_path / "folder")
    assert (code, found["error"]["kind"]) == (5, "integrity")


def test_the_same_candidate_twice_is_a_slip(
    baseline: Evaluation, candidate: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    place = candidate.artifact.path
    code, found = compared(capsys, baseline.artifact.path, place, place)
    assert code == 2
    assert "stands twice" in found["error"]["what"]
