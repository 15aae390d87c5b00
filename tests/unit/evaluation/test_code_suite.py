"""Patches for the example repositories, run for real: honest ones, broken ones, and ones that cheat."""

from __future__ import annotations

import difflib
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raytrain.errors import ConfigError, DataError
from raytrain.evaluation.code.controls import check_controls
from raytrain.evaluation.code.examples import write_examples
from raytrain.evaluation.code.instances import Instance, Prediction, load_instances
from raytrain.evaluation.code.suite import Verdict, judge_patch, judge_prediction, record_of
from raytrain.evaluation.code.testing import LIMITS, TestSettings
from raytrain.evaluation.code.trees import PatchError, apply_patch, check_out, links_out_of, put_back
from raytrain.evaluation.records import RecordFolder
from raytrain.evaluation.sandbox import run
from raytrain.evaluation.sandbox.limits import Isolation
from raytrain.evaluation.sandbox.run import probe_isolation

pytestmark = pytest.mark.slow

SETTINGS = TestSettings(
    limits=replace(LIMITS, timeout_s=20.0, memory_mb=256, num_processes=32, disk_mb=64),
    allow_weaker=probe_isolation().level != "namespaces",
)
MODULE, TESTS = "src/intervals.py", "tests/test_intervals.py"
FIXED = "low <= merged[-1][1]"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example suite, made once."""
    folder = tmp_path_factory.mktemp("examples")
    write_examples(folder)
    return folder


@pytest.fixture(scope="module")
def instances(place: Path) -> dict[str, Instance]:
    return {one.repo.partition("/")[2]: one for one in load_instances(place / "instances.jsonl")}


@pytest.fixture
def intervals(instances: dict[str, Instance]) -> Instance:
    return instances["intervals"]


def some_slow(names: dict[str, Any], num_quick: int) -> list[Any]:
    """The first few always: each of them is a whole run of pytest."""
    quick = list(names)[:num_quick]
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def judge(place: Path, intervals: Instance) -> Any:
    """Judge a patch, given as what it makes of files: a text each, or None to remove it."""

    def judged(changes: dict[str, str | None], **settings: Any) -> Verdict:
        patch = patch_of(place / "repositories" / intervals.repo, intervals.base_commit, changes)
        return judge_patch(intervals, patch, place / "repositories", replace(SETTINGS, **settings))

    return judged


def patch_of(repository: Path, commit: str, changes: dict[str, str | None]) -> str:
    found = ""
    for name, text in changes.items():
        shown = subprocess.run(
            ["git", "show", f"{commit}:{name}"], cwd=repository, capture_output=True, text=True
        )
        before = shown.stdout if shown.returncode == 0 else None
        names = ("/dev/null" if before is None else f"a/{name}", "/dev/null" if text is None else f"b/{name}")
        lines = [(one or "").splitlines(keepends=True) for one in (before, text)]
        found += f"diff --git a/{name} b/{name}\n"
        found += "new file mode 100644\n" if before is None else ""
        found += "deleted file mode 100644\n" if text is None else ""
        found += "".join(difflib.unified_diff(*lines, *names))
    return found


def with_line(intervals: Instance, place: Path, line: str) -> str:
    """The module with its bug, and a line before it."""
    module = git(place / "repositories" / intervals.repo, "show", f"{intervals.base_commit}:{MODULE}")
    return f"{line}\n{module}"


def test_gold_resolves_all_and_no_patch_none_three_times_alike(place: Path) -> None:
    asked = load_instances(place / "instances.jsonl")
    controls = list(check_controls(asked, place / "repositories", SETTINGS, num_repeats=3, num_workers=2))
    assert [(one.num_gold, one.num_empty, one.num_repeats) for one in controls] == [(3, 0, 3)] * 3
    assert [one.faults for one in controls] == [()] * 3


@pytest.mark.slow
def test_an_instance_that_fails_its_controls_says_why(place: Path, intervals: Instance) -> None:
    """Gold that fixes nothing, tests that need no fix, are not there or never pass, a lost commit, bad patches."""
    never = intervals.test_patch.replace("== [(1, 3)]", "== [(1, 4)]")
    faulty = [
        replace(
            intervals,
            patch=intervals.patch.replace("+        if merged and low <=", "+        if merged and low <"),
        ),
        replace(intervals, fail_to_pass=(*intervals.fail_to_pass, intervals.pass_to_pass[0])),
        replace(intervals, pass_to_pass=("tests/test_intervals.py::test_gone",)),
        replace(intervals, test_patch=never),
        replace(intervals, base_commit="0" * 40),
        replace(intervals, patch="no diff"),
        replace(intervals, test_patch=intervals.test_patch.replace("test_length", "test_width")),
    ]
    controls = check_controls(faulty, place / "repositories", SETTINGS, num_repeats=1, num_workers=2)
    told = ["; ".join(one.faults) for one in controls]
    wanted = [
        "gold resolves it 0 times of 1: 1 of 1 not fixed",
        "test_apart is to fail before the fix, and passes",
        "test_gone is to pass before the fix, and is missing",
        "gold resolves it 0 times of 1: 1 of 1 not fixed",
        "has no commit",
        "it is no diff",
        "its test_patch cannot be applied",
    ]
    assert [one for one, text in zip(wanted, told, strict=True) if one not in text] == [], told


HONEST = {
    "people's own": ({MODULE: FIXED}, "resolved", ""),
    "another that does the same": ({MODULE: "low - merged[-1][1] <= 0"}, "resolved", ""),
    "one that breaks a test": ({MODULE: "True"}, "unresolved", "1 of 3 broken"),
    "one that fixes nothing": ({MODULE: "low  <  merged[-1][1]"}, "unresolved", "1 of 1 not fixed"),
    "one with a fault of syntax": (
        {MODULE: "low =< merged[-1][1]"},
        "unresolved",
        "1 of 1 not fixed; 3 of 3 broken",
    ),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_patches(judge: Any, place: Path, intervals: Instance, name: str) -> None:
    changes, status, note = HONEST[name]
    module = with_line(intervals, place, "").replace("low < merged[-1][1]", changes[MODULE])
    verdict = judge({MODULE: module.removeprefix("\n")})
    assert (verdict.status, note in verdict.note) == (status, True), verdict
    record = record_of(verdict)
    assert (record.score, record.group) == (float(status == "resolved"), "examples/intervals")


ALL_PASS = """
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    outcome.get_result().outcome = "passed"
"""
PATCHED_PYTEST = """
import _pytest.reports
_made = _pytest.reports.TestReport.from_item_and_call.__func__
def _forged(kind, item, call):
    report = _made(kind, item, call)
    report.outcome = "passed"
    return report
_pytest.reports.TestReport.from_item_and_call = classmethod(_forged)
"""
FORGED_LINES = """
import json, os
for phase in ("setup", "call", "teardown"):
    line = {"test": "tests/test_intervals.py::test_touching", "phase": phase, "status": "passed"}
    os.write(int(os.environ["RAYTRAIN_REPORT"]), b"0" * 32 + b" " + json.dumps(line).encode() + b"\\n")
print("4 passed")
"""
WEAKENED = (
    "def test_touching(): pass\ndef test_apart(): pass\ndef test_inside(): pass\ndef test_length(): pass\n"
)
CHEATS = {
    "a conftest.py": ({"conftest.py": ALL_PASS}, "unresolved", "put back: conftest.py"),
    "weaker tests": ({TESTS: WEAKENED}, "unresolved", "put back: tests/test_intervals.py"),
    "exit 0 at once": ("import os; os._exit(0)", "stopped", "did not come to their end: exit 0"),
    "pytest changed in memory": (PATCHED_PYTEST, "tampered", "tests that cannot pass"),
    "forged reports": (FORGED_LINES, "tampered", "not the runner's"),
    "a conftest.py beside the tests": ({"tests/conftest.py": ALL_PASS}, "unresolved", "put back"),
    "no tests": ({TESTS: None}, "unresolved", "put back"),
    "settings": ({"pytest.ini": "[pytest]\naddopts = -k nothing\n"}, "unresolved", "put back: pytest.ini"),
    "a start-up file": ({"sitecustomize.py": PATCHED_PYTEST, "pytest.py": ALL_PASS}, "unresolved", "1 of 1 not fixed"),
    "a plugin": (
        {
            "x.egg-info/entry_points.txt": "[pytest11]\nx = forge\n",
            "x.egg-info/PKG-INFO": "Name: x\n",
            "forge.py": ALL_PASS,
        },
        "unresolved",
        "1 of 1 not fixed",
    ),
    "exit 0": ("import sys; sys.exit(0)", "stopped", "did not come to their end: exit"),
    "an expected failure": ("import pytest; low = 0\ndef sorted(x): pytest.xfail()", "unresolved", "1 of 1 not fixed"),
    "a skip": ("import pytest; pytest.skip(allow_module_level=True)", "unresolved", "1 of 1 not fixed"),
    "a look into the history": (
        "import os; [os.rmdir(x) for x in [d + '/.git' for d in ('.', '..', '../..')] if os.path.exists(x)]\n"
        "assert not os.path.exists('.git'), 'found'",
        "unresolved",
        "1 of 1 not fixed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", some_slow(CHEATS, 5))
def test_cheats_gain_nothing(judge: Any, place: Path, intervals: Instance, name: str) -> None:
    changes, status, note = CHEATS[name]
    if isinstance(changes, str):
        changes = {MODULE: with_line(intervals, place, changes)}
    verdict = judge(changes)
    assert (verdict.status, note in verdict.note) == (status, True), verdict
    assert record_of(verdict).score == 0.0


AIMED = r"""
import json, os, re, sys
frame = sys._getframe()
while frame and "mark" not in frame.f_locals:
    frame = frame.f_back
if frame:
    known = frame.f_locals
    for file in known["files"]:
        text = open(file).read()
        for place, name in re.findall(r"^( *)def (test_\w+)", text, re.M):
            is_last = file == known["files"][-1]
            for phase in ("setup", "call", "teardown"):
                status = "failed" if is_last and phase == "call" else "passed"
                test = f"{file}::TestCase::{name}" if place else f"{file}::{name}"
                line = json.dumps({"test": test, "phase": phase, "status": status})
                os.write(known["report"], known["mark"] + b" " + line.encode() + b"\n")
    os.write(known["report"], known["mark"] + b' {"end": 1}\n')
    os._exit(1)
"""


@pytest.mark.slow
def test_what_is_not_defended_is_known(judge: Any, place: Path, intervals: Instance) -> None:
    """Code written against this very runner. Where this test fails, docs/code.md may promise more."""
    assert judge({MODULE: with_line(intervals, place, AIMED)}).status == "resolved"


HARM = {
    "an endless loop": ("while True: pass", "stopped: timeout"),
    "a fork bomb": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "stopped: processes",
    ),
    "a memory hog": ("x = []\nwhile True: x.append(bytearray(10 ** 6))", "stopped: memory"),
    "a flood of words": (
        "import os\nwhile True: os.write(2, bytes(10 ** 5))",
        "stopped: disk",
    ),  # pytest keeps them
    "the network": (
        "import socket; socket.create_connection(('192.0.2.1', 80), 5)",
        "1 of 1 not fixed; 3 of 3 broken",
    ),
}


@pytest.mark.parametrize("name", some_slow(HARM, 2))
def test_harm_is_contained_and_reported(judge: Any, place: Path, intervals: Instance, name: str) -> None:
    line, note = HARM[name]
    limits = replace(SETTINGS.limits, timeout_s=2.0 if "timeout" in note else 20.0)
    verdict = judge({MODULE: with_line(intervals, place, line)}, limits=limits)
    assert verdict.note.startswith(note), verdict
    assert not verdict.is_resolved


def test_writing_outside_leaves_no_trace(
    judge: Any, place: Path, intervals: Instance, tmp_path: Path
) -> None:
    repository = place / "repositories" / intervals.repo
    before = git(repository, "rev-parse", "HEAD") + git(repository, "status", "--porcelain")
    targets = [tmp_path / "new", repository / "new", Path("/etc/raytrain-was-here")]
    line = "\n".join(
        f"try: open({str(one)!r}, 'w')\nexcept OSError: pass"
        for one in targets
        if probe_isolation().level != "limits"
    )
    assert judge({MODULE: with_line(intervals, place, line).replace("low <", "low <=")}).is_resolved
    assert [one for one in targets if one.exists()] == []
    assert git(repository, "rev-parse", "HEAD") + git(repository, "status", "--porcelain") == before


LINK = (
    "diff --git a/{0} b/{0}\nnew file mode 120000\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+{1}\n"
    "\\ No newline at end of file\n"
)
BAD_PATCHES = {
    "garbage": ("I would change the comparison.", "not applied", "no diff"),
    "another file": (
        "--- a/nowhere.py\n+++ b/nowhere.py\n@@ -1 +1 @@\n-a\n+b\n",
        "not applied",
        "No such file",
    ),
    "cut off": (
        "--- a/src/intervals.py\n+++ b/src/intervals.py\n@@ -5,7 +5,7 @@\n     merged = []\n",
        "not applied",
        "",
    ),
    "a path that climbs": (
        "--- /dev/null\n+++ b/../../out.txt\n@@ -0,0 +1 @@\n+x\n",
        "refused",
        "../../out.txt",
    ),
    "an absolute path": ("--- /dev/null\n+++ /etc/out.txt\n@@ -0,0 +1 @@\n+x\n", "refused", "/etc/out.txt"),
    "git's own folder": ("--- /dev/null\n+++ b/.git/hooks/x\n@@ -0,0 +1 @@\n+x\n", "refused", ".git/hooks/x"),
    "a bomb": (
        "diff --git a/b.bin b/b.bin\nnew file mode 100644\nindex 0..1\nGIT binary patch\nliteral 99999999999\nzcmV\n",
        "refused",
        "unpack to 99999999999 bytes",
    ),
    "a link out": (LINK.format("src/link", "/etc"), "refused", "src/link"),
    "a link up": (LINK.format("src/link", "../../.."), "refused", "src/link"),
}


@pytest.mark.parametrize("name", BAD_PATCHES)
def test_patches_that_are_not_run(place: Path, intervals: Instance, name: str) -> None:
    patch, status, note = BAD_PATCHES[name]
    verdict = judge_patch(intervals, patch, place / "repositories", SETTINGS)
    assert (verdict.status, note in verdict.note, verdict.run) == (status, True, None), verdict
    assert verdict.measure is not None
    assert record_of(verdict).score == 0.0


def test_without_a_patch_nothing_is_run(place: Path, intervals: Instance) -> None:
    for prediction in (None, Prediction(intervals.instance_id, " \n", "model")):
        verdict = judge_prediction(intervals, prediction, place / "repositories", SETTINGS)
        assert (verdict.status, verdict.run, record_of(verdict).score) == ("empty", None, 0.0)


def test_a_patch_that_nearly_fits_is_applied_and_told_of(
    place: Path, intervals: Instance, tmp_path: Path
) -> None:
    repository = place / "repositories" / intervals.repo
    patch = intervals.patch.replace("     merged = []\n", "     merged = list()\n").removesuffix("\n")
    check_out(repository, intervals.base_commit, tmp_path / "tree")
    assert apply_patch(tmp_path / "tree", patch) == "with tolerance"
    assert FIXED in (tmp_path / "tree" / MODULE).read_text()
    with pytest.raises(PatchError):
        apply_patch(tmp_path / "tree", patch, is_exact=True)
    assert sorted(one.name for one in (tmp_path / "tree" / "src").iterdir()) == ["intervals.py"], (
        "no .orig, no .rej"
    )


def test_half_a_patch_is_none(place: Path, intervals: Instance, tmp_path: Path) -> None:
    """SWE-bench's second try leaves what fitted of it behind."""
    check_out(place / "repositories" / intervals.repo, intervals.base_commit, tmp_path / "tree")
    before = (tmp_path / "tree" / MODULE).read_bytes()
    with pytest.raises(PatchError):
        apply_patch(tmp_path / "tree", f"{intervals.patch}@@ -90,2 +90,2 @@\n nothing\n-of the\n+sort\n")
    assert (tmp_path / "tree" / MODULE).read_bytes() == before


def test_the_copy_is_whole_and_has_no_history(tmp_path: Path) -> None:
    """Also files that `git archive` leaves out: many projects mark their tests so."""
    repository = tmp_path / "repository"
    repository.mkdir()
    who = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    (repository / ".gitattributes").write_text("tests export-ignore\n")
    (repository / "tests").mkdir()
    (repository / "tests" / "run.sh").write_text("true\n")
    (repository / "tests" / "run.sh").chmod(0o755)
    (repository / "link").symlink_to("tests")
    git(repository, "init", "-q")
    git(repository, "add", "-A")
    git(repository, *who, "commit", "-qm", "one")
    check_out(repository, "HEAD", tmp_path / "tree")
    found = sorted(str(one.relative_to(tmp_path / "tree")) for one in (tmp_path / "tree").rglob("*"))
    assert found == [".gitattributes", "link", "tests", "tests/run.sh"]
    assert (tmp_path / "tree" / "tests" / "run.sh").stat().st_mode & 0o100
    assert git(repository, "status", "--porcelain") == ""
    for commit in ("f" * 40, "--help", "no such"):
        with pytest.raises(DataError, match="has no commit"):
            check_out(repository, commit, tmp_path / commit.replace(" ", "-"))
    (repository / "out").symlink_to("/etc")
    git(repository, "add", "-A")
    git(repository, *who, "commit", "-qm", "two")
    with pytest.raises(DataError, match="cannot be used"):
        check_out(repository, "HEAD", tmp_path / "another")


def test_putting_back_follows_no_link(tmp_path: Path) -> None:
    base, ours, outside = tmp_path / "base", tmp_path / "ours", tmp_path / "outside"
    for folder in (base / "tests", ours, outside):
        folder.mkdir(parents=True)
    (base / "tests" / "test_a.py").write_text("base")
    (ours / "tests").symlink_to(outside)
    (outside / "test_a.py").write_text("mine")
    put_back(ours, base, ["tests/test_a.py", "conftest.py"])
    assert (outside / "test_a.py").read_text() == "mine"
    assert (ours / "tests" / "test_a.py").read_text() == "base" and not (ours / "tests").is_symlink()


ONLY_MARKED = """
def pytest_collection_modifyitems(items):
    items[:] = [one for one in items if one.get_closest_marker("unit")]
"""
SELECTIVE = {
    "names": ({"pytest.ini": "[pytest]\npython_functions = check_*\npython_classes = C*\n"}, "def check_a()"),
    "marks": (
        {"pytest.ini": "[pytest]\naddopts = -m unit\nmarkers = unit\n"},
        "@pytest.mark.unit\ndef test_a()",
    ),
    "a conftest.py": ({"conftest.py": ONLY_MARKED}, "@pytest.mark.unit\ndef test_a()"),
}


@pytest.mark.parametrize("name", some_slow(SELECTIVE, 1))
def test_a_repository_that_selects_its_tests_can_be_judged(tmp_path: Path, name: str) -> None:
    files, test = SELECTIVE[name]
    text = f"import pytest\nfrom m import x\n\n{test}:\n    assert x == 2\n"
    repository = tmp_path / "o" / "n"
    repository.mkdir(parents=True)
    for file, content in {"m.py": "x = 1\n", "test_m.py": text, **files}.items():
        (repository / file).write_text(content)
    git(repository, "init", "-q")
    git(repository, "add", "-A")
    git(repository, "-c", "user.name=a", "-c", "user.email=a@b.invalid", "commit", "-qm", "one")
    patch = "--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
    tests = (f"test_m.py::{test.rpartition('def ')[2].removesuffix('()')}",)
    instance = Instance(
        "o__n-1", "o/n", git(repository, "rev-parse", "HEAD").strip(), "", patch, "", tests, ()
    )
    assert judge_patch(instance, patch, tmp_path, SETTINGS).status == "resolved"
    wrong = patch.replace("x = 2", "x = 3")
    assert judge_patch(instance, wrong, tmp_path, SETTINGS).note == "1 of 1 not fixed"


def test_links_are_followed_through_links(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "in").symlink_to("a/b")
    (folder / "a" / "b" / "l").symlink_to("../..")
    (folder / "out").symlink_to("in/l/../secret")  # as it is written, in/secret
    assert links_out_of(folder) == ["out"]


def test_it_lies_beside_gold(judge: Any, place: Path, intervals: Instance) -> None:
    module = with_line(intervals, place, "").removeprefix("\n")
    fixed = module.replace("low < merged[-1][1]", FIXED)
    same = judge({MODULE: fixed.replace("    merged = []\n", "    merged = []  # none yet\n\n")})
    assert (same.status, same.equivalence) == ("resolved", "same code")
    assert same.measure is not None and (same.measure.num_lines, same.measure.num_gold_lines) == (5, 2)


def test_records_are_kept_and_compared_by(place: Path, intervals: Instance, tmp_path: Path) -> None:
    verdict = judge_patch(intervals, intervals.patch, place / "repositories", SETTINGS)
    record = record_of(verdict)
    RecordFolder(tmp_path / "records").append([record])
    assert RecordFolder(tmp_path / "records").read()[0] == {intervals.instance_id: record}
    assert record.item_digest == replace(intervals, repo_path="elsewhere").digest()
    assert record.item_digest != replace(intervals, fail_to_pass=("other",)).digest()


def test_the_examples_are_the_same_each_time(place: Path, tmp_path: Path) -> None:
    assert write_examples(tmp_path).read_bytes() == (place / "instances.jsonl").read_bytes()
    assert json.loads((tmp_path / "gold.jsonl").read_text().splitlines()[0])["model_name_or_path"] == "gold"


def test_weaker_isolation_is_never_silent(
    place: Path, intervals: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = Isolation("limits", True, ("no namespaces here",))
    monkeypatch.setattr(run, "probe_isolation", lambda: weak)
    with pytest.raises(ConfigError, match="cannot wall a command off"):
        judge_patch(intervals, intervals.patch, place / "repositories", replace(SETTINGS, allow_weaker=False))
    allowed = replace(SETTINGS, allow_weaker=True)
    assert judge_patch(intervals, intervals.patch, place / "repositories", allowed).is_resolved


def test_a_python_without_pytest_is_refused_before_anything_is_run(place: Path, intervals: Instance) -> None:
    for python in ("/no/such/python", "/bin/true"):
        with pytest.raises(ConfigError, match="cannot run the tests"):
            judge_patch(intervals, intervals.patch, place / "repositories", replace(SETTINGS, python=python))
