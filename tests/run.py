"""`make test`: unit tests (no Ray; `make unit` runs these alone), the slow ones of them, then integration tests (real
Ray), all without what is `thorough` (`make thorough`); their coverage, counted only as far as it takes to reach the
floors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
MIN_LINE_PERCENT = 85.0
MIN_BRANCH_PERCENT = 75.0


NUM_CORES = os.cpu_count() or 1
# A file stays in one process, for its module's fixtures.
SIDE_BY_SIDE = ("-n", str(NUM_CORES), "--dist", "loadfile")
# Here one or the other waits: for a server that does not answer, or for processes of its own.
ONE_MORE = ("-n", str(NUM_CORES + 1), "--dist", "loadfile")
# Each test starts several processes, most of which wait for one another; in the order of tests/integration/conftest.py.
TWO_AT_A_TIME = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
COVERED = ("--cov", "--cov-report=")


def run(name: str, place: str, *arguments: str) -> int:
    started = time.monotonic()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COVERAGE_FILE": str(ROOT / f".coverage.{name}")}
    command = [sys.executable, "-m", "pytest", place, "--durations=25", *arguments]
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    print(f"{name} tests: {time.monotonic() - started:.0f} s, exit {code}", flush=True)
    return code


def coverage_is_enough() -> bool:
    """Print line and branch coverage of raytrain/ by all phases so far, and compare them with the floors."""
    # Both commands join the phases' files themselves, and delete them unless told to keep them for the next call.
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run(
        [*coverage, "report", "--keep-combined", "--skip-covered", "--sort=cover"], cwd=ROOT, check=True
    )
    report = ROOT / "coverage.json"
    subprocess.run([*coverage, "json", "--keep-combined", "-q", "-o", str(report)], cwd=ROOT, check=True)
    totals = json.loads(report.read_text())["totals"]
    lines = 100.0 * totals["covered_lines"] / totals["num_statements"]
    branches = 100.0 * totals["covered_branches"] / totals["num_branches"]
    print(f"coverage of raytrain/: lines {lines:.1f} % (floor {MIN_LINE_PERCENT:.0f} %), "
          f"branches {branches:.1f} % (floor {MIN_BRANCH_PERCENT:.0f} %)")  # fmt: skip
    return lines >= MIN_LINE_PERCENT and branches >= MIN_BRANCH_PERCENT


def main() -> int:
    for old in ROOT.glob(".coverage*"):
        old.unlink()
    code = run("unit", "tests/unit", "-m", "not slow and not thorough", *SIDE_BY_SIDE, *COVERED)
    if code:
        return code
    # Before Python 3.12 counting takes as long as two thirds of the tests: the slow ones are counted where it matters.
    is_enough = coverage_is_enough()
    code = run(
        "slow",
        "tests/unit",
        "-m",
        "slow and not thorough",
        "--timeout=900",
        *ONE_MORE,
        *(() if is_enough else COVERED),
    )
    if code:
        return code
    is_enough = is_enough or coverage_is_enough()
    covered = () if is_enough else COVERED
    # Ray gives up where its agents take 15 s to start, as they may beside two nodes and 16 clients that never pause.
    code = run(
        "integration", "tests/integration", "-m", "not alone and not thorough", *TWO_AT_A_TIME, *covered
    ) or run("serving", "tests/integration", "-m", "alone and not thorough", *covered)
    return code or (0 if is_enough or coverage_is_enough() else 1)


if __name__ == "__main__":
    sys.exit(main())
