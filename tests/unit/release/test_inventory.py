"""The inventory holds what is there, is valid by others' schemas, and the same facts give the same bytes."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raytrain.cli.main import run
from raytrain.errors import ConfigError, IntegrityError
from raytrain.evaluation.report import EvaluatedModel, EvaluationReport, SuiteReport
from raytrain.evaluation.results import Evaluation
from raytrain.evaluation.statistics.pairs import Interval
from raytrain.release.bundle.description import BundleDescription, describe
from raytrain.release.bundle.lineage import Lineage
from raytrain.release.bundle.subject import Subject, find_subject
from raytrain.release.inventory.packages import environment_of, read_requirements
from raytrain.release.inventory.provenance import PROVENANCE_FILE
from raytrain.release.inventory.sbom import SBOM_FILE, read_sbom, validate_sbom
from raytrain.release.inventory.writing import CONSTRAINTS_FILE, write_inventory
from raytrain.storage.artifact import Artifact, ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.manifest import file_sha256

pytestmark = pytest.mark.whole

ROOTS = ["safetensors", "pydantic"]


def dataset(folder: Path) -> Artifact:
    with ArtifactWriter(Location(str(folder)), kind="dataset") as writer:
        told = {"rows": {"kept": 40}, "sources": [{"name": "sums", "licence": "CC-BY-4.0"}]}
        (writer.path / "statistics.json").write_text(json.dumps(told))
        return writer.commit({})


def evaluation(folder: Path, adapter_digest: str) -> Evaluation:
    suite = SuiteReport(
        *("sums", "1", "sha256:5", "generation", "chat", 40, 0, 0, 0, None),
        *({"score": 0.75}, {"score": Interval(0.59, 0.86, 0.95, "Wilson")}, 100, 100),
    )
    report = EvaluationReport(EvaluatedModel("x", adapter_digest=adapter_digest), {}, {"sums": suite})
    with ArtifactWriter(
        Location(str(folder)), kind="evaluation", parents={"adapter": adapter_digest}
    ) as writer:
        (writer.path / "report.json").write_text(json.dumps(report.as_dict()))
        return Evaluation(writer.commit({}), report, {}, None)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return dataset(tmp_path_factory.mktemp("rows") / "dataset")


@pytest.fixture(scope="module")
def subject(tiny_llama: Path, rows: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """An adapter as training leaves it, over the tiny model."""
    folder = tmp_path_factory.mktemp("trained")
    config = {
        "name": "assistant",
        "model": {"base_model": str(tiny_llama)},
        "data": {"max_seq_len": 128},
        "train": {"seed": 1},
        "scaling": {"num_workers": 2},
        "storage": {"path": "somewhere"},
    }
    record = {"base_model": str(tiny_llama), "model": {"dtype": "float32"}, "adapter": {"method": "lora"}}
    parents = {"base_model": "sha256:" + "b" * 64, "dataset": rows.digest}
    with ArtifactWriter(Location(str(folder / "adapter")), kind="adapter", parents=parents) as writer:
        adapter = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
        (writer.path / "adapter_config.json").write_text(json.dumps(adapter))
        (writer.path / "adapter_model.safetensors").write_bytes(b"weights")
        (writer.path / "training.json").write_text(json.dumps(record))
        writer.commit(
            {
                "config": config,
                "run_id": "assistant-1",
                "created_at": "2026-11-21T22:39:07+00:00",
                "git": {"commit": "c" * 40, "dirty": True},
                "packages": {"python": "3.11.7", "torch": "2.13.0+cpu"},
                "host": "not told",
            }
        )
    return find_subject(str(folder / "adapter"), Location(str(folder / "cache")))


@pytest.fixture(scope="module")
def description(subject: Subject) -> BundleDescription:
    return describe(subject, ("adapter",))


@pytest.fixture
def staged(tmp_path: Path, subject: Subject, description: BundleDescription) -> Path:
    folder = tmp_path / "bundle"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "requirements.txt").write_text("# runs it\nsafetensors>=0.6 \\\n  --hash=sha256:ab\npydantic\n")
    description.write(folder)
    return folder


@pytest.fixture
def lineage(rows: Artifact, subject: Subject, tmp_path: Path) -> Lineage:
    told = json.loads((rows.path / "statistics.json").read_text())
    found = [evaluation(tmp_path / "evaluation", subject.digest)]
    return Lineage(subject, rows.digest, told, None, None, found, [])


@pytest.fixture
def written(staged: Path, description: BundleDescription, lineage: Lineage) -> Path:
    write_inventory(staged, description, lineage)
    return staged


def nothing_known(subject: Subject) -> Lineage:
    return Lineage(subject, None, None, None, None, [], [])


def document_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / SBOM_FILE).read_text())
    return found


def test_every_package_that_is_needed_stands_in_it(written: Path) -> None:
    document = read_sbom(written)
    packages = {one["name"]: one for one in document["components"] if one["type"] == "library"}
    needed = {"safetensors", "pydantic", "pydantic-core", "annotated-types", "typing-extensions"}
    assert needed <= packages.keys()
    assert "torch" not in packages, "only what the requirements lead to"
    for name, one in packages.items():
        version = importlib.metadata.version(name)
        assert one["version"] == version and one["purl"] == f"pkg:pypi/{name}@{version}"
    assert packages["pydantic"]["licenses"][0]["license"]["id"] == "MIT"
    edges = {one["ref"]: one.get("dependsOn", []) for one in document["dependencies"]}
    assert "package:pydantic-core" in edges["package:pydantic"]
    assert {"package:pydantic", "package:safetensors", "model:base", "data:dataset"} == set(edges["model"])
    assert document["compositions"][0]["aggregate"] == "complete"
    constraints = set((written / CONSTRAINTS_FILE).read_text().splitlines()[1:])
    assert constraints == {f"{name}=={one['version'].partition('+')[0]}" for name, one in packages.items()}
    statement = json.loads((written / PROVENANCE_FILE).read_text())
    told = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    assert told[CONSTRAINTS_FILE] == file_sha256(written / CONSTRAINTS_FILE)


def test_the_same_facts_give_the_same_bytes(
    written: Path, subject: Subject, description: BundleDescription, lineage: Lineage
) -> None:
    before = [(written / name).read_bytes() for name in (SBOM_FILE, PROVENANCE_FILE)]
    write_inventory(written, description, lineage)
    assert [(written / name).read_bytes() for name in (SBOM_FILE, PROVENANCE_FILE)] == before
    serial = document_of(written)["serialNumber"]
    write_inventory(written, description, nothing_known(subject))
    assert document_of(written)["serialNumber"] != serial, "other facts, another document"


def test_the_model_has_its_card_its_rows_and_its_base(written: Path, description: BundleDescription) -> None:
    document = document_of(written)
    model = document["metadata"]["component"]
    assert model["type"] == "machine-learning-model" and model["name"] == "assistant"
    card = model["modelCard"]
    assert card["modelParameters"]["modelArchitecture"] == "LlamaForCausalLM"
    assert card["modelParameters"]["datasets"] == [{"ref": "data:dataset"}]
    (metric,) = card["quantitativeAnalysis"]["performanceMetrics"]
    assert metric == {
        "type": "score",
        "value": "0.75",
        "slice": "sums@1",
        "confidenceInterval": {"lowerBound": "0.59", "upperBound": "0.86"},
    }
    others = {one["bom-ref"]: one for one in document["components"]}
    assert others["data:dataset"]["type"] == "data" and others["data:dataset"]["name"] == "sums"
    told = {one["name"]: one["value"] for one in others["data:dataset"]["properties"]}
    assert told["raytrain:licence of sums"] == "CC-BY-4.0" and told["raytrain:rows"] == "40"
    base = {one["name"]: one["value"] for one in others["model:base"]["properties"]}
    assert base["raytrain:digest"] == description.base_model.digest
    (weights,) = model["components"]
    assert weights["hashes"][0]["content"] == file_sha256(written / weights["name"])


def test_what_is_not_known_is_not_stated(
    staged: Path, subject: Subject, description: BundleDescription
) -> None:
    write_inventory(staged, description, nothing_known(subject))
    card = document_of(staged)["metadata"]["component"]["modelCard"]
    assert "quantitativeAnalysis" not in card
    assert any("No evaluation" in one for one in card["considerations"]["technicalLimitations"])


def _metric_as_number(card: dict[str, Any]) -> None:
    card["quantitativeAnalysis"]["performanceMetrics"][0]["value"] = 0.75


def _unknown_key(card: dict[str, Any]) -> None:
    card["scores"] = []


def _unknown_approach(card: dict[str, Any]) -> None:
    card["modelParameters"]["approach"]["type"] = "guessing"


def _lost_rows(card: dict[str, Any]) -> None:
    card["modelParameters"]["datasets"] = [{"ref": "data:nowhere"}]


@pytest.mark.parametrize(
    "break_it", [_metric_as_number, _unknown_key, _unknown_approach, _lost_rows], ids=lambda one: one.__name__
)
def test_a_broken_card_is_refused(break_it: Callable[[dict[str, Any]], None], written: Path) -> None:
    document = document_of(written)
    validate_sbom(copy.deepcopy(document))
    break_it(document["metadata"]["component"]["modelCard"])
    with pytest.raises(IntegrityError, match="not a valid CycloneDX document"):
        validate_sbom(document)


def test_the_library_s_own_reader_takes_it(written: Path) -> None:
    from cyclonedx.model.bom import Bom

    document = document_of(written)
    del document["metadata"]["component"]["modelCard"]  # the library has no class for it
    bom = Bom.from_json(document)  # type: ignore[attr-defined]
    assert {one.name for one in bom.components} == {one["name"] for one in document["components"]}


def test_requirements_that_are_not_as_installed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not installed here"):
        environment_of(["no-such-package-anywhere"])
    with pytest.raises(IntegrityError, match="requirements ask for"):
        environment_of(["pydantic<1"])
    with pytest.raises(ConfigError, match="not a requirement"):
        environment_of(["==1"])
    place = tmp_path / "requirements.txt"
    place.write_text(
        "--index-url https://x\n# a\ntorch==2.13.0 --hash=sha256:a \\\n --hash=sha256:b\npeft  # c\n"
    )
    assert read_requirements(place) == ["torch==2.13.0", "peft"]


def test_a_requirement_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "halfway-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: halfway\nVersion: 1.0\nRequires-Dist: no-such-package-anywhere\n"
        'Requires-Dist: pydantic; extra == "more"\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = environment_of(["halfway"])
    assert found.missing == ("no-such-package-anywhere",) and [one.name for one in found.packages] == [
        "halfway"
    ]
    assert "pydantic" in {one.name for one in environment_of(["halfway[more]"]).packages}


def test_the_provenance_covers_every_file_and_names_its_materials(
    written: Path, subject: Subject, description: BundleDescription, lineage: Lineage
) -> None:
    statement = json.loads((written / PROVENANCE_FILE).read_text())
    files = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    there = {one.relative_to(written).as_posix() for one in written.rglob("*") if one.is_file()}
    assert files.keys() == there - {PROVENANCE_FILE}
    assert all(digest == file_sha256(written / name) for name, digest in files.items())
    build = statement["predicate"]["buildDefinition"]
    materials = {one["name"]: one for one in build["resolvedDependencies"]}
    assert materials["dataset"]["digest"]["sha256"] == str(lineage.dataset_digest).removeprefix("sha256:")
    assert materials["base_model"]["digest"]["sha256"] == description.base_model.digest.removeprefix(
        "sha256:"
    )
    assert materials["sources"] == {
        "name": "sources",
        "digest": {"gitCommit": "c" * 40},
        "annotations": {"dirty": True},
    }
    assert materials["torch"]["uri"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert build["externalParameters"]["recipe"]["train"] == {"seed": 1}
    assert "not told" not in json.dumps(statement) and "somewhere" not in json.dumps(statement)


URI = re.compile(r"(https://|urn:|pkg:)\S+")


def test_the_provenance_has_the_form_that_slsa_asks_for(written: Path) -> None:
    """Fields, types and rules of in-toto's Statement v1 and of SLSA's provenance v1."""
    statement = json.loads((written / PROVENANCE_FILE).read_text())
    assert statement.keys() == {"_type", "subject", "predicateType", "predicate"}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    names = [one["name"] for one in statement["subject"]]
    assert names and len(names) == len(set(names)), "a subject's name is its own"
    assert all(re.fullmatch("[0-9a-f]{64}", one["digest"]["sha256"]) for one in statement["subject"])
    predicate = statement["predicate"]
    assert predicate.keys() == {"buildDefinition", "runDetails"}
    build, details = predicate["buildDefinition"], predicate["runDetails"]
    allowed = {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    assert {"buildType", "externalParameters"} <= build.keys() <= allowed
    assert URI.fullmatch(build["buildType"]) and isinstance(build["externalParameters"], dict)
    descriptor = {"name", "uri", "digest", "content", "downloadLocation", "mediaType", "annotations"}
    for one in [*build["resolvedDependencies"], *details["byproducts"]]:
        assert one.keys() <= descriptor and one.keys() & {"uri", "digest", "content"}
        assert "uri" not in one or URI.fullmatch(one["uri"])
    assert details.keys() <= {"builder", "metadata", "byproducts"} and URI.fullmatch(details["builder"]["id"])
    assert details["metadata"].keys() <= {"invocationId", "startedOn", "finishedOn"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", details["metadata"]["finishedOn"])


def test_in_toto_s_own_reader_takes_the_provenance(written: Path) -> None:
    reader = pytest.importorskip(
        "in_toto_attestation.v1.statement", reason="in-toto's classes are an oracle only"
    )
    from google.protobuf.json_format import Parse, ParseDict
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2

    text = (written / PROVENANCE_FILE).read_text()
    message = Parse(text, statement_pb2.Statement())
    reader.Statement.copy_from_pb(message).validate()
    predicate = ParseDict(json.loads(text)["predicate"], provenance_pb2.Provenance())
    assert predicate.run_details.metadata.invocation_id == "assistant-1"


def test_the_command_shows_what_is_in_it(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sbom", str(written)]) == 0
    told = capsys.readouterr().out
    assert "assistant" in told and "pydantic" in told and "MIT" in told
    assert run(["sbom", str(written), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["document"] == document_of(written)
    (written / SBOM_FILE).write_text("{}")
    assert run(["sbom", str(written), "--json"]) == 5
    (written / SBOM_FILE).unlink()
    assert run(["sbom", str(written), "--json"]) == 2
