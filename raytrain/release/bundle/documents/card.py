"""README.md: the model card, filled from where the model comes from. What is not known is said, not guessed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from raytrain.evaluation.report import SuiteReport
from raytrain.release.bundle.description import BundleDescription
from raytrain.release.bundle.documents.licence import licences_of_rows
from raytrain.release.bundle.documents.needs import Needs
from raytrain.release.bundle.lineage import Lineage
from raytrain.release.bundle.parity.check import ExportCheck
from raytrain.storage.manifest import short_digest

LIBRARIES = {"adapter": "peft", "merged": "transformers", "onnx": "onnx", "torch_export": "pytorch"}


def render_card(description: BundleDescription, lineage: Lineage, checked: ExportCheck, needs: Needs) -> str:
    parts = (
        _front_matter(description, lineage, needs),
        _heading(description, lineage),
        _training(lineage),
        _rows(lineage),
        _results(lineage),
        _check(checked),
        _use(description, needs),
        _limits(needs, lineage),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _front_matter(description: BundleDescription, lineage: Lineage, needs: Needs) -> Iterator[str]:
    base = description.base_model
    method = description.adapter.method if description.adapter else "full fine-tuning"
    content: dict[str, Any] = {
        "base_model": base.reference,
        "license": base.licence or "unknown",
        "library_name": LIBRARIES[needs.form],
        "pipeline_tag": "text-generation" if lineage.subject.writes else "text-classification",
        "tags": ["raytrain", method, *description.formats],
    }
    if lineage.rows is not None:
        content["datasets"] = [name for name, _ in licences_of_rows(lineage)]
    yield "---"
    yield yaml.safe_dump(content, sort_keys=False, allow_unicode=True).rstrip("\n")
    yield "---"


def _heading(description: BundleDescription, lineage: Lineage) -> Iterator[str]:
    config = _config(lineage)
    yield f"# {config.get('name') or 'Model'}"
    yield ""
    kind = "A LoRA adapter" if description.adapter else "A fine-tuned model"
    yield f"{kind} over {_code(description.base_model.reference)}, trained and written by raytrain."
    yield ""
    facts = {
        "Trained artifact": description.subject,
        "Base model": description.base_model.digest,
        "Base model's licence": description.base_model.licence or "not stated",
        "Formats": ", ".join(description.formats),
        "Weights held in": description.dtype,
    }
    if description.adapter:
        adapter = description.adapter
        facts["Adapter"] = f"{adapter.method}, rank {adapter.rank}, alpha {adapter.alpha:g}"
        facts["Target modules"] = ", ".join(adapter.target_modules)
    if lineage.subject.model.labels:
        facts["Classes"] = ", ".join(lineage.subject.model.labels)
    yield from _table(("", ""), facts.items())


def _training(lineage: Lineage) -> Iterator[str]:
    record, cost = lineage.subject.record, lineage.cost
    spent = None if cost is None else cost.spent
    train = _config(lineage).get("train") or {}
    provenance = lineage.subject.artifact.manifest.provenance
    facts = {
        "Recipe": record.get("recipe"),
        "Seed": provenance.get("seed"),
        "Optimizer steps": record.get("global_step"),
        "Learning rate": train.get("learning_rate"),
        "Global batch size": train.get("global_batch_size"),
        "Precision": train.get("precision"),
        "Time": None if spent is None else f"{3600 * spent.hours:,.0f} s",
        "Cost": None if spent is None else spent.told(),
        "Tokens seen": None if cost is None or cost.tokens_seen is None else f"{cost.tokens_seen:,}",
        "Versions": ", ".join(f"{k} {v}" for k, v in sorted((provenance.get("packages") or {}).items())),
    }
    for name, value in sorted((record.get("eval") or {}).items()):
        facts[f"{name}, at the end, of held-out rows"] = f"{value:.4g}"
    yield "## Training"
    yield ""
    yield from _table(("", ""), ((name, one) for name, one in facts.items() if one not in (None, "")))


def _rows(lineage: Lineage) -> Iterator[str]:
    yield "## Rows it learned from"
    yield ""
    if lineage.dataset_digest:
        yield f"Dataset {lineage.dataset_digest}"
        yield ""
    if lineage.rows is None:
        yield lineage.rows_note or "Not known."
        return
    sources = [
        (one["name"], one.get("licence") or "not stated", f"{one['read']:,}", f"{one['kept']:,}")
        for one in lineage.rows["sources"]
    ]
    yield from _table(("source", "licence", "rows read", "rows kept"), sources)
    yield ""
    splits = lineage.rows["splits"]
    yield ", ".join(f"{name} {one['rows']:,} rows" for name, one in splits.items()) + "."


def _results(lineage: Lineage) -> Iterator[str]:
    yield "## Results"
    yield ""
    if not lineage.evaluations:
        yield "It was exported without an evaluation: nothing is known here of how good it is."
        return
    rows = [
        (suite.name, name, *_scored(suite, name), f"{suite.num_items:,}", short_digest(one.artifact.digest))
        for one in lineage.evaluations
        for suite in one.report.suites.values()
        for name in suite.metrics
    ]
    yield from _table(("suite", "metric", "value", "interval", "items", "evaluation"), rows)


def _scored(suite: SuiteReport, name: str) -> tuple[str, str]:
    interval = suite.intervals.get(name)
    if interval is None:
        return f"{suite.metrics[name]:.4g}", "none"
    told = f"{interval.low:.4g} to {interval.high:.4g} ({interval.level:.0%}, {interval.method})"
    return f"{suite.metrics[name]:.4g}", told


def _check(checked: ExportCheck) -> Iterator[str]:
    yield "## What was exported is what was trained"
    yield ""
    yield (
        f"Each format was loaded in a fresh process and asked {len(checked.prompts)} prompts; logits are compared "
        "with the trained model's at every position."
    )
    yield ""
    rows = [
        (
            name,
            f"{one.max_difference:.2g}",
            f"{one.mean_difference:.2g}",
            f"{one.max_kl:.2g}",
            f"{one.num_matched} of {one.num_tokens}",
        )
        for name, one in checked.formats.items()
    ]
    header = ("format", "largest difference", "mean difference", "KL divergence", "greedy tokens alike")
    yield from _table(header, rows)


def _use(description: BundleDescription, needs: Needs) -> Iterator[str]:
    base = " --base FOLDER" if needs.form == "adapter" else ""
    yield "## Use"
    yield ""
    yield "```bash"
    yield "pip install -r requirements.txt -c constraints.txt"
    yield f"python inference.py --port 8000{base}"
    yield "curl localhost:8000/ready"
    if description.task == "causal_lm":
        yield """curl localhost:8000/generate -d '{"prompt": "Good morning", "max_new_tokens": 32}'"""
    else:
        yield """curl localhost:8000/classify -d '{"text": "Good morning"}'"""
    yield "```"
    yield ""
    yield "`Dockerfile` and `serve.yaml` (Ray Serve) do the same. Only files whose SHA-256 is listed are loaded."
    if description.adapter and "merged" not in description.formats:
        yield f"FOLDER holds the base model, {_code(description.base_model.reference)}, in safetensors."


def _limits(needs: Needs, lineage: Lineage) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield "- It may be wrong, and may repeat what stood in the rows it learned from."
    yield "- What holds for its base model holds for it: languages, biases, and what it must not be used for."
    length = (_config(lineage).get("data") or {}).get("max_seq_len")
    if length:
        yield f"- It learned from rows of at most {length} tokens."
    if needs.trained_in is not None:
        yield f"- {needs.quantization}"
    if any(licence is None for _, licence in licences_of_rows(lineage)):
        yield "- The licence of some rows is not stated."
    yield from (f"- {note}" for note in lineage.notes)


def _config(lineage: Lineage) -> dict[str, Any]:
    return lineage.subject.artifact.manifest.provenance.get("config") or {}


def _table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(_cell(one) for one in row) + " |"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"
