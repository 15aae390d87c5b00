"""The tests of an instance, run in the sandbox."""

from __future__ import annotations

import functools
import json
import secrets
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raytrain.errors import ConfigError
from raytrain.evaluation.code.grading import TestRun, read_run
from raytrain.evaluation.sandbox.limits import Limits
from raytrain.evaluation.sandbox.run import require_isolation, run_isolated

# Nothing is imported from the repository before the runner allows it; -P would say so from Python 3.11 on.
_START = "import sys; sys.path[:] = filter(None, sys.path); exec(compile(sys.argv[1], 'runner', 'exec'))"
_RUNNER = Path(__file__).with_name("runner.py")


LIMITS = Limits(timeout_s=300.0, cpu_s=300, memory_mb=2048, num_processes=128, disk_mb=1024, output_mb=16.0)


@dataclass(frozen=True)
class TestSettings:
    """How tests are run, the same for all instances."""

    __test__ = False  # pytest would take it for one

    limits: Limits = LIMITS
    """Of one run of an instance's tests."""
    python: str = sys.executable
    """With pytest, and all that the repositories need to be imported: nothing is installed."""
    arguments: tuple[str, ...] = ()
    """More of them for pytest."""
    load_plugins: bool = False
    """Whether pytest loads every plugin that this Python has. One alone: the arguments -p NAME."""
    import_paths: tuple[str, ...] = (".", "src")
    """Folders of the repository that modules are imported from."""
    allow_weaker: bool = False
    """Whether to go on where this kernel gives no namespaces."""


def run_tests(folder: Path, tests: Sequence[str], settings: TestSettings) -> TestRun:
    """Run the files that these tests stand in. `folder` is given three tests more, which cannot pass.

    Raises ConfigError where no isolation is possible, or this Python has no pytest.
    """
    isolation = require_isolation(allow_weaker=settings.allow_weaker)
    readable = _prefixes(settings.python)
    secret, canaries = secrets.token_hex(16), _write_canaries(folder, tests[0])
    given = {
        "secret": secret,
        "canaries": canaries,
        "files": list(dict.fromkeys(one.partition("::")[0] for one in (*tests, *canaries))),
        "arguments": settings.arguments,
        "load_plugins": settings.load_plugins,
        "import_paths": settings.import_paths,
    }
    outcome = run_isolated(
        [settings.python, "-s", "-c", _START, _RUNNER.read_text(encoding="utf-8")],
        folder,
        settings.limits,
        isolation,
        stdin=json.dumps(given).encode(),
        readable=readable,
    )
    return read_run(outcome, secret, canaries)


CANARY_BLOCKS = 1
"""Of 4 KiB, on the sandbox's disk."""


def _write_canaries(folder: Path, beside: str) -> list[str]:
    """Three tests that cannot pass, beside a real one and with names that nobody knows: a patch that makes every test
    pass makes these pass too."""
    name, *tests = (f"test_{secrets.token_hex(4)}" for _ in range(4))
    place = Path(beside.partition("::")[0]).parent / f"{name}.py"
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text(_CANARIES.format(*tests))
    return [f"{place}::{one}" for one in (tests[0], tests[1], f"TestCase::{tests[2]}")]


_CANARIES = """
import unittest


def {}():
    assert [1] == [2]


def {}():
    raise ValueError("this test fails")


class TestCase(unittest.TestCase):
    def {}(self):
        self.assertEqual("a", "b")
"""


@functools.cache
def _prefixes(python: str) -> tuple[Path, ...]:
    """Where this Python and its packages lie. Raises ConfigError where it cannot run tests."""
    code = "import sys, pytest; print(sys.prefix, sys.base_prefix, sep='\\n')"
    command = [python, "-s", "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unusable(python, str(error)) from error
    found = done.stdout.splitlines()
    if done.returncode or len(found) != 2:
        raise _unusable(python, (done.stderr.strip().splitlines() or ["it is no Python"])[-1])
    return tuple(Path(one) for one in found)


def _unusable(python: str, why: str) -> ConfigError:
    return ConfigError(
        f"{python} cannot run the tests",
        why=why,
        fix="name a Python that has pytest: pip install pytest",
    )
