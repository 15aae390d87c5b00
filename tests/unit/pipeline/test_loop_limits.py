"""The limits of a loop's file are those that its bundles are held against."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import evaluation_of, records_with
from loops import make_site
from trained import train_tiny

from raytrain.pipeline import steps
from raytrain.release.bundle.export import ExportRequest
from raytrain.runs.records import Records


class _Reached(Exception):
    """An export would begin here, which takes half a minute."""


def test_a_bundle_is_held_against_the_limits_of_the_file(
    tmp_path: Path, records: Records, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ExportRequest] = []

    def export(_subject: object, wanted: ExportRequest, _tell: object) -> None:
        asked.append(wanted)
        raise _Reached

    monkeypatch.setattr(steps, "export", export)
    limits = {"bfloat16": {"max_difference": 0.25}, "max_new_tokens": 3}
    site = make_site(tmp_path, records, export_check=limits, storage={"path": str(tmp_path / "storage")})
    trained = train_tiny(tiny_llama, tmp_path / "adapter", target_modules=["q_proj"])
    evaluation = evaluation_of(tmp_path / "evaluation", {"sums": records_with([1.0])})
    with pytest.raises(_Reached):
        steps.released(site.release, str(trained), evaluation, [], "a test")
    section = asked[0].settings.export_check
    assert section.bfloat16.max_difference == 0.25 and section.bfloat16.max_kl == 0.2
    assert section.max_new_tokens == 3 and section.float32.max_difference == 0.02
    assert str(asked[0].settings.storage.location) == str(tmp_path / "storage")
