"""Versions are held side by side, tagged, and moved between registries in a file that may be tampered with."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Told
from evaluations import SETTINGS, records_with, suite_report, two_models

from raytrain.cli.main import run
from raytrain.errors import PlatformError
from raytrain.evaluation.report import EvaluatedModel, EvaluationReport
from raytrain.evaluation.results import write_evaluation
from raytrain.release.keys import KeyRing
from raytrain.release.registry.journal import Entry, content_of
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.transfer import import_version
from raytrain.release.registry.versions import Version
from raytrain.storage.artifact import ArtifactWriter, open_artifact
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole


def adapter(folder: Path, rows: str, learning_rate: float) -> Path:
    parents = {"base_model": "sha256:b", "dataset": f"sha256:{rows}"}
    config = {"model": {}, "adapter": {}, "data": {}, "train": {"seed": 1, "learning_rate": learning_rate}}
    with ArtifactWriter(Location(str(folder)), kind="adapter", parents=parents) as writer:
        (writer.path / "adapter_model.safetensors").write_text(f"{rows} {learning_rate}")
        (writer.path / "README.md").write_text("the same in both")
        (writer.path / f"{rows}.txt").write_text(rows)
        writer.commit({"config": config})
    return folder


def evaluation(folder: Path, digest: str, scores: list[float]) -> Path:
    records = {"sums": records_with(scores)}
    model = EvaluatedModel("it", base_digest="sha256:b", adapter_digest=digest, template_digest="sha256:t")
    reports = {name: suite_report(name, found) for name, found in records.items()}
    write_evaluation(Location(str(folder)), EvaluationReport(model, dict(SETTINGS), reports), records)
    return folder


@pytest.fixture
def adapters(told: Told, tmp_path: Path) -> list[Path]:
    told("keys", "generate")
    made = [adapter(tmp_path / rows, rows, rate) for rows, rate in (("old", 1e-4), ("new", 2e-4))]
    for one in made:
        assert told("sign", one)[0] == 0
    return made


def digest_of(folder: Path) -> str:
    return open_artifact(Location(str(folder))).digest


@pytest.mark.whole
def test_two_versions_side_by_side(
    told: Told, adapters: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = two_models(200, 0.4, 0.7)
    old = evaluation(tmp_path / "e-old", digest_of(adapters[0]), before)
    new = evaluation(tmp_path / "e-new", digest_of(adapters[1]), after)
    code, error = told("registry", "add", "sums", adapters[0], "--why", "x", "--evaluation", new)
    assert code == 5 and "no evaluation of this artifact" in error["error"]["what"]
    assert told("registry", "add", "sums", adapters[0], "--why", "[first]", "--evaluation", old)[0] == 0
    assert told("registry", "add", "sums", adapters[1], "--why", "second")[0] == 0
    assert told("registry", "tag", "sums@1.0.0", "+golden", "+small")[1]["tags"] == ["golden", "small"]
    assert told("registry", "tag", "sums@1.0.0", "-small", "+b", "--why", "bigger")[1]["tags"] == [
        "b",
        "golden",
    ]
    pair = ("sums@1.0.0", "sums@1.1.0")
    code, found = told("registry", "compare", *pair)
    assert code == 0 and found["suites"] == [] and "no statistics" in found["notes"][-1]
    code, found = told("registry", "compare", *pair, "--evaluation", new)
    (suite,) = found["suites"]
    assert suite["verdict"]["word"] == "better" and suite["num_items"] == 200
    assert (suite["first"], suite["second"]) == pytest.approx((0.4, 0.7))
    assert suite["p_value"] < 1e-3 and suite["verdict"]["gain"] == pytest.approx(0.3)
    assert found["versions"][0]["tags"] == ["b", "golden"]
    assert found["versions"][0]["metrics"] == {"sums/score": pytest.approx(0.4)}
    code, found = told("registry", "diff", *pair)
    assert code == 0 and sorted(found["files"]) == ["adapter_model.safetensors", "new.txt", "old.txt"]
    assert found["files"]["new.txt"]["before"] is None and found["files"]["old.txt"]["after"] is None
    assert found["config"] == {"train.learning_rate": {"before": 1e-4, "after": 2e-4}}
    assert sorted(found["ingredients"]) == ["dataset", "recipe"]
    for command in (
        ["compare", *pair, "--evaluation", str(new)],
        ["diff", *pair],
        ["diff", pair[0], pair[0]],
    ):
        assert run(["registry", *command]) == 0
        assert capsys.readouterr().out.strip()
    shutil.rmtree(old)
    assert "cannot be read" in told("registry", "compare", *pair, "--evaluation", new)[1]["notes"][0]
    assert told("registry", "compare", "sums@1.0.0", "sums@9.0.0")[0] == 5
    unrelated = evaluation(tmp_path / "e-other", "sha256:other", after)
    assert told("registry", "compare", *pair, "--evaluation", unrelated)[0] == 5


@pytest.mark.parametrize("change", ["golden", "+", "-", "+ ", "+a\nb", "+" + "x" * 101, "--registri"])
def test_what_is_no_tag(told: Told, adapters: list[Path], change: str) -> None:
    told("registry", "add", "sums", adapters[0], "--why", "x")
    code, error = told("registry", "tag", "sums@1.0.0", change)
    assert code == 2 and "no change of a tag" in error["error"]["what"]


@pytest.mark.whole
def test_what_is_withdrawn_is_told_and_no_fault(
    told: Told, adapters: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told("registry", "add", "sums", adapters[0], "--why", "first")
    code, found = told("registry", "tag", "sums@1.0.0", "+golden")
    assert code == 0 and found["changed"]
    assert told("registry", "tag", "sums@1.0.0", "+golden")[1]["changed"] is False
    code, found = told("registry", "tag", "sums@1.0.0", "-draft")
    assert code == 2 and "has no tag draft" in found["error"]["what"]
    assert [one["action"] for one in told("registry", "log", "sums")[1]["entries"]] == ["register", "tag"]
    (key,) = KeyRing().known()
    assert told("keys", "revoke", key.id, "--reason", "lost")[0] == 0
    assert told("registry", "audit")[0] == 5
    assert told("registry", "withdraw", "sums@1.0.0", "--why", " ")[0] == 2
    code, found = told("registry", "withdraw", "sums@1.0.0", "--why", "its key was lost")
    assert code == 0 and found["version"] == "1.0.0" and found["why"] == "its key was lost"
    code, found = told("registry", "audit")
    assert code == 0 and found["whole"] and found["withdrawn"][0]["why"] == "its key was lost"
    assert run(["registry", "audit"]) == 0
    assert "sums@1.0.0 was withdrawn 20" in capsys.readouterr().out
    assert run(["registry", "show", "sums"]) == 0
    assert "withdrawn" in capsys.readouterr().out
    (shown,) = told("registry", "show", "sums")[1]["versions"]
    assert shown["withdrawn"]["why"] == "its key was lost"
    for command in (
        ["promote", "sums@1.0.0", "--to", "dev", "--dry-run"],
        ["registry", "export", "sums@1.0.0", tmp_path / "x.tar"],
    ):
        code, found = told(*command)
        assert code == 5 and found["error"]["what"] == "sums@1.0.0 was withdrawn"
        assert "its key was lost" in found["error"]["why"]


@pytest.mark.whole
def test_a_version_moves_with_its_proof(told: Told, adapters: list[Path], tmp_path: Path) -> None:
    file, there = tmp_path / "sums.tar", ("--registry", tmp_path / "elsewhere")
    told("registry", "add", "sums", adapters[0], "--why", "first")
    told("registry", "add", "sums", adapters[1], "--why", "second")
    told("registry", "tag", "sums@1.1.0", "+golden")
    assert told("registry", "export", "sums@1.1.0", file)[0] == 0
    content = file.read_bytes()
    assert told("registry", "export", "sums@1.1.0", file)[0] == 2, "nothing is overwritten unasked"
    assert told("registry", "export", "sums@1.1.0", file, "--replace")[0] == 0
    assert file.read_bytes() == content, "no clock is in it"
    stranger = ("--ring", tmp_path / "ring-of-another")
    code, error = told("registry", "import", file, *there, *stranger)
    assert code == 5 and "key that nobody here knows" in error["error"]["what"]
    assert not (tmp_path / "elsewhere").exists()
    with tarfile.open(file) as tar:
        key = tar.extractfile("key.pem")
        assert key is not None
        (tmp_path / "their.pem").write_bytes(key.read())
    assert told("keys", "trust", "colleague", tmp_path / "their.pem", *stranger)[0] == 0
    code, found = told("registry", "import", file, *there, *stranger, "--why", "for the plant")
    assert code == 0 and found["version"] == "1.1.0"
    assert told("registry", "verify", "sums@1.1.0", *there, *stranger)[0] == 0
    _, shown = told("registry", "show", "sums", *there)
    assert [one["tags"] for one in shown["versions"]] == [["golden"]] and shown["aliases"] == {}
    (entry,) = told("registry", "log", "sums", *there)[1]["entries"]
    assert [one["action"] for one in entry["details"]["imported"]["entries"]] == ["register", "tag"]
    assert told("registry", "audit", *there, *stranger)[0] == 0
    assert told("registry", "import", file, *there, *stranger)[0] == 5, "it is there already"
    assert told("registry", "export", "sums@9.9.9", tmp_path / "x.tar")[0] == 5
    assert told("registry", "export", "sums@1.1.0", tmp_path / "none" / "x.tar")[0] == 4
    assert told("registry", "import", tmp_path / "none.tar")[0] == 2


def changed(file: Path, target: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> None:
    with tarfile.open(file) as source, tarfile.open(target, "w") as goal:
        for member in source:
            stream = source.extractfile(member)
            assert stream is not None
            found = change(member.name, stream.read())
            if found is not None:
                one = tarfile.TarInfo(found[0])
                one.size = len(found[1])
                goal.addfile(one, io.BytesIO(found[1]))


def odd_members() -> Iterator[tuple[str, tarfile.TarInfo]]:
    for name in (
        "../evil",
        "/evil",
        "bundle/../../evil",
        "bundle//x",
        "./key.pem",
        "evil",
        "key.pem",
        "bundle",
    ):
        yield name, tarfile.TarInfo(name)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
        one = tarfile.TarInfo("bundle/link")
        one.type, one.linkname = kind, "/etc/passwd"
        yield f"type {kind!r}", one


def test_what_was_tampered_with_is_not_taken(told: Told, adapters: list[Path], tmp_path: Path) -> None:
    file, bad = tmp_path / "sums.tar", tmp_path / "bad.tar"
    ring, goal = KeyRing(), Registry(tmp_path / "goal")
    told("registry", "add", "sums", adapters[0], "--why", "first")
    told("registry", "add", "sums", adapters[1], "--why", "second")
    told("registry", "export", "sums@1.0.0", file)
    outside = sorted(tmp_path.iterdir())
    with tarfile.open(file) as tar:
        names = tar.getnames()
    attempts: dict[str, Callable[[str, bytes], tuple[str, bytes] | None]] = {}
    for name in names:
        if name == "key.pem":
            continue  # it is for information, and proves nothing
        attempts[f"{name} is missing"] = lambda one, content, name=name: (
            None if one == name else (one, content)
        )
        attempts[f"{name} has one bit flipped"] = lambda one, content, name=name: (
            (one, bytes([content[0] ^ 1]) + content[1:]) if one == name else (one, content)
        )
    attempts["another name"] = lambda one, content: (
        (one, content.replace(b'"sums"', b'"../s"')) if one == "version.json" else (one, content)
    )
    attempts["another version"] = lambda one, content: (
        (one, content.replace(b"1.0.0", b"1.1.0")) if one == "version.json" else (one, content)
    )
    attempts["another format"] = lambda one, content: (
        (one, content.replace(b'"format": 1', b'"format": 9')) if one == "version.json" else (one, content)
    )
    assert len(attempts) >= 15
    for what, change in attempts.items():
        changed(file, bad, change)
        refused(goal, bad, ring, what)
    for what, member in odd_members():
        changed(file, bad, lambda one, content: (one, content))
        with tarfile.open(bad, "a") as tar:
            tar.addfile(member)
        refused(goal, bad, ring, what)
    for cut in (0, 100, 700, file.stat().st_size // 2):
        bad.write_bytes(file.read_bytes()[:cut])
        refused(goal, bad, ring, f"cut at {cut}")
    bad.unlink()
    assert sorted(tmp_path.iterdir()) == outside, "nothing was written beside it"


def forged(file: Path, target: Path, version: str, **details: object) -> None:
    """With a journal of its own, whose hashes agree."""
    with tarfile.open(file) as tar:
        stream = tar.extractfile("journal.jsonl")
        assert stream is not None
        found = json.loads(stream.read())
    found["details"] |= {"version": version, **details}
    contents = {"journal.jsonl": content_of(Entry(**found))}

    def change(name: str, content: bytes) -> tuple[str, bytes]:
        if name == "version.json":
            content = json.dumps({**json.loads(content), "version": version}).encode()
        return name, contents.get(name, content)

    changed(file, target, change)


def test_what_a_bundle_says_itself_is_not_taken_from_the_journal(
    told: Told, adapters: list[Path], tmp_path: Path
) -> None:
    """Nobody signs a journal: whoever has a signed bundle can write another one around it."""
    file, bad, ring = tmp_path / "sums.tar", tmp_path / "bad.tar", KeyRing()
    goal = Registry(tmp_path / "goal")
    made_from = told("registry", "add", "sums", adapters[0], "--why", "first")[1]["made_from"]
    told("registry", "export", "sums@1.0.0", file)
    for what in (
        {"evaluations": "abc"},
        {"evaluations": ["abc"]},
        {"evaluations": [{"digest": 1, "place": None}]},
        {"metrics": [1]},
        {"metrics": {"sums/score": "1"}},
        {"metrics": {"sums/score": True}},
        {"metrics": {"sums/score": 10**400}},
        {"tags": ["\x1b[2J"]},
        {"tags": 5},
    ):
        forged(file, bad, "9.9.9", **what)
        refused(goal, bad, ring, str(what))
    forged(file, bad, "9.9.9", subject="sha256:other", made_from={"base_model": "sha256:other", "note": "x"})
    _, found = import_version(goal, bad, ring, why="x")
    assert found.made_from == {**made_from, "note": "x"}
    assert found.entry.details["subject"] == digest_of(adapters[0])


def test_an_entry_with_odd_evidence_is_told(told: Told, adapters: list[Path], tmp_path: Path) -> None:
    for number, odd in enumerate(({"evaluations": "abc"}, {"metrics": "abc"})):
        registry = Registry(tmp_path / "home" / "registry")
        version = Version(1, number, 0)
        registry.register("sums", version, adapters[0], KeyRing(), made_from={}, why="x", details=odd)
        code, error = told("registry", "compare", f"sums@{version}", f"sums@{version}")
        assert code == 5 and f"has no {next(iter(odd))}" in error["error"]["what"]


def refused(goal: Registry, file: Path, ring: KeyRing, what: str) -> None:
    try:
        import_version(goal, file, ring, why="x")
    except PlatformError as error:
        assert error.exit_code in (2, 3, 5), what
    else:
        raise AssertionError(f"{what}: it was taken")
    assert goal.names() == [] and goal.orphans() == [], what
