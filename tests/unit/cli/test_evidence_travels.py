"""A version with the reports that its promotion cites, from one home to an empty one, in one file."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Told
from releases import Evidence, Trained, make_release

from raytrain.cli.main import run

pytestmark = [pytest.mark.whole, pytest.mark.slow]


@pytest.fixture
def evidence(told: Told, tmp_path: Path) -> Evidence:
    """Of sums@1.0.0, which is in production here by it."""
    found = Evidence(tmp_path / "evidence").write()
    make_release(tmp_path / "bundle", Trained())
    told("keys", "generate")
    told("adapter", "deploy", tmp_path / "bundle", "--name", "sums", "--to", "dev")
    told("sign", found.folder / "safety")
    options = [word for place in found.places for word in ("--evidence", place)]
    assert told("promote", "sums@1.0.0", "--to", "production", *options)[0] == 0
    return found


@pytest.fixture
def plant(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Go to an empty home that trusts who signed here; nothing of this place is left there."""

    def go() -> Path:
        home = tmp_path / "plant"
        home.mkdir()
        key = tmp_path / "their.pub"
        _, shown = told("keys", "list")
        _, found = told("keys", "show", shown["keys"][0]["id"])
        key.write_text(found["pem"])
        for one in ("home", "evidence", "bundle"):
            shutil.rmtree(tmp_path / one, ignore_errors=True)
        monkeypatch.setenv("RAYTRAIN_HOME", str(home))
        assert told("keys", "trust", "headquarters", key)[0] == 0
        assert told("keys", "generate")[0] == 0
        return home

    return go


def test_an_empty_home_promotes_by_what_came_along(
    evidence: Evidence,
    plant: Callable[[], Path],
    told: Told,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "sums.tar"
    code, found = told("registry", "export", "sums@1.0.0", file)
    assert code == 0 and found["evidence_missing"] == [] and found["proof_left_out"] == []
    cited = {Path(one).name for one in evidence.places}
    assert len(found["evidence"]) == len(cited) == 7, "a decision's evaluation and baseline as well"
    home = plant()
    code, took = told("registry", "import", file, "--why", "for the plant")
    assert code == 0 and sorted(took["evidence"]["digests"]) == found["evidence"], took
    assert took["proof_left_out"] == []
    folder = Path(took["evidence"]["folder"])
    assert folder.is_relative_to(home) and len(list(folder.glob("*.sig"))) == 1
    code, done = told("promote", "sums@1.0.0", "--to", "production")
    assert code == 0 and done["verdict"] == "GO" and done["moved"], done.get("error")
    assert {one["name"]: one["status"] for one in done["rules"]}["fresh"] == "passed"
    code, again = told("registry", "export", "sums@1.0.0", tmp_path / "again.tar")
    assert code == 0 and again["evidence"] == found["evidence"], "and on to the next one"
    shutil.rmtree(folder)
    assert told("promote", "sums@1.0.0", "--to", "staging")[0] == 5, "without it there is nothing to judge by"


def test_what_cannot_be_found_is_told_and_may_be_named(
    evidence: Evidence, told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.move(evidence.folder / "contamination", tmp_path / "elsewhere" / "contamination")
    file = str(tmp_path / "sums.tar")
    code, found = told("registry", "export", "sums@1.0.0", file)
    assert code == 0 and len(found["evidence"]) == 6
    (missing,) = found["evidence_missing"]
    assert missing.startswith("evidence/") and "--evidence" in missing
    assert run(["registry", "export", "sums@1.0.0", file, "--replace"]) == 0
    assert f"does not come along: {missing}" in capsys.readouterr().out
    code, found = told(
        "registry", "export", "sums@1.0.0", file, "--replace", "--evidence", tmp_path / "elsewhere"
    )
    assert code == 0 and len(found["evidence"]) == 7 and found["evidence_missing"] == []


@pytest.mark.parametrize("how", ["changed", "another"])
def test_evidence_that_is_not_what_was_cited_is_not_taken(
    how: str, evidence: Evidence, plant: Callable[[], Path], told: Told, tmp_path: Path
) -> None:
    file, bad = tmp_path / "sums.tar", tmp_path / "bad.tar"
    told("registry", "export", "sums@1.0.0", file)
    digest = told("registry", "export", "sums@1.0.0", file, "--replace")[1]["evidence"][0][7:]
    with tarfile.open(file) as source, tarfile.open(bad, "w") as target:
        for member in source:
            stream = source.extractfile(member)
            assert stream is not None
            content = stream.read()
            if how == "changed" and member.name.startswith("evidence/") and "manifest" not in member.name:
                content = content.replace(b"e", b"a", 1)
            name = member.name.replace(digest, "0" * 64) if how == "another" else member.name
            one = tarfile.TarInfo(name)
            one.size = len(content)
            target.addfile(one, io.BytesIO(content))
    home = plant()
    code, found = told("registry", "import", bad)
    assert (
        code == 5
        and "bad.tar is not taken" in found["error"]["what"]
        and "evidence/" in found["error"]["why"]
    )
    assert told("registry", "list")[1]["names"] == [] and not (home / "evidence").exists()
