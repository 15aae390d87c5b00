"""The scorer that runs code: right code gets 1, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest

from raytrain.errors import ConfigError
from raytrain.evaluation.sandbox import run
from raytrain.evaluation.sandbox.limits import Isolation
from raytrain.evaluation.sandbox.run import probe_isolation
from raytrain.evaluation.scoring.code import code_of
from raytrain.evaluation.scoring.registry import Score, build_scorer

pytestmark = pytest.mark.slow

TESTS = "assert add(2, 3) == 5\nassert add(-1, 1) == 0\n"
RIGHT = "def add(a, b):\n    return a + b\n"


def score(output: str, *references: str, **options: Any) -> Score:
    weaker = probe_isolation().level != "namespaces"
    return build_scorer("runs_tests", {"allow_weaker": weaker, **options})(output, references or (TESTS,))


@pytest.mark.parametrize(
    ("output", "value", "note"),
    [
        (RIGHT, 1.0, "pass"),
        (f"Sure, here it is:\n```python\n{RIGHT}```\nIt adds.", 1.0, "pass"),
        ("def add(a, b):\n    return a - b\n", 0.0, "AssertionError"),
        ("def add(a, b)\n", 0.0, "SyntaxError"),
        ("I cannot do that.", 0.0, "SyntaxError"),
        ("```json\n{}\n```", 0.0, "no code"),
        ("  \n", 0.0, "no code"),
        ("import sys; sys.exit(0)", 0.0, "ended before its tests"),
        ("import os; os._exit(0)", 0.0, "ended before its tests"),
        ("def add(a, b):\n    raise SystemExit(0)", 0.0, "ended its tests"),
        ("def add(a, b):\n    import os; os._exit(0)", 0.0, "ended before its tests"),
        ("print(input())", 0.0, "EOFError"),
        ("import os; os.write(int(os.environ['RAYTRAIN_REPORT']), b'passed')", 0.0, "NameError"),
        ("import builtins; builtins.exec = lambda *a: None", 0.0, "NameError"),
        ("import os; os.write = lambda *a: None\n" + RIGHT, 1.0, "pass"),
        ("import sys; add = lambda *a: sys.exit(0)", 0.0, "ended its tests"),
        ("from sys import exit\ndef add(a, b): exit()", 0.0, "ended its tests"),
        ("import sys; sys.exit = lambda *a: None; sys._getframe(1).f_globals['secret']", 0.0, "KeyError"),
        (RIGHT + "if __name__ == '__main__':\n    import sys; sys.exit(add(0, int(input())))", 1.0, "pass"),
        (f"1. So:\n   ```python\n   {RIGHT.replace(chr(10), chr(10) + '   ')}\n   ```", 1.0, "pass"),
        ("import socket; socket.create_connection(('192.0.2.1', 80), 1)\n" + RIGHT, 0.0, "Error"),
    ],
)
def test_what_gets_a_point(output: str, value: float, note: str) -> None:
    found = score(output)
    assert (found.value, note in found.note) == (value, True), found


def test_limits_are_told_of() -> None:
    assert score("while True: pass", timeout_s=0.5) == Score(0.0, "stopped: timeout")
    assert score("x = bytearray(10 ** 12)") == Score(0.0, "stopped: memory")


def test_any_reference_will_do_and_unittest_may_end_a_program() -> None:
    case = f"class T(unittest.TestCase):\n    def test(self): {TESTS.splitlines()[0]}\n"
    unit = f"import unittest\n{case}unittest.main()\n"
    assert score(RIGHT, "assert False", unit).value == 1.0
    assert score(RIGHT.replace("+", "-"), unit).value == 0.0
    assert score("from sys import exit as add", "assert add(0) == 1").value == 0.0
    posing = "exec(compile('def add(a, b): raise SystemExit', unittest.main.__init__.__code__.co_filename, 'exec'))"
    assert score(f"import unittest\n{posing}", f"# unittest\n{TESTS}").value == 0.0


def test_what_is_not_defended() -> None:
    """A walk over the frames finds the secret, and the tests' own tools may be replaced: the docs say so."""
    found = "sys._getframe(1).f_locals"
    forged = f"import os, sys\nos.write({found}['report'], {found}['secret'])\nos._exit(0)"
    assert score(forged).value == 1.0
    deaf = "import sys, unittest\nunittest.TestCase.run = lambda *a: None\nsys.exit = lambda code: None"
    case = "import unittest\nclass T(unittest.TestCase):\n    def test(self): assert add(1, 1) == 2\nunittest.main()"
    assert score(deaf, case).value == 1.0


def test_the_code_of_an_answer() -> None:
    assert code_of("x = 1") == "x = 1"
    assert (
        code_of("First\n```python\na = 1\n```\nthen\n~~~py\nb = 2\n~~~\nand\n```bash\nls\n```")
        == "a = 1\n\nb = 2\n"
    )
    assert code_of("```\na = 1\n```") == "a = 1\n"
    assert code_of("```python\na = 1") == "a = 1", "cut off at the longest answer"


def test_options_and_isolation_are_checked_before_anything_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match="cannot be used with") as caught:
        build_scorer("runs_tests", {"language": "cobol"})
    assert "there is python" in caught.value.why
    monkeypatch.setattr(run, "probe_isolation", lambda: Isolation("limits", True, ("none is given here",)))
    with pytest.raises(ConfigError) as caught:
        build_scorer("runs_tests")
    assert "none is given here" in caught.value.why
    assert build_scorer("runs_tests", {"allow_weaker": True})(RIGHT, [TESTS]).value == 1.0


def test_notes_are_no_commands_of_a_terminal() -> None:
    code = "import sys\nsys.stderr.write('\\x1b]0;owned\\x07\\x1b[2J')\nraise SystemExit(3)"
    note = build_scorer("runs_tests", {"allow_weaker": True})(code, ["assert True"]).note
    assert note and not any(ord(one) < 32 for one in note)
