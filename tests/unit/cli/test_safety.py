from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from raytrain.cli.main import run
from raytrain.evaluation.safety.labelled.personal_values import PERSONAL_VALUES
from raytrain.evaluation.safety.labelled.secret_values import SECRET_VALUES

pytestmark = pytest.mark.whole

SECRET = SECRET_VALUES["github_token"](random.Random(1))
EMAIL = PERSONAL_VALUES["email"](random.Random(1))
TWO_PACKS = ("--pack", "over_refusal", "--pack", "prompt_injection", "--max-new-tokens", "4")


def asked(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    found = run(["safety", *arguments, "--json"])
    told = capsys.readouterr()
    assert found == code, told.out + told.err
    result: dict[str, Any] = json.loads(told.out)
    return result


def test_a_secret_in_a_file_ends_with_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "notes.txt"
    file.write_text(f"nothing\n\nit is {SECRET}\n{EMAIL}\n")
    result = asked(capsys, "scan", str(file), code=5)
    assert [(one["line"], one["kind"]) for one in result["findings"]] == [(3, "github_token"), (4, "email")]
    assert (result["num_secrets"], result["num_personal"]) == (1, 1)
    assert run(["safety", "scan", str(file)]) == 5
    told = capsys.readouterr().out
    assert "1 secret, 1 personal value in" in told and SECRET not in told


def test_rows_are_scanned_with_their_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    messages = [{"role": "user", "content": f"mail {EMAIL}"}]
    password = SECRET_VALUES["assigned_password"](random.Random(1))
    rows = [{"messages": messages}, {"db_password": password}, {"text": "half \ud800"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + f"not json {SECRET}\n")
    result = asked(capsys, "scan", str(file), code=5)
    assert [(one["line"], one["key"], one["kind"]) for one in result["findings"]] == [
        (1, "messages[0].content", "email"),
        (2, "db_password", "assigned_password"),
        (4, "", "github_token"),
    ]


def test_no_part_of_a_row_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    password = SECRET_VALUES["assigned_password"](random.Random(1))
    rows: list[Any] = [
        {SECRET: 1},
        {"count": 123, "token": 0.1234567890123456},
        {"password": [[password]]},
        {"password": {"value": password}},
        {"env": [{"name": "DB_PASSWORD", "value": password}]},
        {"half \ud800\x1b": {"db_password": password}},
        {SECRET: {"db_password": password}},
    ]
    deep = '{"a":' * 600 + json.dumps({"password": password}) + "}" * 600
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + deep)
    result = asked(capsys, "scan", str(file), code=5)
    by_line = {one["line"]: one for one in result["findings"]}
    assert by_line.keys() == {1, 3, 4, 5, 6, 7, 8}, result["findings"]
    assert by_line[6]["key"] == "half \\ud800\\x1b.db_password"
    assert SECRET not in json.dumps(result) and password not in json.dumps(result)
    assert run(["safety", "scan", str(file)]) == 5
    assert SECRET not in capsys.readouterr().out
    card = PERSONAL_VALUES["credit_card"](random.Random(1))
    file.write_text(json.dumps({"card": int("".join(filter(str.isdigit, card)))}))
    assert asked(capsys, "scan", str(file))["findings"][0]["kind"] == "credit_card"


def test_a_key_over_many_lines_is_found_once_wherever_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "long.txt"
    key = SECRET_VALUES["private_key"](random.Random(1))
    file.write_text("line\n" * 995 + key + "\n" + "line\n" * 2_000)
    result = asked(capsys, "scan", str(file), code=5)
    assert [(one["line"], one["kind"]) for one in result["findings"]] == [(996, "private_key")]


def test_a_clean_file_and_one_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(b"\xff\xfe nothing \x00 here")
    assert asked(capsys, "scan", str(file))["findings"] == []
    file.write_text(EMAIL)
    assert asked(capsys, "scan", str(file))["num_personal"] == 1, (
        "personal data is told, and no fault by itself"
    )
    assert "cannot be read" in asked(capsys, "scan", str(tmp_path / "no"), code=2)["error"]["what"]


def test_a_detector_that_fails_is_no_clean_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_detector.py").write_text("def build():\n    return lambda text: 1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "notes.txt"
    file.write_text("nothing")
    result = asked(capsys, "scan", str(file), "--detector", "own_detector:build", code=5)
    assert "ZeroDivisionError" in result["detector_failures"][0]


def test_probe_writes_a_report_and_compares_with_it(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "report")
    result = asked(capsys, "probe", str(tiny_llama), *TWO_PACKS, "--output", place)
    counts = {one["name"]: (one["num_probes"], one["num_unknown"]) for one in result["categories"]}
    assert counts == {"benign": (30, 0), "prompt_injection": (12, 12)}, (
        "half are too long for so small a model"
    )
    assert "leave no room" in result["notes"][0] and "could not be asked" in result["errors"][0]
    assert result["model_digest"].startswith("sha256:") and result["artifact"] == place
    injected = next(one for one in result["categories"] if one["name"] == "prompt_injection")
    assert injected["sentence"].startswith("0 of 12, at most 22.1 %; 12 unknown")
    again = asked(capsys, "probe", str(tiny_llama), *TWO_PACKS, "--against", place)
    assert again["comparison"]["worse"] == []
    assert [one["num_probes"] for one in again["comparison"]["changes"]] == [30, 12]
    longer = (*TWO_PACKS[:-1], "5", "--against", place)
    assert "4 tokens" in asked(capsys, "probe", str(tiny_llama), *longer, code=3)["error"]["why"]
    assert run(["safety", "probe", str(tiny_llama), *TWO_PACKS, "--against", str(tiny_llama)]) == 0
    told = capsys.readouterr()
    assert "at most 22.1 %" in told.out
    assert "obeys no injected instruction: 0 failures before and 0 after, of 12 probes" in told.out
    assert "54 of 54 probes" in told.err


def test_a_failure_as_grave_as_fail_on_ends_with_5(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A random model writes no word in four tokens, where an answer is due: failures of low severity."""
    options = ("--pack", "over_refusal", "--max-new-tokens", "4")
    result = asked(capsys, "probe", str(tiny_llama), *options, "--fail-on", "medium")
    assert result["categories"][0]["num_failed"] > 0
    asked(capsys, "probe", str(tiny_llama), *options, "--fail-on", "low", code=5)
    assert "no severity" in asked(capsys, "probe", "x", "--fail-on", "awful", code=2)["error"]["what"]


def test_a_model_without_an_adapter_is_not_compared_with_itself(
    tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["safety", "probe", str(tiny_llama), *TWO_PACKS, "--against", "base", "--json"]) == 2
    told = capsys.readouterr()
    error = json.loads(told.out)["error"]
    assert (
        error["kind"] == "config" and "has no adapter" in error["what"] and "--against MODEL" in error["fix"]
    )
    assert "probes" not in told.err, "it is refused before anything is asked"


def test_an_adapter_against_its_own_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from conftest_tasks import task_spec, train_task, write_jsonl
    from tiny_models import save_tiny_llama

    model = save_tiny_llama(tmp_path / "model")
    rows = [{"question": f"Add {i} and 3.", "answer": f"It is {i + 3}."} for i in range(12)]
    sections = {
        "adapter": {"method": "lora"},
        "train": {"max_steps": 2, "global_batch_size": 4, "micro_batch_size": 4},
    }
    spec = task_spec("causal_lm", model, write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path, **sections)
    artifact = train_task(spec).result()
    options = ("--pack", "over_refusal", "--max-new-tokens", "2", "--output", str(tmp_path / "report"))
    result = asked(capsys, "probe", str(artifact.location), *options, "--against", "base")
    assert result["model_digest"] == artifact.digest
    assert result["comparison"]["before"].startswith("the base model of")
    manifest = json.loads((tmp_path / "report" / "manifest.json").read_text())
    assert manifest["parents"] == {"model": artifact.digest}


def test_another_packs_report_is_refused(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "report")
    asked(capsys, "probe", str(tiny_llama), *TWO_PACKS, "--output", place)
    error = asked(capsys, "probe", str(tiny_llama), *TWO_PACKS[2:], "--against", place, code=3)["error"]
    assert "over_refusal" in error["why"]


def test_canaries_are_planted_and_asked_for(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, planted, canaries = (
        str(tmp_path / name) for name in ("rows.jsonl", "planted.jsonl", "canaries.json")
    )
    Path(rows).write_text('{"text": "a"}\n{"text": "b"}\n')
    options = ("--canaries", canaries, "--number", "3", "--repeats", "2")
    assert asked(capsys, "plant", rows, planted, *options)["num_rows"] == 8
    result = asked(capsys, "extract", str(tiny_llama), canaries)
    assert result["extracted"] == [False] * 3 and "0 of 3, at most 63.2 %" in result["sentence"]
    run(["safety", "extract", str(tiny_llama), canaries, "--json"])
    assert "exposure" not in capsys.readouterr().err
    run(["safety", "extract", str(tiny_llama), canaries])
    told = capsys.readouterr()
    assert "extraction: 6 of 6 items" in told.err and "exposure: 1 of 3 items" in told.err
    assert "of 3 items" not in told.out
    assert "holds no canaries" in asked(capsys, "extract", str(tiny_llama), rows, code=2)["error"]["what"]
    Path(rows).write_text("[]\n")
    assert (
        "cannot be read as rows"
        in asked(capsys, "plant", rows, planted, *options, "--replace", code=2)["error"]["what"]
    )


def test_a_second_planting_does_not_lose_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, planted, canaries = (tmp_path / name for name in ("rows.jsonl", "planted.jsonl", "canaries.json"))
    rows.write_text('{"text": "a"}\n')
    places = (str(rows), str(planted), "--canaries")
    for output, secrets in ((rows, canaries), (planted, rows), (planted, planted)):
        arguments = ("plant", str(rows), str(output), "--canaries", str(secrets), "--replace")
        assert asked(capsys, *arguments, code=2)["error"]["kind"] == "config"
    assert rows.read_text() == '{"text": "a"}\n' and not planted.exists() and not canaries.exists()
    asked(capsys, "plant", *places, str(canaries))
    first = canaries.read_text()
    planted.unlink()
    again = asked(capsys, "plant", *places, str(canaries), "--seed", "1", code=2)["error"]
    assert "is there already" in again["what"] and canaries.read_text() == first and not planted.exists()
    asked(capsys, "plant", *places, str(canaries), "--seed", "1", "--replace")
    assert canaries.read_text() != first and planted.exists()
