"""What is decided about patches and reports, as tables: nothing is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raytrain.errors import DataError
from raytrain.evaluation.code.controls import control_faults
from raytrain.evaluation.code.equivalence import behave_alike, compare_contents
from raytrain.evaluation.code.grading import TestRun, grade, read_run
from raytrain.evaluation.code.instances import (
    Instance,
    load_instances,
    load_predictions,
    locate_repository,
    predictions_for,
)
from raytrain.evaluation.code.patches import binary_bytes, facts_of, measure, to_restore, unsafe_paths
from raytrain.evaluation.code.suite import Verdict
from raytrain.evaluation.sandbox.limits import Isolation, Outcome
from raytrain.evaluation.sandbox.words import printable

ROW = {
    "instance_id": "a__b-1",
    "repo": "a/b",
    "base_commit": "c" * 40,
    "problem_statement": "It is wrong.",
    "patch": "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n",
    "test_patch": "",
    "FAIL_TO_PASS": '["t.py::a", "t.py::a"]',
    "PASS_TO_PASS": ["t.py::b"],
    "version": "1.0",
}
INSTANCE = Instance("a__b-1", "a/b", "c" * 40, "It is wrong.", ROW["patch"], "", ("t.py::a",), ("t.py::b",))  # type: ignore[arg-type]


def written(folder: Path, content: Any, *, lines: bool = False) -> Path:
    text = "".join(f"{json.dumps(one)}\n\n" for one in content) if lines else json.dumps(content)
    (folder / "rows").write_text(content if isinstance(content, str) else text)
    return folder / "rows"


def test_instances_in_each_form(tmp_path: Path) -> None:
    assert load_instances(written(tmp_path, [ROW])) == [INSTANCE]
    assert load_instances(written(tmp_path, [ROW, {**ROW, "instance_id": "2"}], lines=True))[0] == INSTANCE
    assert load_instances(written(tmp_path, [ROW], lines=True)) == [INSTANCE], "one line is a whole file too"


def test_a_line_of_a_file_ends_at_its_end(tmp_path: Path) -> None:
    """JSON may hold U+2028 and U+0085 as they are."""
    rows = [{**ROW, "problem_statement": "a\u2028b\x85c"}, {**ROW, "instance_id": "2"}]
    (tmp_path / "rows").write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in rows), "utf-8")
    assert load_instances(tmp_path / "rows")[0].problem_statement == "a\u2028b\x85c"


def test_words_are_no_commands() -> None:
    assert (
        printable("\x1b]0;owned\x07 a\tb\nä \x9b2J \ud83d\r")
        == "\ufffd]0;owned\ufffd a\tb\nä \ufffd2J \ufffd\ufffd"
    )
    outcome = Outcome("ok", 1, "", "\x1b[2J", b"", 1.0, 1, Isolation("namespaces", True))
    assert "\x1b" not in str(read_run(outcome, "key", ["c"]).fault)


def test_predictions_in_each_form(tmp_path: Path) -> None:
    rows = [{"instance_id": "a__b-1", "model_patch": "p", "model_name_or_path": "m"}]
    for path in (
        written(tmp_path, rows),
        written(tmp_path, rows, lines=True),
        written(tmp_path, {"a__b-1": {"model_patch": "p", "model_name_or_path": "m"}}),
    ):
        (found,) = load_predictions(path)
        assert (found.instance_id, found.model_patch, found.model_name_or_path) == ("a__b-1", "p", "m")
    assert (
        load_predictions(written(tmp_path, [{"instance_id": "x", "model_patch": None}]))[0].model_patch == ""
    )
    with pytest.raises(DataError, match="are for no instance: x"):
        predictions_for([INSTANCE], load_predictions(tmp_path / "rows"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it is empty"),
        ("{", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ([1], "it is no object"),
        ("null", "it is no object"),
        ([{**ROW, "patch": None}], "`patch` is missing"),
        ([{**ROW, "base_commit": 7}], "`base_commit` is no text"),
        ([{**ROW, "FAIL_TO_PASS": "t.py::a"}], "`FAIL_TO_PASS` is no list"),
        ([{**ROW, "FAIL_TO_PASS": ["test_a (tests.T)"]}], "no test as pytest names them"),
        ([{**ROW, "PASS_TO_PASS": ["test_mod_inverse"]}], "no test as pytest names them"),
        ([{**ROW, "patch": '--- "a/\\xZ"\n'}], "`patch` cannot be read"),
        ([{**ROW, "FAIL_TO_PASS": [1]}], "`FAIL_TO_PASS` is no list"),
        ([{**ROW, "FAIL_TO_PASS": []}], "names no test"),
        ([{key: value for key, value in ROW.items() if key != "FAIL_TO_PASS"}], "names no test"),
        ([ROW, ROW], "each instance counts once"),
    ],
)
def test_garbage_is_refused_with_its_place(tmp_path: Path, content: Any, why: str) -> None:
    with pytest.raises(DataError) as caught:
        load_instances(written(tmp_path, content))
    assert why in caught.value.why and str(tmp_path) in caught.value.what and caught.value.fix
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        load_instances(tmp_path / "binary")
    with pytest.raises(DataError, match="there is no file"):
        load_instances(tmp_path / "nowhere")


@pytest.mark.parametrize("place", ["a/b", "a__b", "b", "a/b.git"])
def test_where_a_repository_may_lie(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(DataError, match="there is no repository a/b") as caught:
        locate_repository(INSTANCE, tmp_path)
    assert str(tmp_path / "a/b") in caught.value.why
    (tmp_path / place / "HEAD").write_text("ref: refs/heads/main\n")
    assert locate_repository(INSTANCE, tmp_path) == tmp_path / place


PATCH = """diff --git a/src/x.py b/src/x.py
--- a/src/x.py
+++ b/src/x.py
@@ -1,3 +1,3 @@
 same
--- a/no/header
+++ b/no/header
 same
diff --git a/old name.py b/new name.py
rename from old name.py
rename to new name.py
diff --git a/mode.sh b/mode.sh
old mode 100644
new mode 100755
diff --git "a/\\303\\244.py" "b/\\303\\244.py"
--- "a/\\303\\244.py"
+++ /dev/null
@@ -1 +0,0 @@
-gone
\\ No newline at end of file
"""


def test_what_a_patch_changes() -> None:
    facts = facts_of(PATCH)
    assert facts.files == {"src/x.py", "old name.py", "new name.py", "mode.sh", "ä.py"}
    assert facts.removed == ("-- a/no/header", "gone") and facts.added == ("++ b/no/header",)
    assert facts_of("prose, and no diff").files == frozenset()
    assert unsafe_paths(["a/../../b", "/etc/x", ".git/config", "x/.GIT/y", "a..b", ".github/x"]) == [
        ".git/config", "/etc/x", "a/../../b", "x/.GIT/y",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "gold", "restored"),
    [
        (["src/x.py"], ["src/x.py"], []),
        (["src/x.py", "conftest.py", "a/b/conftest.py"], [], ["a/b/conftest.py", "conftest.py"]),
        (["pyproject.toml", "setup.cfg"], ["setup.cfg"], ["pyproject.toml"]),
        (["checks/t.py", "checks/other.py"], [], ["checks/t.py"]),
        (
            ["tests/helper.py", "pkg/testing/x.py", "contests/x.py"],
            [],
            ["pkg/testing/x.py", "tests/helper.py"],
        ),
        (["pkg/testing/x.py"], ["pkg/testing/x.py"], []),
    ],
)
def test_which_files_are_put_back(changed: list[str], gold: list[str], restored: list[str]) -> None:
    assert to_restore(changed, gold, ["checks/t.py::test_a[x::y]"]) == restored


def test_what_a_binary_patch_unpacks_to() -> None:
    assert (
        binary_bytes("GIT binary patch\nliteral 10000000000\nzcmV\n\nliteral \t+7 more\nabc\n")
        == 10_000_000_007
    )
    assert binary_bytes("GIT binary patch\nliteral x\n") > 10**14, "what cannot be read is without end"
    assert binary_bytes(f"GIT binary patch\nliteral {'0' * 20}99\n") == 99
    assert binary_bytes("literal 10000000000\n") == 0, "a word of somebody's"


def test_how_much_a_patch_changes() -> None:
    gold = ROW["patch"]
    assert isinstance(gold, str)
    same = measure(gold, gold)
    assert (same.ratio, same.similarity, same.num_files_beyond_gold) == (1.0, 1.0, 0)
    more = measure(gold + "--- /dev/null\n+++ b/y.py\n@@ -0,0 +1,2 @@\n+c\n+d\n", gold)
    assert (more.num_lines, more.ratio, more.num_files, more.num_files_beyond_gold) == (4, 2.0, 2, 1)
    assert more.similarity == pytest.approx(2 * 2 / 6)
    assert measure(gold.replace("+b", "+    b"), gold).similarity == 1.0
    assert measure("nothing", gold).num_lines == 0


@pytest.mark.parametrize(
    ("left", "right", "name", "found"),
    [
        (b"x = 1\n", b"x = 1\n", "a.py", "identical"),
        (b"x = 1\n", b"x  =  (1)  # one\n\n", "a.py", "same code"),
        (b"x = 1\n", b"x = 2\n", "a.py", "different"),
        (b"if x:\n  y\n  z\n", b"if x:\n  y\nz\n", "a.py", "different"),
        (b"x = '#1'\n", b"x = '#2'\n", "a.py", "different"),
        (b"a  \nb\n\n", b"a\nb", "a.txt", "same code"),
        (b"a\n", b" a\n", "a.txt", "different"),
        (b"x = \n", b"x =  \n", "a.py", "same code"),
        (b"", None, "a.py", "different"),
        (None, None, "a.py", "identical"),
    ],
)
def test_what_is_the_same_code(left: bytes | None, right: bytes | None, name: str, found: str) -> None:
    assert compare_contents(left, right, name) == compare_contents(right, left, name) == found


def ran(**statuses: Any) -> TestRun:
    return TestRun({f"t.py::{name}": status for name, status in statuses.items()}, None)


@pytest.mark.parametrize(
    ("run", "is_resolved"),
    [
        (ran(a="passed", b="passed"), True),
        (ran(a="passed", b="xfailed"), True),
        (ran(a="passed", b="xpassed"), False),
        (ran(a="passed", b="skipped"), False),
        (ran(a="passed"), False),
        (ran(a="passed", b="failed"), False),
        (ran(a="error", b="passed"), False),
        (ran(), False),
        (TestRun({"t.py::a": "passed", "t.py::b": "passed"}, "stopped: timeout"), False),
    ],
)
def test_resolved_is_all_fixed_and_none_broken(run: TestRun, is_resolved: bool) -> None:
    found = grade(INSTANCE.fail_to_pass, INSTANCE.pass_to_pass, run)
    assert found.is_resolved is is_resolved
    assert (not found.not_fixed and not found.broken and not found.fault) is is_resolved


def test_ids_that_swe_bench_cuts() -> None:
    run = TestRun({"t.py::a[x y]": "passed", "t.py::a[x z]": "failed", "t.py::a[v w]": "passed"}, None)
    assert [run.of(one) for one in ("t.py::a[x", "t.py::a[v", "t.py::a", "t.py::a[x]")] == [
        "failed", "passed", "missing", "missing",
    ]  # fmt: skip


def reported(*lines: Any, reason: Any = "ok", exit_code: int = 1) -> TestRun:
    told = b"".join(
        one if isinstance(one, bytes) else b"key " + json.dumps(one).encode() + b"\n" for one in lines
    )
    outcome = Outcome(reason, exit_code, "", "last words", told, 1.0, 1, Isolation("namespaces", True))
    return read_run(outcome, "key", ["canary.py::c"])


def phases(
    test: str, setup: str = "passed", call: str = "passed", teardown: str = "passed"
) -> list[dict[str, str]]:
    found = {"setup": setup, "call": call, "teardown": teardown}
    return [{"test": test, "phase": phase, "status": status} for phase, status in found.items() if status]


CANARY, END = phases("canary.py::c", call="failed"), {"end": 1}


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (phases("a"), "passed"),
        (phases("a", call="failed"), "failed"),
        (phases("a", setup="failed", call=""), "error"),
        (phases("a", teardown="failed"), "error"),
        (phases("a", setup="skipped", call=""), "skipped"),
        (phases("a", call="xfailed"), "xfailed"),
        (phases("a", call="", teardown=""), "error"),
        (phases("a") + phases("a", call="failed"), "failed"),
        (phases("a", call="failed") + phases("a"), "failed"),
    ],
)
def test_what_the_phases_of_a_test_come_to(lines: list[Any], status: str) -> None:
    run = reported(*lines, *CANARY, END)
    assert (run.of("a"), run.fault, run.of("b")) == (status, None, "missing")
    assert "canary.py::c" not in run.statuses


@pytest.mark.parametrize(
    ("lines", "options", "fault", "is_tampered"),
    [
        ([*phases("a"), *CANARY], {}, "did not come to their end: exit 1, last words", False),
        ([*phases("a"), END], {}, "settings deselect the tests that cannot pass", False),
        ([*phases("a"), END], {"exit_code": 2}, "did not come to their end", False),
        ([END], {}, "did not come to their end", False),
        ([*phases("a"), *phases("canary.py::c"), END], {}, "tests that cannot pass", True),
        ([*phases("a"), *CANARY, b"forged {}\n", END], {}, "not the runner's", True),
        ([*phases("a"), *CANARY, b"key {\n", END], {}, "not the runner's", True),
        ([*phases("a"), *CANARY, b'key {"test": "b"}\n', END], {}, "not the runner's", True),
        ([*phases("a", call="perfect"), *phases("a"), *CANARY, END], {}, "not the runner's", True),
        ([*phases("a"), *CANARY, END], {"reason": "timeout"}, "stopped: timeout", False),
    ],
)
def test_a_run_that_counts_for_nothing(lines: list[Any], options: Any, fault: str, is_tampered: bool) -> None:
    run = reported(*lines, **options)
    assert run.fault is not None and fault in run.fault
    assert run.is_tampered is is_tampered


def test_runs_that_behave_alike() -> None:
    assert behave_alike(ran(a="passed", x="failed"), ran(a="passed", x="failed"))
    assert not behave_alike(ran(a="passed", x="failed"), ran(a="passed"))
    assert not behave_alike(TestRun({}, "stopped: timeout"), TestRun({}, "stopped: timeout"))


def verdicts(*runs: TestRun) -> list[Verdict]:
    resolved = [grade(INSTANCE.fail_to_pass, INSTANCE.pass_to_pass, one).is_resolved for one in runs]
    statuses: list[Any] = ["resolved" if one else "unresolved" for one in resolved]
    return [Verdict(INSTANCE, "", status, "", run=one) for status, one in zip(statuses, runs, strict=True)]


GOOD, BAD = ran(a="passed", b="passed"), ran(a="failed", b="passed")


@pytest.mark.parametrize(
    ("gold", "empty", "told"),
    [
        ([GOOD] * 3, [BAD] * 3, []),
        (
            [GOOD, BAD, GOOD],
            [BAD] * 3,
            ["gold resolves it 2 times of 3", "t.py::a is now failed and now passed"],
        ),
        (
            [GOOD] * 3,
            [BAD, GOOD, BAD],
            ["the empty patch resolves it 1 times of 3", "with the empty patch, t.py::a"],
        ),
        ([GOOD] * 3, [ran(a="failed")] * 3, ["t.py::b is to pass before the fix, and is missing"]),
        (
            [GOOD] * 3,
            [ran(a="passed", b="failed")] * 3,
            ["t.py::a is to fail before", "t.py::b is to pass before"],
        ),
        ([GOOD] * 3, [TestRun({}, "stopped: timeout")] * 3, ["without a patch: stopped: timeout"]),
    ],
)
def test_what_is_wrong_with_an_instance(gold: list[TestRun], empty: list[TestRun], told: list[str]) -> None:
    faults = control_faults(INSTANCE, verdicts(*gold), verdicts(*empty))
    assert len(faults) == len(told), faults
    assert all(wanted in fault for wanted, fault in zip(told, faults, strict=True)), faults
