"""Exit codes and the form of errors, of the command line as a whole."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raytrain.cli import config, main, train
from raytrain.cli.main import run
from raytrain.cli.written_files import write_files
from raytrain.errors import StorageError

pytestmark = pytest.mark.whole

RECIPE: dict[str, Any] = {"model": {"base_model": "some/model"}, "data": {"sources": ["rows.jsonl"]}}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    place = tmp_path / "mine.yaml"
    place.write_text(yaml.safe_dump(RECIPE))
    return place


def one_object(text: str) -> dict[str, Any]:
    """Stdout under --json: one object and nothing else."""
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("override", "what", "fix"),
    [
        ("train.learning_rat=1e-4", "train.learning_rat: unknown key", "did you mean `learning_rate`?"),
        ("train.learning_rate=abc", "train.learning_rate: ", "train.learning_rate"),
        ("adapter.lora_rank=0", "adapter.lora_rank: must be 1 or more", "adapter.lora_rank"),
        ("scaling.num_workers=0", "scaling.num_workers: ", "scaling.num_workers"),
        ("nonsense", "`nonsense` is not an override", "train.learning_rate=1e-4"),
    ],
)
@pytest.mark.parametrize("command", [["train"], ["config", "check"]])
def test_a_faulty_recipe_is_exit_2_with_place_and_remedy(
    recipe: Path, capsys: pytest.CaptureFixture[str], command: list[str], override: str, what: str, fix: str
) -> None:
    assert run([*command, str(recipe), override, "--json"]) == 2
    captured = capsys.readouterr()
    error = one_object(captured.out)["error"]
    assert error.keys() == {"kind", "what", "why", "fix"}
    assert error["kind"] == "config"
    assert what in error["what"]
    assert fix in error["fix"]
    assert captured.err == ""
    assert run([*command, str(recipe), override]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert [line.split(":")[0].strip() for line in told.err.splitlines()] == ["error", "why", "fix"]


def test_file_and_line_of_a_fault_in_the_file(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text("model:\n  base_model: m\ndata:\n  sources: [r.jsonl]\ntrain:\n  learning_rat: 1\n")
    assert run(["config", "check", str(recipe), "--json"]) == 2
    assert one_object(capsys.readouterr().out)["error"]["what"].startswith(f"{recipe}:6: train.learning_rat")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["train", "no-such.yaml"], "there is no such recipe file"),
        (["train"], "Missing argument 'recipe'"),
        (["train", "a.yaml", "--no-such-option"], "No such option: --no-such-option"),
        (["no-such-command"], "No such command 'no-such-command'"),
        (["runs", "show", "no-such-run"], "no-such-run"),
        (["config", "chekc", "a.yaml"], "No such command 'chekc'"),
    ],
)
def test_usage_errors_are_exit_2(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    what: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*arguments, "--json"]) == 2
    error = one_object(capsys.readouterr().out)["error"]
    assert what in error["what"]
    assert error["fix"]


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(command in told for command in ("train", "ask", "runs", "data", "config", "doctor"))


def test_our_own_faults_are_exit_1_and_ask_for_a_report(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("1/0")

    monkeypatch.setattr("raytrain.training.spec.load_spec", broken)
    assert run(["config", "check", str(recipe), "--json"]) == 1
    error = one_object(capsys.readouterr().out)["error"]
    assert error["kind"] == "unexpected"
    assert error["what"] == "ZeroDivisionError: 1/0"
    monkeypatch.setenv("RAYTRAIN_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run(["train", str(recipe), "-v"])


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EROFS, "storage"), (errno.EACCES, "storage"), (errno.ENOSPC, "storage"),
        (errno.ENOTDIR, "storage"), (errno.ENOENT, "unexpected"), (errno.EBADF, "unexpected"),
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_used_is_no_fault_of_ours(
    recipe: Path, number: int, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(number, os.strerror(number), "/there/x")

    monkeypatch.setattr("raytrain.training.spec.load_spec", broken)
    code = run(["config", "check", str(recipe), "--json"])
    error = one_object(capsys.readouterr().out)["error"]
    assert (code, error["kind"]) == (4 if kind == "storage" else 1, kind) and "/there/x" in error["what"]
    if kind == "storage":
        assert error["why"] == os.strerror(number) and "RAYTRAIN_TRACEBACK" not in error["fix"]


@pytest.mark.parametrize("below", ["x", "folder/x"])
@pytest.mark.parametrize(
    "command",
    [
        ["variants", "fresh", "--date", "2026-03-01", "--count", "1", "--output"],
        ["safety", "plant", "rows.jsonl", "--canaries", "canaries.json"],
        ["code", "example"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_an_output_below_a_file_is_exit_4(
    tmp_path: Path,
    command: list[str],
    below: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"text": "a"}\n')
    Path("file").write_text("not a folder")
    assert run([*command, f"file/{below}", "--json"]) == 4
    error = one_object(capsys.readouterr().out)["error"]
    assert not Path("canaries.json").exists()
    assert error["kind"] == "storage" and "a file stands where a folder is needed" in error["fix"]


def test_a_disk_that_gets_full_names_the_output(tmp_path: Path) -> None:
    def texts() -> Iterator[str]:
        yield "a"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match=r"cannot write .*rows\.jsonl") as found:
        write_files({tmp_path / "first.jsonl": ["b"], tmp_path / "rows.jsonl": texts()})
    assert "free space there" in found.value.fix and list(tmp_path.iterdir()) == []


def test_ctrl_c_is_130(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("raytrain.training.spec.load_spec", interrupted)
    assert run(["config", "check", str(recipe)]) == 130


@pytest.mark.slow
def test_help_and_config_errors_need_neither_torch_nor_ray(recipe: Path) -> None:
    """What keeps them under 0.4 s; the time itself is a benchmark's business."""
    code = (
        "import sys; from raytrain.cli.main import run; code = run(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'ray', 'peft', 'pyarrow', 'sqlalchemy'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else code)"
    )
    for arguments, expected in (
        (["--help"], 0),
        (["train", str(recipe), "train.learning_rat=1"], 2),
        (["config", "show", str(recipe)], 0),
    ):
        ended = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
        )
        assert ended.returncode == expected, ended.stderr


def test_every_command_with_a_result_takes_json() -> None:
    def leaves(command: Any, path: str = "raytrain") -> list[tuple[str, Any]]:
        inside = getattr(command, "commands", None)
        if inside is None:
            return [(path, command)]
        return [leaf for name, one in inside.items() for leaf in leaves(one, f"{path} {name}")]

    found = leaves(main.command_line())
    assert len(found) > 10
    lacking = [path for path, one in found if not any("--json" in p.opts for p in one.params)]
    assert lacking == []
    assert config.app
    assert train.train


@pytest.mark.parametrize("words", [[], ["queue"]], ids=["raytrain", "a group"])
def test_what_is_no_command_yet_tells_its_commands(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(words) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith(f"Usage: {' '.join(['raytrain', *words])} ")
    assert "Commands:" in told.err


def test_a_command_s_own_parser_is_that_of_the_whole() -> None:
    whole = main.command_line()
    for name, command in whole.commands.items():
        (alone,) = main.command_line(name).commands.items()
        assert alone[0] == name and [one.opts for one in alone[1].params] == [
            one.opts for one in command.params
        ]
