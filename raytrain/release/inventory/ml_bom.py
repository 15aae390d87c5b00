"""The model as a component of a CycloneDX document: its card, its rows, what it was trained over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raytrain.release.bundle.description import BundleDescription
from raytrain.release.bundle.subject import Subject
from raytrain.release.inventory.background import Background
from raytrain.storage.manifest import file_sha256, short_digest

MODEL_REF = "model"
_BASE_REF = "model:base"
_WEIGHTS = (".safetensors", ".onnx", ".data", ".pt2")

Json = dict[str, Any]


def model_component(
    folder: Path, subject: Subject, description: BundleDescription, background: Background
) -> Json:
    """The trained model with its card, and the files of its weights in the bundle."""
    facts = {"subject": description.subject, "kind": description.kind, "dtype": description.dtype}
    facts |= {"tokenizer": description.tokenizer, "formats": ", ".join(description.formats)}
    if description.adapter is not None:
        facts |= {f"adapter.{name}": _told(value) for name, value in vars(description.adapter).items()}
    component: Json = {
        "type": "machine-learning-model",
        "bom-ref": MODEL_REF,
        "name": str(_config(subject).get("name") or description.kind),
        "version": short_digest(description.subject),
        "properties": _properties(facts),
        "modelCard": _card(subject, description, background),
    }
    if description.adapter is not None:
        component["pedigree"] = {"ancestors": [_base(description, with_ref=False)]}
    weights = _weight_files(folder)
    return {**component, "components": weights} if weights else component


def other_components(subject: Subject, description: BundleDescription, background: Background) -> list[Json]:
    """The base model and the rows."""
    found = [_base(description)] if description.adapter is not None else []
    return found + [_dataset(role, digest, background) for role, digest in _rows(subject).items()]


def model_dependencies(subject: Subject, description: BundleDescription, packages: list[str]) -> list[Json]:
    """What the model stands on: the base model under an adapter, its rows, the packages that run it."""
    base = [_BASE_REF] if description.adapter is not None else []
    needs = [*base, *(_data_ref(role) for role in _rows(subject)), *packages]
    return [{"ref": MODEL_REF, "dependsOn": needs}, *({"ref": one} for one in needs if one not in packages)]


def _card(subject: Subject, description: BundleDescription, background: Background) -> Json:
    architecture = _architecture(subject)
    parameters: Json = {
        "approach": {"type": "supervised"},
        "task": description.task,
        "datasets": [{"ref": _data_ref(role)} for role in _rows(subject)],
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    }
    if architecture.get("model_type"):
        parameters["architectureFamily"] = str(architecture["model_type"])
    if architecture.get("architectures"):
        parameters["modelArchitecture"] = str(architecture["architectures"][0])
    card: Json = {
        "modelParameters": parameters,
        "considerations": {"technicalLimitations": _limitations(subject, background)},
    }
    metrics = _metrics(background)
    return {**card, "quantitativeAnalysis": {"performanceMetrics": metrics}} if metrics else card


def _metrics(background: Background) -> list[Json]:
    found = []
    for report in background.reports:
        for suite in report.suites.values():
            for name, value in sorted(suite.metrics.items()):
                metric: Json = {"type": name, "value": repr(value), "slice": f"{suite.name}@{suite.version}"}
                interval = suite.intervals.get(name)
                if interval is not None:
                    bounds = {"lowerBound": repr(interval.low), "upperBound": repr(interval.high)}
                    metric["confidenceInterval"] = bounds
                found.append(metric)
    return found


def _limitations(subject: Subject, background: Background) -> list[str]:
    """Facts, not advice: how far training and measurement went."""
    told = []
    longest = _config(subject).get("data", {}).get("max_seq_len")
    if longest:
        told.append(f"Trained on rows of at most {longest} tokens.")
    suites = [one for report in background.reports for one in report.suites.values()]
    if not suites:
        return [*told, "No evaluation came with it: nothing is said of how well it answers."]
    measured = ", ".join(f"{one.name} ({one.num_items} items)" for one in suites)
    return [*told, f"Measured on {measured}; nothing is said of other uses."]


def _base(description: BundleDescription, *, with_ref: bool = True) -> Json:
    base = description.base_model
    facts = {"digest": base.digest, "reference": base.reference}
    found: Json = {
        "type": "machine-learning-model",
        "name": base.reference.rstrip("/").rsplit("/", 1)[-1],
        "version": base.revision or short_digest(base.digest),
        "properties": _properties(facts),
    }
    if base.licence:
        found["licenses"] = [{"license": _licence(base.licence)}]
    return {**found, "bom-ref": _BASE_REF} if with_ref else found


def _licence(name: str) -> Json:
    from cyclonedx.spdx import fixup_id

    known = fixup_id(name)
    return {"id": known} if known else {"name": name}


def _rows(subject: Subject) -> dict[str, str]:
    """Roles of what was trained on, and digests; the tokens are made of the rows, by the tokenizer."""
    parents = subject.artifact.manifest.parents
    return {role: parents[role] for role in ("dataset",) if role in parents}


def _data_ref(role: str) -> str:
    return f"data:{role}"


def _dataset(role: str, digest: str, background: Background) -> Json:
    names = [name for name, _ in background.sources]
    facts = {"digest": digest}
    if background.num_rows is not None:
        facts["rows"] = str(background.num_rows)
    facts |= {f"licence of {name}": str(licence or "not stated") for name, licence in background.sources}
    return {
        "type": "data",
        "bom-ref": _data_ref(role),
        "name": ", ".join(names) or role,
        "version": short_digest(digest),
        "data": [{"type": "dataset", "name": ", ".join(names) or role}],
        "properties": _properties(facts),
    }


def _weight_files(folder: Path) -> list[Json]:
    found = sorted(one for one in folder.rglob("*") if one.is_file() and one.suffix in _WEIGHTS)
    return [
        {
            "type": "file",
            "bom-ref": f"file:{one.relative_to(folder).as_posix()}",
            "name": one.relative_to(folder).as_posix(),
            "hashes": [{"alg": "SHA-256", "content": file_sha256(one)}],
        }
        for one in found
    ]


def _architecture(subject: Subject) -> Json:
    try:
        told: Json = json.loads((subject.base_folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _config(subject: Subject) -> Json:
    config = subject.artifact.manifest.provenance.get("config")
    return config if isinstance(config, dict) else {}


def _properties(facts: dict[str, str]) -> list[Json]:
    return [{"name": f"raytrain:{name}", "value": value} for name, value in sorted(facts.items())]


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
