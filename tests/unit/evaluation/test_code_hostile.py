"""Patches against raytrain itself: before any test of theirs is run, they reach nothing of the machine."""

from __future__ import annotations

import base64
import hashlib
import tempfile
import zlib
from pathlib import Path

import pytest

from raytrain.evaluation.code import trees
from raytrain.evaluation.code.examples import write_examples
from raytrain.evaluation.code.instances import Instance, load_instances, locate_repository
from raytrain.evaluation.code.patches import facts_of
from raytrain.evaluation.code.suite import Verdict, judge_patch
from raytrain.evaluation.code.testing import TestSettings
from raytrain.evaluation.code.trees import PatchError, apply_patch, blocks_of, check_out
from raytrain.evaluation.sandbox.limits import Limits

pytestmark = pytest.mark.whole

BIG = b"x = 1\n" * 200_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_examples(tmp_path_factory.mktemp("examples")).parent


@pytest.fixture(scope="module")
def slugs(place: Path) -> Instance:
    return next(one for one in load_instances(place / "instances.jsonl") if "slugs" in one.instance_id)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "m.txt").write_bytes(BIG)
    return tmp_path / "tree"


def judged(place: Path, instance: Instance, patch: str, disk_mb: int = 256) -> Verdict:
    return judge_patch(instance, patch, place / "repositories", TestSettings(limits=Limits(disk_mb=disk_mb)))


def new_file(name: str, content: str) -> str:
    lines = content.splitlines()
    added = "".join(f"+{line}\n" for line in lines)
    return f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n{added}"


def repository(command: str, put: str) -> str:
    """A repository whose filter runs a command; `put` names a file where GNU patch alone looks."""
    config = f'[core]\n\trepositoryformatversion = 0\n[filter "e"]\n\tclean = "{command}; cat"'
    files = {"config": config, "HEAD": "ref: refs/heads/main", "objects/x": "x", "refs/x": "x"}
    made = [
        put.format(f".git/{name}") + new_file("x", text).replace("+++ b/x", "+++ /dev/null")
        for name, text in files.items()
    ]
    return "".join(made) + new_file(".gitattributes", "* filter=e")


@pytest.mark.parametrize(
    "put", ["Index: a/{}\n", "  Index: a/{}\n", "\x0cx\nindex: a/{}\n", "Prereq: 1\nIndex: a/{}\n"]
)
def test_no_command_of_a_patch_is_run_outside(place: Path, slugs: Instance, tmp_path: Path, put: str) -> None:
    marker = tmp_path / "owned"
    inexact = slugs.patch.replace('"""Lower case', '"""LOWER CASE')  # git refuses it, GNU patch does not
    assert inexact != slugs.patch
    verdict = judged(place, slugs, inexact + repository(f"id > {marker}", put))
    assert verdict.status in ("refused", "not applied") and not marker.exists(), verdict


def test_git_takes_no_repository_for_its_own(tmp_path: Path) -> None:
    """Even where all that is before it should fail."""
    folder, marker = tmp_path / "tree", tmp_path / "owned"
    for name, text in {
        ".git/config": f'[core]\n\trepositoryformatversion = 0\n[filter "e"]\n\tclean = "id > {marker}; cat"\n',
        ".git/HEAD": "ref: refs/heads/main\n",
        ".git/objects/x": "",
        ".git/refs/x": "",
        ".gitattributes": "* filter=e\n",
        "m.py": "a\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with pytest.raises(PatchError, match="repository") as caught:
        apply_patch(folder, "--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-a\n+b\n", is_exact=True)
    assert caught.value.is_unsafe and not marker.exists() and (folder / "m.py").read_text() == "b\n"


def test_a_patch_does_what_it_says(place: Path, slugs: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    applied = trees._apply_with_fuzz

    def also_another(folder: Path, *arguments: object) -> None:
        applied(folder, *arguments)  # type: ignore[arg-type]
        (folder / "unsaid.py").write_text("")

    monkeypatch.setattr(trees, "_apply_with_fuzz", also_another)
    verdict = judged(place, slugs, slugs.patch.replace('"""Lower case', '"""LOWER CASE'))
    assert (verdict.status, "unsaid.py" in verdict.note) == ("refused", True), verdict


def copies(number: int) -> str:
    one = "diff --git a/m.txt b/n{0}.txt\nsimilarity index 100%\ncopy from m.txt\ncopy to n{0}.txt\n"
    return "".join(one.format(i) for i in range(number))


def delta(times: int) -> str:
    """The old content again and again, in git's binary format."""

    def size(number: int) -> bytes:
        return size(number >> 7).join((bytes([number & 127 | 128]), b"")) if number > 127 else bytes([number])

    def name(content: bytes) -> str:
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    told = size(len(BIG)) + size(len(BIG) * times) + (b"\xf0" + len(BIG).to_bytes(3, "little")) * times
    packed = zlib.compress(told, 9)
    assert len(packed) <= 52
    letter = chr(64 + len(packed)) if len(packed) <= 26 else chr(70 + len(packed))
    line = letter + base64.b85encode(packed + b"\0" * (-len(packed) % 4)).decode()
    index = f"index {name(BIG)}..{name(BIG * times)} 100644"
    return f"diff --git a/m.txt b/m.txt\n{index}\nGIT binary patch\ndelta {len(told)}\n{line}\n\n"


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        (copies(120), "120 copies"),
        (new_file("n.txt", "x") + "@@ -1,999 +1,999 @@\n" + copies(120), "120 copies"),
        (delta(20), "binary delta"),
        ("".join(new_file(f"{'d/' * 90}{i}", "") for i in range(600)), "too deep or too many"),
        (new_file("a/" * 1500 + "x.py", "x"), "too deep or too many"),
    ],
)
def test_a_small_patch_fills_no_disk(tree: Path, patch: str, why: str) -> None:
    with pytest.raises(PatchError, match=why) as caught:
        apply_patch(tree, patch)
    assert caught.value.is_unsafe and sum(one.stat().st_size for one in tree.iterdir()) == len(BIG)


def test_copies_and_test_data_are_applied(tree: Path) -> None:
    assert apply_patch(tree, copies(3)) == "strictly"
    assert apply_patch(tree, delta(2), is_exact=True) == "strictly"
    assert (tree / "m.txt").stat().st_size == 2 * len(BIG)


@pytest.mark.parametrize(
    ("patch", "status"),
    [
        ("--- a/slugs.py\n+++ b/slugs.py\n@@ -1 +1 @@\n-x\n+\ud83d\n", "not applied"),
        ('--- "a/\\xZ"\n', "not applied"),
        ('+++ "b/foo\\"\n', "not applied"),
        (f"--- a/slugs.py\n+++ b/slugs.py\n@@ -1,{'9' * 5000} +1 @@\n-x\n", "not applied"),
        (new_file("a/" * 1500 + "x.py", "x"), "refused"),
        (new_file("a\0b.py", "x"), "refused"),
        ("".join(new_file(f"{i}", "x") for i in range(300)), "refused"),
    ],
)
def test_a_malformed_patch_is_a_verdict(
    place: Path, slugs: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patch: str, status: str
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    verdict = judged(place, slugs, patch, disk_mb=1)
    assert verdict.status == status and verdict.note, verdict
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("to_spare", range(-1, 8))
def test_files_up_to_the_last_are_a_verdict(
    place: Path, slugs: Instance, tmp_path: Path, to_spare: int
) -> None:
    """As many empty files as the disk holds, more or less: never an end of the whole evaluation."""
    check_out(locate_repository(slugs, place / "repositories"), slugs.base_commit, tmp_path / "base")
    number = 256 - blocks_of(tmp_path / "base") - to_spare
    made = "".join(
        f"diff --git a/{i}.txt b/{i}.txt\nnew file mode 100644\nindex 0000000..e69de29\n"
        for i in range(number)
    )
    verdict = judged(place, slugs, made, disk_mb=1)
    assert verdict.status in ("refused", "stopped", "unresolved"), verdict
    if to_spare <= 0:
        assert "larger than the sandbox's" in verdict.note


def test_git_without_end_is_a_verdict(place: Path, slugs: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = trees._apply_with_fuzz
    monkeypatch.setattr(
        trees, "_apply_with_fuzz", lambda *a: monkeypatch.setattr(trees, "_GIT_S", 1e-6) or ours(*a)
    )
    verdict = judged(place, slugs, slugs.patch.replace('"""Lower case', '"""LOWER CASE'))
    assert (verdict.status, "timed out" in verdict.note) == ("not applied", True), verdict


def test_a_line_ends_where_git_ends_it() -> None:
    patch = "--- a/m.py\n+++ b/m.py\n@@ -1,3 +1,3 @@\n a\n \x0c\x85\u2028\n-b\n+c\n--- a/n.py\n+++ b/n.py\n"
    facts = facts_of(patch)
    assert (set(facts.files), facts.added, facts.removed) == ({"m.py", "n.py"}, ("c",), ("b",))
