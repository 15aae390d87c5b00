"""What lies beside the weights, and the program that serves them: in this process, without a port."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from evaluations import evaluation_of, records_with
from trained import DATASET, train_tiny

from raytrain.errors import ConfigError, IntegrityError
from raytrain.evaluation.report import EvaluatedModel, EvaluationReport
from raytrain.evaluation.results import write_evaluation
from raytrain.models.base import resolve_base_model
from raytrain.models.section import ModelSection
from raytrain.release.bundle.description import LOADABLE, BundleDescription, describe
from raytrain.release.bundle.documents.card import LIBRARIES
from raytrain.release.bundle.documents.documents import write_documents
from raytrain.release.bundle.documents.needs import PACKAGES
from raytrain.release.bundle.formats.format import FORMATS, find_formats, write_format
from raytrain.release.bundle.formats.material import Material
from raytrain.release.bundle.lineage import Lineage, TrainingCost, find_lineage
from raytrain.release.bundle.parity.check import ExportCheck, FormatResult
from raytrain.release.bundle.parity.fresh import LOADER
from raytrain.release.bundle.parity.prompts import Prompt
from raytrain.release.bundle.parity.section import LimitsSection
from raytrain.release.bundle.subject import Subject, find_subject
from raytrain.release.inventory.writing import write_inventory
from raytrain.runs.cost import Cost
from raytrain.runs.records import open_records
from raytrain.storage.artifact import ArtifactWriter, open_artifact
from raytrain.storage.home import run_folder
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_of


@pytest.fixture(scope="module")
def subject(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    base = tmp_path_factory.mktemp("trained") / "base"
    shutil.copytree(tiny_llama, base)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (base / "LICENSE").write_text("Apache License\n")
    folder = train_tiny(base, base.parent / "adapter", target_modules=["q_proj"])
    return find_subject(str(folder), Location(str(base.parent)))


def checked(subject: Subject) -> ExportCheck:
    result = FormatResult(max_difference=2e-6, num_tokens=8, num_matched=8)
    prompts = [Prompt("one", "The")]
    return ExportCheck(subject.digest, "float32", LimitsSection(), prompts, [], [], {"merged": result})


STATISTICS: dict[str, Any] = {
    "sources": [{"name": "letters", "licence": "CC-BY-4.0", "read": 1200, "kept": 1000}],
    "splits": {"train": {"rows": 900}, "val": {"rows": 100}},
}


def documents(
    subject: Subject, folder: Path, formats: tuple[str, ...] = ("merged",), **changed: Any
) -> tuple[BundleDescription, dict[str, str]]:
    folder.mkdir(exist_ok=True)
    description = describe(subject, formats)
    spent = Cost(hours=1234.4 / 3600, cpu_hours=0.69, gpu_hours=0.34, money=1.5, currency="EUR")
    lineage = Lineage(subject, DATASET, STATISTICS, None, TrainingCost("tiny-1", spent, 56789), [], [])
    write_documents(folder, description, replace(lineage, **changed), checked(subject))
    return description, {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def test_the_card_says_what_is_known(subject: Subject, tmp_path: Path) -> None:
    place = tmp_path / "evaluation"
    scores = records_with([1.0, 0.0, 1.0, 1.0])
    evaluation_of(place, {"sums": scores}, changed={"sums": {"intervals": {"score": _interval()}}})
    found = evaluation_of(place, {"sums": scores}, changed={"sums": {"intervals": {"score": _interval()}}})
    _, texts = documents(subject, tmp_path / "bundle", evaluations=[found])
    card = texts["README.md"]
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "apache-2.0" and front["library_name"] == "transformers"
    assert front["datasets"] == ["letters"] and front["base_model"] == "./base"
    for part in (
        subject.digest,
        "| letters | CC-BY-4.0 | 1,200 | 1,000 |",
        "train 900 rows, val 100 rows",
        "| Optimizer steps | 12 |",
        "| Seed | 3 |",
        "| eval/loss, at the end, of held-out rows | 1.25 |",
        "| Time | 1,234 s |",
        "| Cost | 1.50 EUR (0.69 CPU hours, 0.34 GPU hours) |",
        "56,789",
        "| sums | score | 0.75 | 0.3 to 0.9 (95%, Wilson) | 4 |",
        "| merged | 2e-06 |",
        "at most 64 tokens",
    ):
        assert part in card, part


def _interval() -> Any:
    from raytrain.evaluation.statistics.pairs import Interval

    return Interval(low=0.3, high=0.9, level=0.95, method="Wilson")


def test_what_is_not_known_is_said(subject: Subject, tmp_path: Path) -> None:
    lineage = find_lineage(subject, [])
    assert lineage.rows is None and lineage.cost is None and len(lineage.notes) == 1
    known = {"rows": None, "rows_note": lineage.rows_note, "cost": None, "notes": lineage.notes}
    _, texts = documents(subject, tmp_path, **known)
    assert "nothing is known here of how good it is" in texts["README.md"]
    rows = texts["README.md"].partition("## Rows it learned from")[2].partition("##")[0]
    assert str(lineage.rows_note) in rows and texts["README.md"].count("The dataset is not at hand") == 1
    assert f"- {lineage.notes[0]}" in texts["README.md"].partition("## Limits")[2]
    assert "Rows: not known here" in texts["LICENSE"]


def test_lineage_is_read_from_the_records(subject: Subject, tmp_path: Path) -> None:
    with ArtifactWriter(Location(str(tmp_path / "data")), kind="dataset") as writer:
        (writer.path / "statistics.json").write_text(json.dumps(STATISTICS))
        dataset = writer.commit()
    records = open_records()
    config = {"scaling": {"num_workers": 2}, "cost": {"cpu_hour": 0.5}}
    records.create_run("tiny-1", kind="train", name="tiny", config=config)
    for hours, state in ((0, "running"), (1, "stopped"), (72, "running"), (74, "succeeded")):
        records.add_event("tiny-1", "state", state, {"state": state}, time=3600.0 * hours)
    records.add_metrics("tiny-1", [(12, 1.0, {"train/tokens_seen": 640.0})])
    records.add_artifact("tiny-1", "dataset", "read", "dataset", dataset.digest, str(dataset.location))
    parents = {**subject.artifact.manifest.parents, "dataset": dataset.digest}
    manifest = replace(subject.artifact.manifest, parents=parents)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "manifest.json").write_bytes(manifest.to_json())
    artifact = replace(subject.artifact, manifest=manifest, location=Location(str(tmp_path / "adapter")))
    folder = run_folder("tiny-1")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").write_text(f"read {tmp_path}/rows.jsonl\nstep 1: train/loss 3.2\n")
    (folder / "events.jsonl").write_bytes(b"x" * (2**24 + 1))
    found = find_lineage(replace(subject, artifact=artifact), [])
    assert found.rows == STATISTICS
    assert found.cost is not None and found.cost.tokens_seen == 640
    assert found.cost.spent == Cost(3.0, 6.0, 0.0, 3.0, "USD"), "two workers for three hours of three days"
    assert found.logs == {"log.txt": "read rows.jsonl\nstep 1: train/loss 3.2\n"}
    assert [one.split(" is not ")[0] for one in found.notes] == [
        "The run's metrics.jsonl",
        "The run's events.jsonl",
    ]
    _, texts = documents(subject, tmp_path / "bundle", notes=found.notes, logs=found.logs)
    assert "The run's events.jsonl is not in the bundle: it has 16 MiB." in texts["README.md"]
    assert (tmp_path / "bundle" / "run" / "log.txt").read_text() == found.logs["log.txt"]


def test_every_format_has_its_packages_and_its_library(inference: Any) -> None:
    assert PACKAGES.keys() == set(FORMATS)
    assert LIBRARIES.keys() == set(inference.FORMATS) <= set(FORMATS)
    assert set(LOADABLE) <= set(FORMATS)


def test_an_evaluation_of_another_model_is_refused(subject: Subject, tmp_path: Path) -> None:
    place = Location(str(tmp_path / "evaluation"))
    for digest, is_own in ((subject.digest, True), (digest_of("another"), False)):
        report = EvaluationReport(EvaluatedModel("x", adapter_digest=digest), {}, {})
        write_evaluation(place, report, {})
        if is_own:
            assert len(find_lineage(subject, [place]).evaluations) == 1
        else:
            with pytest.raises(IntegrityError, match="another model") as caught:
                find_lineage(subject, [place])
            assert digest in caught.value.why and subject.digest in caught.value.why


def test_what_runs_it_is_pinned_and_holds_no_secret(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
    _, texts = documents(subject, tmp_path / "merged")
    lines = texts["Dockerfile"].splitlines()
    assert "HEALTHCHECK" in texts["Dockerfile"] and "USER 10001" in lines
    assert lines.index("USER 10001") < next(i for i, line in enumerate(lines) if line.startswith("CMD"))
    assert "COPY --chown=10001 merged merged" in lines
    index = lines.index("ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu")
    assert lines[index + 1].startswith('RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch==')
    assert "COPY requirements.txt constraints.txt ./" in lines
    assert "RUN pip install --no-cache-dir -r requirements.txt -c constraints.txt" in lines
    assert json.loads(next(line for line in lines if line.startswith("CMD"))[4:])[0] == "python"
    pinned = [line for line in texts["requirements.txt"].splitlines() if not line.startswith("#")]
    assert pinned and all(re.fullmatch(r"[a-z0-9_]+==[0-9][0-9.a-z]*", line) for line in pinned)
    assert not any(line.startswith(("peft", "raytrain", "ray")) for line in pinned)
    assert "hf_xxx" not in "".join(texts.values())
    _, texts = documents(subject, tmp_path / "adapter", ("adapter",))
    assert "peft==" in texts["requirements.txt"] and "/base" in texts["Dockerfile"]
    assert "Apache License" in texts["LICENSE"] and "Rows of letters: CC-BY-4.0" in texts["LICENSE"]


def test_what_serves_it_says_how_it_was_quantized_and_that_it_is_not(
    subject: Subject, inference: Any, tmp_path: Path
) -> None:
    plain = documents(subject, tmp_path / "plain")[1]
    assert "in float32, without quantization" in plain["Dockerfile"] and "NF4" not in plain["README.md"]
    record = {**subject.record, "adapter": {**subject.record["adapter"], "method": "qlora"}}
    _, texts = documents(replace(subject, record=record), tmp_path / "qlora", ("adapter",))
    for name in ("Dockerfile", "serve.yaml", "README.md"):
        assert "(NF4, 4 bits, by bitsandbytes), and is served as it is, in float32" in texts[name]
    label = 'LABEL raytrain.device="cpu" raytrain.dtype="float32" raytrain.quantization="none"'
    assert label in texts["Dockerfile"].splitlines()
    (application,) = yaml.safe_load(texts["serve.yaml"])["applications"]
    assert application["args"]["quantization"] == "none"
    assert "bitsandbytes" not in texts["requirements.txt"], "nothing that is served needs it"
    with pytest.raises(inference.RefusedBundle, match="none in 4 or 8 bits"):
        inference.check_quantization("nf4")


def test_serve_yaml_comes_with_rays_versions(subject: Subject, tmp_path: Path) -> None:
    description, texts = documents(subject, tmp_path)
    version = importlib.metadata.version("ray")
    assert f"ray[serve]=={version}" in texts["serve-requirements.txt"].splitlines()
    assert "-r serve-requirements.txt -c serve-constraints.txt" in texts["serve.yaml"]
    lineage = Lineage(subject, DATASET, None, None, None, [], [])
    write_inventory(tmp_path, description, lineage)
    own, both = (
        dict(line.split("==") for line in (tmp_path / name).read_text().splitlines() if "==" in line)
        for name in ("constraints.txt", "serve-constraints.txt")
    )
    assert "ray" not in own and own.items() < both.items()
    assert both["ray"] == version and both["starlette"] == importlib.metadata.version("starlette")
    statement = json.loads((tmp_path / "provenance.intoto.json").read_text())
    assert "serve-constraints.txt" in {one["name"] for one in statement["subject"]}


def test_a_model_over_a_quantized_base_is_not_released(tiny_llama: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_llama, base)
    folder = train_tiny(base, tmp_path / "adapter", target_modules=["q_proj"])
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    training = json.loads((folder / "training.json").read_text())
    digest = resolve_base_model(ModelSection(base_model=str(base)), Location(str(tmp_path))).digest
    place = Location(str(folder))
    was = open_artifact(place)
    with ArtifactWriter(
        place, kind="adapter", parents={**was.manifest.parents, "base_model": digest}
    ) as writer:
        for file in was.path.iterdir():
            shutil.copy(file, writer.path)
        (writer.path / "training.json").write_text(json.dumps({**training, "base_digest": digest}))
        (writer.path / "manifest.json").unlink()
        writer.commit(was.manifest.provenance, replace=True)
    with pytest.raises(ConfigError, match="cannot be released") as caught:
        find_subject(str(folder), Location(str(tmp_path)))
    assert "quantized (gptq)" in caught.value.why and "qlora" in caught.value.fix


def test_serve_yaml_is_what_ray_serve_takes(subject: Subject, tmp_path: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    _, texts = documents(subject, tmp_path)
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(texts["serve.yaml"])).applications
    assert application.import_path == "inference:build_app" and application.args["device"] == "cpu"
    (deployment,) = application.deployments
    assert (deployment.num_replicas, deployment.ray_actor_options.num_gpus) == (1, 0)


def test_a_model_of_gigabytes_is_served_by_a_gpu(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raytrain.release.bundle.documents import needs

    monkeypatch.setattr(needs, "_size_of", lambda _: 5 << 30)
    _, texts = documents(subject, tmp_path)
    assert "whl/cpu" not in texts["Dockerfile"] and "--gpus" in texts["Dockerfile"]
    (application,) = yaml.safe_load(texts["serve.yaml"])["applications"]
    (deployment,) = application["deployments"]
    assert deployment["ray_actor_options"]["num_gpus"] == 1 and application["args"]["device"] == "cuda"


@pytest.fixture(scope="module")
def inference() -> Any:
    """The program as it lies in a bundle."""
    spec = importlib.util.spec_from_file_location("bundle_inference", LOADER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bundle(subject: Subject, tmp_path: Path) -> Path:
    """adapter and merged, with a manifest."""
    material = Material(subject, subject.model.load())
    with ArtifactWriter(Location(str(tmp_path / "served")), kind="bundle") as writer:
        for form in find_formats(["adapter,merged"], subject):
            write_format(form, material, writer.path)
        describe(subject, ("adapter", "merged")).write(writer.path)
        return writer.commit().path


def answered(service: Any, **asked: Any) -> tuple[int, dict[str, Any]]:
    status, content = service.answer("POST", "/generate", json.dumps(asked).encode())
    return status, content


def test_both_formats_are_served_alike(inference: Any, bundle: Path, subject: Subject) -> None:
    answers = []
    for form, base in (("merged", None), ("adapter", subject.base_folder)):
        service = inference.Service(bundle, form, base, "cpu")
        assert service.answer("GET", "/health", b"")[0] == 200
        assert service.answer("GET", "/ready", b"")[0] == 503
        assert answered(service, prompt="a")[0] == 503
        service.start()
        assert service.answer("GET", "/ready", b"") == (200, {"ready": True, "format": form})
        status, content = answered(service, prompt="What is the sum?", max_new_tokens=5)
        assert status == 200 and 1 <= content["num_new_tokens"] <= 5
        turns = [{"role": "user", "content": "What is the sum?"}]
        assert answered(service, messages=turns, max_new_tokens=3, temperature=0.7)[0] == 200
        answers.append(content)
    assert answers[0] == answers[1]


def test_what_cannot_be_answered_is_a_400_with_a_reason(inference: Any, bundle: Path) -> None:
    service = inference.Service(bundle, None, None, "cpu")
    service.start()
    assert service.form == "merged"
    for body in (
        b"{",
        b"[]",
        b"{}",
        b'{"prompt": ""}',
        b'{"prompt": 1}',
        b'{"prompt": "a", "messages": []}',
        b'{"messages": []}',
        b'{"messages": [{"role": "user"}]}',
        b'{"prompt": "a", "max_new_tokens": 0}',
        b'{"prompt": "a", "max_new_tokens": true}',
        b'{"prompt": "a", "max_new_tokens": 100000}',
        b'{"prompt": "a", "temperature": -1}',
        b'{"prompt": "a", "top_k": 1}',
        b"\xff\xfe",
    ):
        status, content = service.answer("POST", "/generate", body)
        assert status == 400 and content["error"], body
    assert service.answer("GET", "/other", b"")[0] == 404


@pytest.mark.parametrize(
    "name", ["merged/model.safetensors", "merged/config.json", "merged/tokenizer.json", "bundle.json"]
)
def test_a_changed_byte_is_refused_with_its_file(name: str, inference: Any, bundle: Path) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    service = inference.Service(bundle, "merged", None, "cpu")
    with pytest.raises(inference.RefusedBundle, match=Path(name).name.replace(".", r"\.")):
        service.start()
    assert service.answer("GET", "/ready", b"")[0] == 503


def test_files_that_are_missing_added_or_of_another_base_are_refused(
    inference: Any, bundle: Path, subject: Subject, tmp_path: Path
) -> None:
    (bundle / "merged" / "README.md").mkdir()
    with pytest.raises(inference.RefusedBundle, match="cannot be read: Is a directory"):
        inference.sha256_of(bundle / "merged" / "README.md")
    (bundle / "merged" / "extra.safetensors").write_bytes(b"x")
    with pytest.raises(inference.RefusedBundle, match=r"extra\.safetensors is not listed"):
        inference.verify_bundle(bundle, "merged")
    (bundle / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(inference.RefusedBundle, match="is missing"):
        inference.verify_bundle(bundle, "adapter")
    with pytest.raises(inference.RefusedBundle, match="holds no onnx"):
        inference.verify_bundle(bundle, "onnx")
    base = tmp_path / "base"
    shutil.copytree(subject.base_folder, base)
    inference.verify_base(bundle, base)
    (base / "config.json").write_text("{}")
    with pytest.raises(inference.RefusedBundle, match=r"config\.json has SHA-256"):
        inference.verify_base(bundle, base)
    with pytest.raises(inference.RefusedBundle, match="needs its base model"):
        inference.load(bundle, "adapter", None)
