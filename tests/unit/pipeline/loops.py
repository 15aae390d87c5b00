"""A loop over a small registry with two versions, and the request log of a server that nobody runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from releases import Trained, release
from suites import write_suite

from raytrain.data.section import SourceSection
from raytrain.monitoring.learning.pool import PooledRow
from raytrain.pipeline.loop.fresh_rows import Learned, RowsPlan, write_plan
from raytrain.pipeline.loop.opening import release_of, retrainings_of
from raytrain.pipeline.loop.section import Loop, RowsSection, load_loop
from raytrain.pipeline.steps import Release, admitted
from raytrain.release.gate.policy import Target
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.versions import Version
from raytrain.runs.records import Records

NAME = "sums"
POLICY: dict[str, Any] = {
    "policy": "lax",
    "targets": [{"to": "production", "reports": [], "documents": [], "max_age_days": None}],
}
STAGED = {**POLICY, "targets": [{**POLICY["targets"][0], "to": to} for to in ("staging", "production")]}
TRIGGERS = {
    "triggers": "grow",
    "when": {"any": [{"new_rows": {"at_least": 3}}, {"manual": True}]},
    "cooldown_hours": 0,
}


def write_loop(folder: Path, policy: Mapping[str, Any] = POLICY, **changes: Any) -> Path:
    """With the files that it names; a change of None takes a key out."""
    write_suite(folder, "texts")
    content = {
        "loop": "small", "release": NAME, "triggers": "triggers.yaml", "gate": "policy.yaml", "suites": ["texts.yaml"],
        "registry": str(folder / "registry"), "keys": str(folder / "keys"), "key": "release", "learning": None,
        "log": str(folder / "log"), **changes,
    }  # fmt: skip
    for name, values in {"triggers": TRIGGERS, "policy": dict(policy), "loop": content}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return folder / "loop.yaml"


@dataclass(frozen=True)
class Site:
    loop: Loop
    release: Release
    records: Records

    def promote(self, version: str, to: Target = "production") -> None:
        assert admitted(self.release, Version.parse(version), [], to=to).moved

    def production(self) -> str:
        return str(self.release.desk.registry.state(NAME).aliases["production"])

    def digest(self, version: str) -> str:
        return self.release.desk.registry.find(f"{NAME}@{version}").digest


def make_site(folder: Path, records: Records, **changes: Any) -> Site:
    ring, registry = KeyRing(folder / "keys"), Registry(folder / "registry")
    ring.generate("release")
    for number in range(2):
        trained = Trained(dataset=f"sha256:rows {number}")
        release(registry, ring, folder / f"bundle-{number}", trained, f"1.{number}.0")
    loop = load_loop(write_loop(folder, **changes))
    return Site(loop, release_of(loop, records), records)


def pooled(first: int, last: int, user: str = "u") -> list[PooledRow]:
    """Rows of answers that people liked, of numbers up to the last."""
    prompt = ({"role": "user", "content": "q"},)
    return [
        PooledRow(f"{n:032x}", float(n), user, f"{NAME}@1.0.0", None, prompt, "a", "answer", 1.0, "ready")
        for n in range(first, last)
    ]


def written_plan(
    site: Site, rows: Sequence[dict[str, Any]] = (), order: str = "grow-000001", **parents: str
) -> RowsPlan:
    """Rows that an order learns from, beside 1.0.0 in production. By default three that no pool knows."""
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    found = rows or [{"id": f"{number:032x}", "messages": chat} for number in range(3)]
    recipe = {
        "name": "n", "model": {"base_model": "models/tiny"}, "data": {"sources": [{"path": "rows.jsonl"}]},
    }  # fmt: skip
    learned = Learned(recipe, [SourceSection(path="rows.jsonl")])
    production = {"version": "1.0.0", "model": "m", "digest": site.digest("1.0.0")}
    about = {"order": order, "name": NAME, "production": production}
    section, place = RowsSection(least=1, held_out=0.0), retrainings_of(site.release) / order / "rows"
    return write_plan(place, section, found, learned, {"production": "sha256:p", **parents}, about)


def answered(
    number: int, at: float, digest: str, *, user: str = "u", answer: str = "so", **more: Any
) -> dict[str, Any]:
    """A row of the request log."""
    return {
        "at": datetime.fromtimestamp(at, UTC), "request_id": f"r{number}", "key": None, "model": f"{NAME}@x",
        "digest": digest, "arm": None, "prompts": [json.dumps([{"role": "user", "content": f"q{number}"}])],
        "answers": [answer], "finish": ["stop"], "user": user, "consent": True, "route": "/v1/chat/completions", **more,
    }  # fmt: skip


def rated(number: int, at: float, rating: str, correction: str | None = None) -> dict[str, Any]:
    """A row of feedback."""
    return {
        "at": datetime.fromtimestamp(at, UTC), "request_id": f"r{number}", "key": None, "rating": rating,
        "correction": correction,
    }  # fmt: skip


def write_log(folder: Path, kind: str, rows: Sequence[dict[str, Any]], name: str = "a") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / f"{kind}-{name}.parquet")
