from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from raytrain.cli import ask
from raytrain.cli.ask import find_model
from raytrain.errors import ConfigError
from raytrain.runs.records import open_records


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr(ask, "artifact_of_run", lambda run_id: None)
    app = typer.Typer()
    app.command("ask")(ask.ask)
    return app


def run(app: typer.Typer, *arguments: str) -> None:
    app(list(arguments), standalone_mode=False)


@pytest.mark.slow
def test_json_prints_one_object_on_stdout(
    app: typer.Typer, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(app, str(tiny_llama), "What is the sum?", "--max-new-tokens", "4", "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["prompt"] == "What is the sum?"
    assert result["adapter_used"] is False
    assert result["num_new_tokens"] <= 4
    assert result["base_digest"].startswith("sha256:")


def test_a_run_id_leads_to_the_artifact_that_the_run_wrote(
    app: typer.Typer, tiny_llama: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "artifact_of_run", {"run-7": f"file://{tiny_llama}"}.get)
    run(app, "run-7", "two", "--max-new-tokens", "2", "--json")
    assert json.loads(capsys.readouterr().out)["base_model"] == str(tiny_llama)


def test_an_unknown_model_is_a_config_error(app: typer.Typer) -> None:
    with pytest.raises(ConfigError, match="no base model `owner/none`"):
        run(app, "owner/none", "two")


def test_an_empty_model_is_a_config_error(app: typer.Typer) -> None:
    with pytest.raises(ConfigError, match="no model is named"):
        run(app, "", "hi")


def test_the_prompt_may_come_on_standard_input(
    app: typer.Typer, tiny_llama: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("two and three\n"))
    run(app, str(tiny_llama), "--max-new-tokens", "2", "--json", "--system", "Be short.")
    assert json.loads(capsys.readouterr().out)["prompt"] == "two and three"
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(ConfigError, match="nothing to ask"):
        run(app, str(tiny_llama))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_prompt_it_talks_until_an_empty_line(
    app: typer.Typer, tiny_llama: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("two\nthree\n\nnever read\n"))
    run(app, str(tiny_llama), "--max-new-tokens", "2")
    assert capsys.readouterr().out.count("> ") == 3
    monkeypatch.setattr(sys, "stdin", Terminal("two\n"))
    with pytest.raises(ConfigError, match="needs a PROMPT"):
        run(app, str(tiny_llama), "--json")


def test_the_module_costs_no_torch() -> None:
    heavy = "('torch', 'transformers', 'ray')"
    code = f"import sys, raytrain.cli.ask; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_model_named_like_the_beginning_of_a_run_is_the_model(home: Path) -> None:
    records = open_records()
    for run_id, kind, name in (
        ("distil-sft-1a2b", "train", "distil-sft"),
        ("gpt2-eval-77", "evaluate", "gpt2"),
    ):
        records.create_run(run_id, kind=kind, name=name, config={})
    records.add_artifact(
        "distil-sft-1a2b", "model", "written", "adapter", "sha256:aa", "/models/x", parents={}
    )
    assert [find_model(one) for one in ("distil", "gpt2", "distil-sft")] == ["distil", "gpt2", "distil-sft"]
    assert find_model("distil-sft-1a") == find_model("distil-sft-1a2b") == "/models/x"
    with pytest.raises(ConfigError, match="has no model"):
        find_model("gpt2-eval-77")
