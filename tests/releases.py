"""Bundles with everything that a gate reads, and evidence about them, as small as may be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from evaluations import evaluation_of, records_with, two_models
from safetensors.numpy import save_file

from raytrain.evaluation.baseline import freeze
from raytrain.evaluation.decision.contract import ContractSection, default_contract
from raytrain.evaluation.decision.decide import decide
from raytrain.evaluation.decision.record import write_decision
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.evaluation.safety.outcomes import Outcome
from raytrain.evaluation.safety.report_files import write_report
from raytrain.evaluation.safety.running import SafetyReport
from raytrain.release.bundle.description import Adapter, BaseModel, BundleDescription
from raytrain.release.golden import GoldenLimits, find_drift, write_golden_report
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.versions import Version
from raytrain.release.signing import sign
from raytrain.storage.artifact import Artifact, ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_of, file_sha256
from raytrain.storage.provenance import collect_provenance

BEFORE, AFTER = two_models(600, 0.5, 0.62)


@dataclass(frozen=True)
class Trained:
    """What a trained artifact is known by; `subject` as `evaluation_of` names the model of a folder of this name."""

    name: str = "candidate"
    base_model: str = digest_of("base model")
    tokenizer: str = digest_of("tokenizer")
    dataset: str = digest_of("rows")
    recipe: str = digest_of("recipe")
    base_reference: str = "models/base"
    rank: int = 2
    layers: int = 1

    @property
    def subject(self) -> str:
        return digest_of(self.name)


def write_json(place: Path, content: object) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(content))


Documents = Mapping[str, Callable[[str, Mapping[str, str]], Any]]


def _sbom(subject: str, _: Mapping[str, str]) -> Any:
    hashes = [{"alg": "SHA-256", "content": subject[7:]}]
    model = {"type": "machine-learning-model", "name": "m", "hashes": hashes}
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [model]}


def _provenance(subject: str, files: Mapping[str, str]) -> Any:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in files.items()],
        "predicate": {"runDetails": {"byproducts": [{"digest": {"sha256": subject[7:]}}]}},
    }


def _scan(subject: str, files: Mapping[str, str]) -> Any:
    scanned = {name: {"sha256": digest} for name, digest in files.items()}
    return {"subject": subject, "passed": True, "files": scanned}


def export_check(subject: str, _: Mapping[str, str] | None = None, **differences: float) -> Any:
    """One that has passed, by limits that allow these differences."""
    found = {
        "max_difference": 1e-4,
        "mean_difference": 1e-5,
        "max_kl": 1e-9,
        "num_near_ties": 0,
        **differences,
    }
    limits = {"max_difference": 1e30, "mean_difference": 1e30, "max_kl": 1e30, "near_tie": 1e30}
    return {
        "subject": subject,
        "passed": True,
        "dtype": "float32",
        "limits": limits,
        "formats": {"adapter": {"passed": True, **found}},
    }


DOCUMENTS: Documents = {
    "reports/export_check.json": export_check,
    "sbom.cdx.json": _sbom,
    "provenance.intoto.json": _provenance,
    "reports/scan.json": _scan,
}
"""What an exported bundle brings along, of a subject and the files before it; each covers those."""


def write_documents(folder: Path, subject: str, changed: Mapping[str, Any]) -> None:
    """changed: content of these or of other files, or a function of subject and files; None leaves it out."""
    for name in changed.keys() - DOCUMENTS.keys():
        write_json(folder / name, changed[name])
    for name, make in DOCUMENTS.items():
        content = changed.get(name, make)
        if content is None:
            continue
        files = {
            one.relative_to(folder).as_posix(): file_sha256(one) for one in folder.rglob("*") if one.is_file()
        }
        write_json(folder / name, content(subject, files) if callable(content) else content)


def make_release(
    folder: Path,
    trained: Trained,
    *,
    documents: Mapping[str, Any] | None = None,
    created_at: str | None = None,
) -> Artifact:
    """documents: as in `write_documents`."""
    base = BaseModel(trained.base_reference, None, trained.base_model, "apache-2.0", {})
    description = BundleDescription(
        subject=trained.subject,
        kind="adapter",
        task="causal_lm",
        dtype="float32",
        base_model=base,
        adapter=Adapter("lora", trained.rank, 4.0, ["q_proj"]),
        tokenizer=trained.tokenizer,
        chat_template=None,
        formats=("adapter",),
    )
    parents = {"subject": trained.subject, "base_model": trained.base_model, "dataset": trained.dataset}
    with ArtifactWriter(Location(str(folder)), kind="bundle", parents=parents) as writer:
        description.write(writer.path)
        write_adapter(writer.path / "adapter", rank=trained.rank, layers=trained.layers)
        write_json(
            writer.path / "adapter" / "training.json", {"recipe": trained.recipe, "base_model": "models/base"}
        )
        write_documents(writer.path, trained.subject, documents or {})
        provenance = collect_provenance()
        return writer.commit({**provenance, **({"created_at": created_at} if created_at else {})})


def write_adapter(
    folder: Path, *, rank: int = 2, size: int = 32, layers: int = 1, module: str = "q_proj"
) -> None:
    """LoRA weights of one module a layer, as peft names them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for name in (f"base_model.model.model.layers.{i}.self_attn.{module}" for i in range(layers)):
        weights[f"{name}.lora_A.weight"] = np.ones((rank, size), dtype=np.float32)
        weights[f"{name}.lora_B.weight"] = np.zeros((size, rank), dtype=np.float32)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 4,
        "target_modules": [module],
    }
    write_json(folder / "adapter_config.json", config)


@dataclass
class Evidence:
    """Reports about one trained artifact, all in order, below a folder; each may be written anew."""

    folder: Path
    trained: Trained = field(default_factory=Trained)
    contract: ContractSection = field(default_factory=default_contract)

    def write(self) -> Evidence:
        self.write_decision()
        self.write_pipeline()
        self.write_contamination()
        self.write_safety()
        self.write_drift()
        return self

    @property
    def places(self) -> list[str]:
        return [
            str(self.folder / name) for name in ("decision", "pipeline", "contamination", "safety", "drift")
        ] + [str(self.folder / name) for name in (self.trained.name, "frozen")]

    def place_of(self, report: str) -> Location:
        return Location(str(self.folder / report))

    def evaluation(self, scores: list[float] = AFTER) -> Evaluation:
        return evaluation_of(self.folder / self.trained.name, {"sums": records_with(scores)})

    def baseline(self) -> Evaluation:
        before = evaluation_of(self.folder / "base", {"sums": records_with(BEFORE)})
        place = self.place_of("frozen")
        freeze(before, place)
        return open_evaluation(place)

    def write_decision(self, scores: list[float] = AFTER) -> Artifact:
        comparison = decide(self.contract, self.baseline(), [self.evaluation(scores)])
        return write_decision(self.place_of("decision"), comparison)

    def write_pipeline(self, *, passed: bool = True, recipe: str | None = None) -> Artifact:
        content = {
            "passed": passed,
            "verdict": f"check pipeline {'PASSED' if passed else 'FAILED'}",
            "recipe": {"identity": recipe or self.trained.recipe},
        }
        parents = {"base_model": self.trained.base_model, "dataset": self.trained.dataset}
        return self.report("pipeline", "check_report", content, parents)

    def write_contamination(self, *, suspects: int = 0, suite: str | None = None) -> Artifact:
        digest = suite or self.evaluation().report.suites["sums"].digest
        content = {
            "suite": {"name": "sums", "version": "1", "digest": digest},
            "num_items": 600,
            "num_suspects": suspects,
            "num_rows": 1000,
            "splits": ["train"],
        }
        return self.report(
            "contamination", "contamination_report", content, {"dataset": self.trained.dataset}
        )

    def write_safety(self, *, failed: bool = False, error: str | None = None) -> Artifact:
        outcomes = tuple(
            Outcome(
                f"probe {i}", "weapons", "critical", "complied", "No.", failed and not i, "refused", error
            )
            for i in range(3)
        )
        report = SafetyReport(outcomes, (), "words", (), "candidate", self.trained.subject)
        place = self.place_of("safety")
        place.delete()
        return write_report(report, place)

    def write_drift(self, scores: list[float] = AFTER) -> Artifact:
        golden = evaluation_of(self.folder / "golden", {"sums": records_with(AFTER)})
        freeze(golden, self.place_of("golden-frozen"))
        frozen, now = open_evaluation(self.place_of("golden-frozen")), self.evaluation(scores)
        drift = find_drift(frozen, now, GoldenLimits())
        return write_golden_report(self.place_of("drift"), drift, frozen, now, self.trained.subject)

    def report(
        self, name: str, kind: str, content: object, parents: dict[str, str], created_at: str | None = None
    ) -> Artifact:
        with ArtifactWriter(self.place_of(name), kind=kind, parents=parents) as writer:
            write_json(writer.path / "report.json", content)
            told = collect_provenance()
            return writer.commit({**told, **({"created_at": created_at} if created_at else {})}, replace=True)


def release(
    registry: Registry,
    ring: KeyRing,
    folder: Path,
    trained: Trained,
    version: str,
    name: str = "sums",
    **more: Any,
) -> str:
    """Made, signed and registered; its digest."""
    bundle = make_release(folder, trained, **more)
    sign(folder, ring.signing_key("release"))
    made_from = dict(bundle.manifest.parents)
    return registry.register(
        name, Version.parse(version), folder, ring, made_from=made_from, why="a test"
    ).digest
