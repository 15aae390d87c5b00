from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from raytrain.cli import doctor
from raytrain.cli import doctor_checks as checks
from raytrain.errors import StorageError

GIB, MIB = 2**30, 2**20


def cores(
    num_cores: int = 4, omp: str | None = None, workers: int = 2, cpus: float = 1, threads: int = 1
) -> checks.Check:
    return checks.check_cores(num_cores, omp, num_workers=workers, cpus_per_worker=cpus, threads=threads)


def disk(free: int | None, writable: bool = True) -> checks.Check:
    return checks.check_disk("x", "/x", free, writable=writable, least_bytes=2 * GIB)


def deepspeed(version: str | None, compiler: bool = True, ninja: bool = True) -> checks.Check:
    return checks.check_deepspeed(version, has_compiler=compiler, has_ninja=ninja)


REFUSED = StorageError("it cannot be opened", why="no disk", fix="set RAYTRAIN_HOME")


@pytest.mark.parametrize(
    ("check", "status", "said"),
    [
        (checks.check_python((3, 11, 7)), "ok", "3.11.7"),
        (checks.check_python((3, 10, 1)), "fail", "3.11 or newer"),
        (checks.check_package("ray", "2.60.0", (2, 60)), "ok", "2.60.0"),
        (checks.check_package("torch", "2.13.0+cpu", (2, 13)), "ok", "2.13.0+cpu"),
        (checks.check_package("ray", "2.9.1", (2, 60)), "fail", "2.60 is needed"),
        (checks.check_package("ray", None, (2, 60)), "fail", "not installed"),
        (checks.check_devices(None, [], False), "ok", "CPU"),
        (checks.check_devices("13.0", ["H200"], True), "ok", "H200"),
        (checks.check_devices("13.0", [], True), "warn", "sees no device"),
        (deepspeed(None), "ok", "optional"),
        (deepspeed("0.19"), "ok", "0.19"),
        (deepspeed("0.19", compiler=False, ninja=False), "warn", "install g++ and ninja"),
        (checks.check_extras({"hub": True, "wandb": False}), "ok", "installed: hub; not installed: wandb"),
        (cores(), "ok", "4 cores"),
        (cores(workers=8), "warn", "8 CPUs are more"),
        (cores(threads=4), "warn", "threads_per_worker=2"),
        (cores(omp="64"), "warn", "unset OMP_NUM_THREADS"),
        (checks.check_memory(4 * GIB, 8 * GIB, None, 2), "ok", "--model"),
        (checks.check_memory(4 * GIB, 8 * GIB, GIB, 2), "ok", "2.0 GiB for 2"),
        (checks.check_memory(4 * GIB, 8 * GIB, 3 * GIB, 2), "warn", "end other programs"),
        (checks.check_memory(4 * GIB, 8 * GIB, 5 * GIB, 2), "fail", "gradient_checkpointing"),
        (disk(5 * GIB), "ok", "5.0 GiB free"),
        (disk(GIB), "warn", "2.0 GiB are wise"),
        (disk(5 * GIB, writable=False), "fail", "cannot be written"),
        (disk(None), "warn", "not there"),
        (checks.check_working_dir(".", 5 * MIB, []), "ok", "5.0 MiB"),
        (checks.check_working_dir(".", 200 * MIB, [("data", 150 * MIB)]), "warn", "data (150 MiB)"),
        (checks.check_working_dir(".", 900 * MIB, [("data", 800 * MIB)]), "warn", "Ray refuses"),
        (checks.check_hub({}, "owner/model"), "ok", "downloads allowed"),
        (checks.check_hub({"HF_HUB_OFFLINE": "1"}, None), "ok", "offline"),
        (checks.check_hub({"HF_HUB_OFFLINE": "1"}, "owner/model"), "warn", "local hub cache"),
        (checks.check_database("sqlite:///x", None), "ok", "sqlite:///x"),
        (checks.check_database("sqlite:///x", REFUSED), "fail", "set RAYTRAIN_HOME"),
    ],
)
def test_verdicts(check: checks.Check, status: str, said: str) -> None:
    assert (check.status, said in f"{check.what} {check.fix}") == (status, True), check
    assert check.fix or check.status == "ok"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    app = typer.Typer()
    app.command()(doctor.doctor)
    code = app([*arguments, "--json"], standalone_mode=False)
    return code, json.loads(capsys.readouterr().out)


def by_name(result: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in result["checks"]}


def test_a_healthy_machine(tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = run(capsys, "--model", str(tiny_llama), "--working-dir", str(tmp_path))
    assert code == 0, result
    assert {"python", "ray", "torch", "cores", "memory", "working_dir", "hub", "records"} <= by_name(
        result
    ).keys()
    assert result["memory_estimate"]["num_trainable"] > 0
    assert "error" not in result


def test_a_model_that_is_not_there_fails_with_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result = run(capsys, "--model", "./nowhere", "--working-dir", str(tmp_path))
    assert (code, result["status"]) == (2, "fail")
    failed = by_name(result)["model"]
    assert "nowhere" in failed["what"]
    assert set(result["error"]) == {"kind", "what", "why", "fix"}
    assert result["error"]["kind"] == "config"
    assert "checks failed: model" in result["error"]["what"]
    assert result["error"]["why"] == failed["what"]
    assert result["error"]["fix"] == failed["fix"]


def test_a_wrong_recipe_is_one_failure_among_the_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model:\n  base_modle: tiny\n")
    code, result = run(capsys, str(recipe), "--working-dir", str(tmp_path))
    assert code == 2
    assert "base_modle" in by_name(result)["recipe"]["what"]
    assert by_name(result)["python"]["status"] == "ok"


def test_a_good_recipe_is_estimated(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{base_model: {tiny_llama}}}\ndata: {{sources: [{{path: {tmp_path / 'rows.jsonl'}}}]}}\n"
        "scaling: {num_workers: 64}\n"
    )
    _, result = run(capsys, str(recipe), "--working-dir", str(tmp_path))
    assert by_name(result)["recipe"]["status"] == "ok", result
    assert by_name(result)["cores"]["status"] == "warn"
    assert result["memory_estimate"] is not None


def test_a_person_reads_the_remedies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()
    app.command()(doctor.doctor)
    assert app(["--model", "./nowhere", "--working-dir", str(tmp_path)], standalone_mode=False) == 2
    said = capsys.readouterr().out
    assert "→ check model.base_model" in said
    assert "1 to put right" in said


@pytest.mark.parametrize("with_git", [True, False])
def test_the_working_dir_is_measured_as_ray_packs_it(tmp_path: Path, with_git: bool) -> None:
    for name, size in {
        "a.py": 10,
        "data/rows.jsonl": 500,
        ".venv/lib.so": 9000,
        "skip/x": 70,
        "out/y": 30,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / ".rayignore").write_text("# not for the cluster\nskip/\n")
    if with_git:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        (tmp_path / ".gitignore").write_text("out/\n")
    total, largest = doctor.measure_working_dir(tmp_path)
    assert largest[0] == ("data", 500)
    assert {name for name, _ in largest} == {"a.py", "data", ".rayignore"} | (
        {".gitignore"} if with_git else {"out"}
    )
    assert total == sum(size for _, size in largest)
