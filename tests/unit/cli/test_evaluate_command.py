"""`raytrain evaluate` and `raytrain baseline` as they are typed: what is printed, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from endpoint_server import serve
from suites import SUMS, write_rows, write_suite

from raytrain.cli.main import run

pytestmark = pytest.mark.whole


class Shell:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> tuple[int, str, str]:
        code = run([str(word) for word in words])
        told = self._capsys.readouterr()
        return code, told.out, told.err

    def json(self, *words: object) -> tuple[int, dict[str, Any]]:
        code, out, _ = self(*words, "--json")
        found: dict[str, Any] = json.loads(out)
        return code, found


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_a_table_for_people_and_an_object_for_machines(
    shell: Shell, tiny_llama: Path, tmp_path: Path
) -> None:
    sums, choices = (write_suite(tmp_path, name) for name in ("sums", "choices"))
    code, out, err = shell("evaluate", tiny_llama, "--suite", sums, "--suite", choices)
    assert code == 0
    for word in (
        "sums",
        "acc_norm",
        "95 % interval",
        "answers end at generation.max_new_tokens",
        "evaluation ",
    ):
        assert word in out
    assert "12 of 12 items" in err
    code, found = shell.json("evaluate", tiny_llama, "--suite", sums, "--suite", choices)
    assert code == 0 and found["state"] == "succeeded"
    assert found["report"]["suites"]["choices"]["num_items"] == 9 and Path(found["artifact"]).is_dir()
    code, out, _ = shell("runs", "list", "--kind", "evaluate")
    assert found["run_id"] in out and "21/21" in out
    code, out, _ = shell("runs", "show", found["run_id"])
    assert code == 0 and "score/sums/score" in out
    code, again = shell.json("evaluate", found["run_id"], "--suite", sums)
    assert code == 2 and "has no model" in again["error"]["what"]


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_damaged_is_said_beside_the_result(
    shell: Shell, tiny_llama: Path, tmp_path: Path, as_json: bool
) -> None:
    words = ["evaluate", tiny_llama, "--suite", write_suite(tmp_path, "sums")]
    _, first = shell.json(*words)
    (Path(first["artifact"]) / "suites" / "sums.parquet").write_bytes(b"")
    code, out, err = shell(*words, *(["--json"] if as_json else []))
    (said,) = [line for line in err.splitlines() if "made again" in line]
    assert code == 0 and "suites/sums.parquet" in said and "made again" not in out
    assert not as_json or json.loads(out)["digest"] == first["digest"]


def test_freeze_and_verify(shell: Shell, tiny_llama: Path, tmp_path: Path) -> None:
    sums = write_suite(tmp_path, "sums")
    code, frozen = shell.json("baseline", "freeze", tiny_llama, "--suite", sums, "--name", "first")
    assert code == 0 and Path(frozen["baseline"]).name == "first"
    assert shell.json("baseline", "freeze", tiny_llama, "--suite", sums, "--name", "first")[1] == frozen
    code, out, _ = shell("baseline", "verify", frozen["baseline"])
    assert code == 0 and "changed" not in out and out.count("same") == 5
    assert out.startswith("same"), "no line of empty headings"
    write_rows(tmp_path / "sums.jsonl", [{**SUMS[0], "answer": "4"}, *SUMS[1:]])
    code, found = shell.json("baseline", "verify", frozen["baseline"])
    assert code == 5 and not found["whole"]
    (changed,) = [one for one in found["findings"] if one["standing"] == "changed"]
    assert changed == {"thing": "suite sums, items", "standing": "changed", "detail": "1 changed: 1"}
    code, refused = shell.json("baseline", "freeze", tiny_llama, "--suite", sums, "--name", "first")
    assert code == 5 and "already holds another" in refused["error"]["what"]


def test_a_baseline_knows_its_suites_where_they_lay_when_it_was_frozen(
    shell: Shell, tiny_llama: Path, tmp_path: Path
) -> None:
    """The evaluation was made before, and its suite has been moved since."""
    sums = write_suite(tmp_path / "before", "sums")
    assert shell("evaluate", tiny_llama, "--suite", sums)[0] == 0
    sums.parent.rename(tmp_path / "after")
    _, frozen = shell.json("baseline", "freeze", tiny_llama, "--suite", tmp_path / "after" / "sums.yaml")
    assert frozen["digest"]
    code, found = shell.json("baseline", "verify", frozen["baseline"])
    assert (code, found["whole"]) == (0, True)


def test_what_cannot_be_verified_is_exit_5_and_what_has_no_digest_is_not(
    shell: Shell, tiny_llama: Path, tmp_path: Path
) -> None:
    sums = write_suite(tmp_path, "sums")
    _, frozen = shell.json("baseline", "freeze", tiny_llama, "--suite", sums, "--name", "first")
    (tmp_path / "sums.jsonl").rename(tmp_path / "moved.jsonl")
    code, found = shell.json("baseline", "verify", frozen["baseline"])
    assert (code, found["whole"], found["error"]["kind"]) == (5, None, "integrity")
    assert found["error"]["why"] == "not reached: suite sums"
    code, out, _ = shell("baseline", "verify", frozen["baseline"])
    assert code == 5
    assert "the baseline could not be verified" in out
    (tmp_path / "moved.jsonl").rename(tmp_path / "sums.jsonl")
    with serve(lambda prompt: "3") as served:
        words = ["baseline", "freeze", served.url, "--suite", sums, "--name", "asked"]
        _, frozen = shell.json(*words)
    code, found = shell.json("baseline", "verify", frozen["baseline"])
    assert (code, found["whole"]) == (0, None)
    assert {one["standing"] for one in found["findings"]} == {"same", "no digest"}


def test_findings_are_not_broken_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from raytrain.cli.baseline import _show_findings
    from raytrain.evaluation.baseline import Finding

    detail = f"was {'a' * 71}, is {'b' * 71}"
    _show_findings(Console(width=80), [Finding("base model", "changed", detail)], None)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split(maxsplit=3)[3].rstrip() == detail


def test_the_origin_of_given_outputs_is_no_contradiction(shell: Shell, tmp_path: Path) -> None:
    sums = write_suite(tmp_path, "sums")
    given = [{"item_id": str(number), "output": "4"} for number in range(1, 13)]
    place = write_rows(tmp_path / "outputs.jsonl", given)
    code, found = shell.json("evaluate", place, "--suite", sums)
    assert code == 0
    code, out, _ = shell("runs", "show", found["run_id"])
    (line,) = [line for line in out.splitlines() if "outputs " in line and "(no run here wrote it)" in line]
    assert code == 0 and "not recorded" not in line


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "no suite is named"),
        (["--suite", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["--suite", "sums.yaml", "answering.batchsize=3"], 2, "batchsize"),
        (["--suite", "empty.yaml"], 3, "has no items"),
        (["--suite", "twice.yaml"], 3, "stands twice"),
        (["--suite", "field.yaml"], 2, "did you mean `question`"),
        (["--suite", "scorer.yaml"], 2, "did you mean `number`"),
        (["--suite", "chat.yaml", "answering.chat_template='{% if'"], 2, "is not a Jinja template"),
        (["--suite", "sums.yaml", "--suite", "sums.yaml"], 2, "is named twice"),
    ],
)
def test_bad_input_is_refused_in_three_lines(
    shell: Shell,
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_suite(tmp_path, "sums")
    completion = {"mode": "completion", "template": "{question}"}
    changes: dict[str, tuple[list[dict[str, Any]] | None, dict[str, Any]]] = {
        "empty": ([], {}),
        "twice": (SUMS, {"items": {"source": {"path": "sums.jsonl"}, "id": "topic"}}),
        "field": (SUMS, {"prompt": {**completion, "template": "{qestion}"}}),
        "scorer": (SUMS, {"scorer": {"name": "numbr"}}),
        "chat": (SUMS, {"prompt": {"mode": "chat", "template": "{question}"}}),
    }
    for name, (rows, changed) in changes.items():
        folder = tmp_path / "of" / name
        folder.mkdir(parents=True)
        write_suite(folder, "sums", rows, **changed)
        if (tmp_path / words[1] if words else tmp_path).stem == name:
            words = [words[0], str(folder / "sums.yaml"), *words[2:]]
    found, out, err = shell("evaluate", tiny_llama, *words)
    assert (found, out) == (code, "") and told in err and err.count("\n") >= 3, err
    assert err.startswith("error:") and "  why: " in err and "  fix: " in err


def test_an_endpoint_that_is_gone(shell: Shell, tmp_path: Path) -> None:
    with serve(str) as served:
        url = served.url
    words = ["evaluate", url, "--suite", write_suite(tmp_path, "sums"), "endpoint.max_retries=0"]
    code, found = shell.json(*words)
    assert code == 4 and found["error"]["kind"] == "endpoint" and "goes on" in found["error"]["fix"]


def test_a_suite_is_shown_before_it_is_put_to_anybody(shell: Shell, tmp_path: Path) -> None:
    choices = write_suite(tmp_path, "choices")
    code, out, _ = shell("suite", "show", choices, "--item", "2")
    assert (
        code == 0 and "1 and two is" in out and "choice 2: a cat" in out and "too few to see any gain" in out
    )
    chat = {"mode": "chat", "template": "{question}", "system": "Add."}
    many = [{"question": f"{i}?", "answer": str(i)} for i in range(200)]
    code, found = shell.json("suite", "show", write_suite(tmp_path, "sums", many, prompt=chat))
    assert (found["num_items"], found["item"]["references"]) == (200, ["0"])
    assert [turn["role"] for turn in found["item"]["prompt"]] == ["system", "user"]
    assert found["smallest_gain"] == pytest.approx(0.089, abs=0.003), "2.80 sqrt(0.2 / 200)"
    code, error = shell.json("suite", "show", choices, "--item", "99")
    assert code == 2 and "has no item" in error["error"]["what"]


def test_a_scorer_that_does_not_exist_is_told_when_a_suite_is_shown(shell: Shell, tmp_path: Path) -> None:
    for scorer, what, fix in (
        ({"name": "normalized_match"}, "there is no scorer", "did you mean `normalised_match`?"),
        ({"name": "number", "options": {"tolerence": 1}}, "knows no `tolerence`", "did you mean"),
    ):
        suite = write_suite(tmp_path, "sums", scorer=scorer)
        code, told = shell.json("suite", "show", suite)
        assert code == 2 and what in told["error"]["what"] and fix in told["error"]["fix"]
