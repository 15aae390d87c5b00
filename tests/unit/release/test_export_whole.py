"""Export from end to end: fresh processes, kills, full disks, and the real model in all four formats."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import Told
from real_model import SMOLLM2
from safetensors.torch import load_file, save_file
from trained import train_tiny

from raytrain.cli.main import run
from raytrain.runs.records import open_records
from raytrain.storage.artifact import ArtifactWriter, open_artifact
from raytrain.storage.home import run_folder
from raytrain.storage.location import Location

pytestmark = pytest.mark.slow

KEY_ID = "AKIA" + "Q3EGTZ7KPLXWM2VD"  # of nobody; written in two parts, or this file would be a finding

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def adapter(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "adapter"
    return train_tiny(tiny_llama, folder, target_modules=["q_proj", "down_proj"])


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Fewer than the packaged ones: each costs time in each process."""
    file = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "The"}, {"messages": [{"role": "user", "content": "Сколько будет два и три?"}]}]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def merged_bundle(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the adapter, merged alone."""
    folder = tmp_path_factory.mktemp("bundles")
    (folder / "asked.txt").write_text("The\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTRAIN_HOME", str(folder / "home"))
        arguments = ["--format", "merged", "--out", folder / "bundle", "--prompts", folder / "asked.txt"]
        assert run(["export", *map(str, [adapter, *arguments])]) == 0
    return folder / "bundle"


def planted(bundle: Path, changed: Callable[[Path], None]) -> None:
    """Change the files of a bundle and commit it anew, as an exporter with a fault would have written it."""
    before = open_artifact(Location(str(bundle)))
    copy = bundle.with_name("planted")
    shutil.copytree(bundle, copy)
    changed(copy)
    with ArtifactWriter(before.location, kind="bundle", parents=before.manifest.parents) as writer:
        shutil.copytree(copy, writer.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        writer.commit(before.manifest.provenance, replace=True)
    shutil.rmtree(copy)


def change_weight(folder: Path, name: str, by: float) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[name].view(-1)[3] += by
    save_file(tensors, file, metadata={"format": "pt"})


def test_a_bundle_is_written_checked_and_a_planted_difference_named(
    told: Told, adapter: Path, prompts: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    export = ["export", adapter, "--format", "adapter,merged", "--out", bundle, "--prompts", prompts]
    code, written = told(*export)
    assert code == 0 and written["check"]["passed"]
    artifact = open_artifact(Location(str(bundle)), kind="bundle")
    assert artifact.digest == written["digest"]
    assert artifact.manifest.parents["subject"] == open_artifact(Location(str(adapter))).digest
    report = json.loads((bundle / "reports" / "export_check.json").read_text())
    assert report["formats"]["adapter"]["max_difference"] == 0.0 and report == written["check"]
    assert "Сколько" not in json.dumps(report, ensure_ascii=False), "prompts may be somebody's rows"
    code, error = told(*export)
    assert code == 2 and "is there already" in error["error"]["what"]

    check = ["check", "export", bundle, "--subject", adapter, "--prompts", prompts]
    assert told(*check)[1]["passed"]
    planted(bundle, lambda copy: change_weight(copy / "merged", "model.layers.0.mlp.up_proj.weight", 20.0))
    code, found = told(*check)
    assert code == 5 and found["formats"]["adapter"]["passed"]
    faults = found["formats"]["merged"]["faults"]
    assert "model.layers.0.mlp.up_proj.weight differs from base and adapter by 20 at [0, 3]" in faults[0]
    assert any("position" in fault and "allowed is" in fault for fault in faults[1:])
    assert told(*check, "export_check.float32.max_difference=x")[0] == 2
    agreed = tmp_path / "export.yaml"
    agreed.write_text("export_check:\n  float32: {max_diference: 1}\n")
    code, found = told(*check, "--config", agreed)
    assert code == 2 and "export.yaml:2" in found["error"]["what"] + found["error"]["why"]
    assert "max_difference" in found["error"]["fix"]
    agreed.write_text("export_check:\n  float32: {max_difference: 50, mean_difference: 50, max_kl: 50}\n")
    lenient = told(*check, "--config", agreed)[1]["formats"]["merged"]["faults"]
    assert not any("position" in fault for fault in lenient), "the file's limits count"
    strict = told(*check, "--config", agreed, "export_check.float32.max_difference=1e-9")[1]
    assert any("position" in fault for fault in strict["formats"]["merged"]["faults"]), "KEY=VALUE go over it"


def test_the_log_of_its_run_travels_under_the_signature_and_a_key_in_it_holds_the_bundle_up(
    told: Told, adapter: Path, prompts: Path, tmp_path: Path
) -> None:
    run_id = open_artifact(Location(str(adapter))).manifest.provenance["run_id"]
    records = open_records()
    records.create_run(run_id, kind="train", name="tiny", config={})
    records.close()
    log = run_folder(run_id) / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"step 1: train/loss 3.2\naws_access_key_id = {KEY_ID}\n")
    bundle = tmp_path / "bundle"
    export = ["export", adapter, "--out", bundle, "--prompts", prompts]
    code, refused = told(*export)
    assert code == 5 and "run/log.txt" in json.dumps(refused) and KEY_ID not in json.dumps(refused)
    assert not bundle.exists()
    log.write_text("step 1: train/loss 3.2\n")
    assert told(*export)[0] == 0
    assert told("keys", "generate", "default")[0] == 0
    assert told("sign", bundle)[0] == 0 and told("verify", bundle)[0] == 0
    (bundle / "run" / "log.txt").write_text("step 1: train/loss 0.2\n")
    code, refused = told("verify", bundle)
    assert code == 5 and "run/log.txt" in json.dumps(refused)


@pytest.mark.thorough
def test_whole_models_and_narrow_dtypes_pass(
    told: Told, tiny_llama: Path, prompts: Path, tmp_path: Path
) -> None:
    whole = train_tiny(tiny_llama, tmp_path / "whole", method="full")
    code, written = told("export", whole, "--out", tmp_path / "whole-bundle", "--prompts", prompts)
    assert code == 0, written
    assert written["check"]["formats"]["merged"]["max_difference"] == 0.0
    narrow = train_tiny(tiny_llama, tmp_path / "narrow", dtype="bfloat16", target_modules=["q_proj"])
    code, written = told(
        *("export", narrow, "--format", "adapter,merged,torch_export"),
        *("--out", tmp_path / "narrow-bundle", "--prompts", prompts),
    )
    assert code == 0, written
    assert written["check"]["dtype"] == "bfloat16"
    assert 0 < written["check"]["formats"]["merged"]["max_difference"] < 0.5


def test_graphs_are_loaded_in_a_fresh_process_and_compared(
    told: Told, adapter: Path, prompts: Path, tmp_path: Path
) -> None:
    forms, bundle = ("onnx", "torch_export"), tmp_path / "bundle"
    code, written = told(
        "export", adapter, "--format", ",".join(forms), "--out", bundle, "--prompts", prompts
    )
    assert code == 0, written
    found = written["check"]["formats"]
    assert tuple(found) == forms
    for one in found.values():
        assert one["num_matched"] == one["num_tokens"] > 2 and one["max_difference"] < 1e-3, found

    def damage(folder: Path) -> None:
        (weights,) = (folder / "onnx").glob("*.data")
        content = bytearray(weights.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 4000] = b"\x3f" * 4000
        weights.write_bytes(content)

    planted(bundle, damage)
    code, refused = told("check", "export", bundle, "--subject", adapter, "--prompts", prompts)
    assert code == 5 and "onnx" in json.dumps(refused), refused


@pytest.mark.thorough
def test_a_format_that_cannot_be_loaded_is_told_with_its_last_words(
    told: Told, adapter: Path, prompts: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    assert told("export", adapter, "--out", bundle, "--prompts", prompts)[0] == 0

    def damage(copy: Path) -> None:
        config = json.loads((copy / "adapter" / "adapter_config.json").read_text())
        (copy / "adapter" / "adapter_config.json").write_text(json.dumps({**config, "r": 3}))

    planted(bundle, damage)
    code, found = told("check", "export", bundle, "--subject", adapter, "--prompts", prompts)
    told_faults = "\n".join(found["formats"]["adapter"]["faults"])
    assert code == 5 and "cannot be loaded and asked in a fresh process" in told_faults
    assert "its rank is 3, bundle.json says 2" in told_faults


def test_a_bundle_that_does_not_pass_is_not_written(
    told: Told, adapter: Path, prompts: Path, tmp_path: Path
) -> None:
    code, error = told(
        *("export", adapter, "export_check.float32.max_difference=0", "export_check.float32.max_kl=0"),
        *("--format", "merged", "--out", tmp_path / "out" / "bundle", "--prompts", prompts),
    )
    assert code == 5, error
    assert "merged is not the model that was trained" in error["error"]["what"]
    assert "position" in error["error"]["why"] and "allowed is 0" in error["error"]["why"]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("step", ["asking the trained model", "writing merged", "checking merged"])
def test_killed_at_any_step_it_leaves_no_bundle(
    step: str, adapter: Path, prompts: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "out" / "bundle"
    command = [sys.executable, "-m", "raytrain", "export", adapter, "--format", "adapter,merged"]
    command += ["--out", bundle, "--prompts", prompts]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, text=True, env=surroundings, start_new_session=True
    )
    assert process.stderr is not None
    assert any(step in line for line in process.stderr), "the step was reached"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not bundle.exists()
    assert all(one.name.startswith(".staging-") for one in bundle.parent.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
@pytest.mark.parametrize("form", ["adapter", "merged", "torch_export"])
def test_a_full_disk_is_told_and_leaves_nothing(
    form: str, told: Told, adapter: Path, prompts: Path, tmp_path: Path
) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    size = {"adapter": 8, "merged": 80, "torch_export": 200}[form]
    options = ["-t", "tmpfs", "-o", f"size={size}k", "tmpfs", mount]
    if subprocess.run(["mount", *options], check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        code, error = told(
            "export", adapter, "--format", form, "--out", mount / "bundle", "--prompts", prompts
        )
        assert (code, error["error"]["kind"]) == (4, "storage"), error
        assert os.strerror(errno.ENOSPC) in error["error"]["why"]
        assert list(mount.iterdir()) == []
    finally:
        subprocess.run(["umount", mount], check=True)


ALONE = """
import runpy, sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("raytrain", "ray"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Nowhere())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program where raytrain is not installed, as far as that program can see."""


@contextmanager
def served(bundle: Path, *arguments: object) -> Iterator[str]:
    """inference.py as its own process that cannot see raytrain; its address once it is ready."""
    program = [bundle / "inference.py", "--port", "0", "--device", "cpu", *arguments]
    command = [sys.executable, "-I", "-c", ALONE, *program]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, cwd=bundle)
    try:
        assert process.stderr is not None
        address = process.stderr.readline().split()[-1]
        yield address
    finally:
        process.terminate()
        assert process.wait(30) == 0


def asked(address: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"{address}{path}", data=data, timeout=300) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def wait_until_ready(address: str) -> None:
    until = time.monotonic() + 240
    while asked(address, "/ready")[0] == 503:
        assert time.monotonic() < until, "it is never ready"
        time.sleep(0.2)


def test_the_program_answers_where_raytrain_is_not_installed(merged_bundle: Path) -> None:
    seen = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, Path(__file__).parents[2] / "imports_raytrain.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "No module named 'raytrain'" in seen.stderr, "it would be found otherwise"
    with served(merged_bundle) as address:
        assert asked(address, "/health") == (200, {"status": "ok"})
        wait_until_ready(address)
        status, told = asked(address, "/generate", {"prompt": "The", "max_new_tokens": 3})
    assert status == 200 and told["num_new_tokens"] <= 3


def test_the_program_refuses_a_changed_bundle_with_one_line(merged_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(merged_bundle, bundle)
    change_weight(bundle / "merged", "model.norm.weight", 1e-6)
    done = subprocess.run(
        [sys.executable, "-I", str(bundle / "inference.py"), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 5
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("refused: ") and "merged/model.safetensors has SHA-256" in last


def test_ray_serve_takes_the_application(merged_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Serve's own testing mode: no cluster, the deployment as serve.yaml asks for it."""
    import yaml
    from ray import serve
    from starlette.requests import Request

    (application,) = yaml.safe_load((merged_bundle / "serve.yaml").read_text())["applications"]
    monkeypatch.syspath_prepend(str(merged_bundle))
    module, _, name = application["import_path"].partition(":")
    handle = serve.run(
        getattr(__import__(module), name)(application["args"]), _local_testing_mode=True, name="model"
    )

    def request(method: str, path: str, body: bytes = b"") -> Any:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
        return handle.remote(
            Request({**scope, "server": ("localhost", 80), "scheme": "http"}, receive)
        ).result()

    assert request("GET", "/ready").status_code == 200
    found = request("POST", "/generate", b'{"prompt": "The", "max_new_tokens": 3}')
    assert found.status_code == 200 and json.loads(found.body)["num_new_tokens"] <= 3
    assert request("POST", "/generate", b"{}").status_code == 400


BY_REQUEST = pytest.mark.skipif(
    "RAYTRAIN_SLOWEST" not in os.environ,
    reason="tracing the real model takes minutes: RAYTRAIN_SLOWEST=1 runs it; the tiny model is traced in every run",
)


@pytest.mark.thorough
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "forms",
    [("adapter", "merged"), pytest.param(("adapter", "merged", "onnx", "torch_export"), marks=BY_REQUEST)],
    ids=len,
)
def test_the_real_model(
    forms: tuple[str, ...], told: Told, smollm2_cache: Location, prompts: Path, tmp_path: Path
) -> None:
    from raytrain.models.base import resolve_base_model
    from raytrain.models.section import ModelSection

    base = Path(resolve_base_model(ModelSection(base_model=SMOLLM2), smollm2_cache).path)
    adapter = train_tiny(base, tmp_path / "adapter", target_modules=["q_proj", "v_proj"])
    bundle = tmp_path / "bundle"
    code, written = told(
        *("export", adapter, "--out", bundle, "--format", ",".join(forms)),
        *("--prompts", prompts, f"storage.path={tmp_path / 'storage'}"),
    )
    assert code == 0, written
    formats = written["check"]["formats"]
    assert tuple(formats) == forms
    assert all(one["num_matched"] == one["num_tokens"] > 8 for one in formats.values())
    answers = []
    for form in forms:
        more = ("--base", base) if form == "adapter" else ()
        with served(bundle, "--format", form, *more) as address:
            assert asked(address, "/health") == (200, {"status": "ok"})
            wait_until_ready(address)
            turns = [{"role": "user", "content": "What is the capital of France?"}]
            body = {"messages": turns, "max_new_tokens": 6, "temperature": 0}
            answers.append(asked(address, "/generate", body))
            assert asked(address, "/generate", {"prompt": 1})[0] == 400
    assert answers[0][0] == 200 and answers[0][1]["text"]
    assert all(one == answers[0] for one in answers)
