"""JSON that is nested deeper than Python reads, and JSON that is right and spare: told or shown, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gates import held, wanted
from releases import Evidence, Trained, make_release, release

from raytrain.cli.main import run
from raytrain.errors import IntegrityError
from raytrain.release.bundle.description import read_description
from raytrain.release.fitting import check_weights
from raytrain.release.gate.promote import Desk, judge
from raytrain.release.inventory.sbom import SBOM_FILE, read_sbom
from raytrain.release.keyless import Identity, verify_keyless
from raytrain.release.keys import KeyRing
from raytrain.release.registry.journal import chained
from raytrain.release.registry.registry import Registry
from raytrain.release.signing import sign, signature_place, verify
from raytrain.storage.artifact import ArtifactWriter, open_artifact
from raytrain.storage.location import Location

DEEP = "[" * 100_000
HALF_DEEP = '{"bomFormat": "CycloneDX", "specVersion": "1.6", "x": ' + "[" * 900 + "]" * 900 + "}"

READERS: dict[str, tuple[str, Callable[[Path, KeyRing], object]]] = {
    "signature": ("../bundle.sig", verify),
    "keyless signature": ("../bundle.sig", lambda folder, _: verify_keyless(folder, Identity("a", "b"))),
    "manifest": ("manifest.json", lambda folder, _: open_artifact(Location(str(folder)))),
    "description": ("bundle.json", lambda folder, _: read_description(folder)),
    "ring": ("../keys/ring.json", lambda _, ring: ring.known()),
    "journal": ("bundle.json", lambda folder, _: chained([(folder / "bundle.json").read_bytes()], str)),
    "inventory": (SBOM_FILE, lambda folder, _: read_sbom(folder)),
}


@pytest.mark.parametrize(("name", "read"), READERS.values(), ids=READERS)
def test_what_is_nested_too_deep_is_told_as_damaged(
    name: str, read: Callable[[Path, KeyRing], object], tmp_path: Path, ring: KeyRing
) -> None:
    folder = make_release(tmp_path / "bundle", Trained()).path
    sign(folder, ring.signing_key("release"))
    assert signature_place(folder) == (folder / "../bundle.sig").resolve()
    (folder / name).write_text(DEEP)
    with pytest.raises(IntegrityError):
        read(folder, ring)


def test_an_inventory_that_its_schema_cannot_walk_is_told(tmp_path: Path) -> None:
    (tmp_path / SBOM_FILE).write_text(HALF_DEEP)
    with pytest.raises(IntegrityError):
        read_sbom(tmp_path)


def test_the_header_of_weights_is_told(tmp_path: Path) -> None:
    folder = make_release(tmp_path / "bundle", Trained()).path
    header = DEEP.encode()
    weights = folder / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(IntegrityError, match="cannot be loaded"):
        check_weights(folder, read_description(folder), Location(str(tmp_path)))


def test_a_report_is_told_and_a_document_holds_the_version(
    desk: Desk, evidence: Evidence, tmp_path: Path, ring: KeyRing
) -> None:
    report = evidence.write_safety()
    with ArtifactWriter(report.location, kind=report.kind, parents=report.manifest.parents) as writer:
        (writer.path / "report.json").write_text(DEEP)
        writer.commit(report.manifest.provenance, replace=True)
    with pytest.raises(IntegrityError, match=r"report\.json cannot be read"):
        judge(desk, wanted(evidence))
    evidence.write_safety()
    deep = json.loads("[" * 400 + "]" * 400)
    release(desk.registry, ring, tmp_path / "deep", Trained(), "1.1.0", documents={SBOM_FILE: [deep]})
    assert list(held(desk, wanted(evidence, reference="sums@1.1.0"))) == ["sbom"]


def test_a_spare_inventory_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spare = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}
    (tmp_path / SBOM_FILE).write_text(json.dumps(spare))
    assert run(["sbom", str(tmp_path)]) == 0
    components = [{"type": "library", "name": "numpy", "version": "2.0"}]
    (tmp_path / SBOM_FILE).write_text(json.dumps({**spare, "components": components}))
    assert run(["sbom", str(tmp_path)]) == 0
    assert "numpy" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["nested too deep", "a folder", "a link to nothing"])
def test_one_journal_that_is_no_journal_hides_no_other_name(
    what: str, tmp_path: Path, ring: KeyRing, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(tmp_path / "registry")
    for name in ("sums", "words"):
        release(registry, ring, tmp_path / name, Trained(), "1.0.0", name=name)
    place = tmp_path / "registry" / "words" / "journal" / "00000002.json"
    if what == "a folder":
        place.mkdir()
    elif what == "a link to nothing":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place.write_text(DEEP)
    for command in ("list", "audit", "gc"):
        assert run(["registry", command, "--registry", str(tmp_path / "registry")]) == 5
        told = capsys.readouterr()
        assert "a fault in raytrain" not in told.err + told.out, command
        assert "words" in told.err + told.out and (command == "gc" or "sums" in told.out + told.err)
