"""What becomes of answers while processes die, versions change, disks fill and clients misbehave?

    python -m benchmarks.serving_faults [--json FILE] [--quick]

A Ray cluster of two nodes on this machine, a replica and a proxy on each, a tiny model. 16 connections ask as soon as
they are answered, all the while; the client is in this process, with as many threads. Each greedy answer is compared
with what PEFT gives for the digest that it names. A client whose connection broke, or who met a 5xx from a kill, asks
once more: figures are told before and after that. Then a registry on S3 refuses, and hangs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, parser_of, report
from benchmarks.serving_load import Load, wait_until

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "integration")]  # the site and the faults are those of the tests

NUM_REQUESTS = 10_000
MOST_LOST = 0.001
FLIP_S = 1.0
"""Until all replicas serve another version."""
MOST_SLOWER = 2.0
"""p99 while versions change, over p99 while they do not."""
MOST_GROWN_MIB = 64.0


@dataclass(frozen=True)
class Size:
    """How much of each."""

    steady: int
    flips: int
    before: int
    after: int


FULL, QUICK = Size(2000, 50, 100, 600), Size(400, 20, 40, 100)


@dataclass
class Matrix:
    """All that was played."""

    size: Size
    figures: list[Figure] = field(default_factory=list)
    num_answered: int = 0
    num_wrong: int = 0
    steady_p99: float = 0.0

    def count(self, load: Load, site: Any) -> None:
        self.num_answered += load.num_answered
        self.num_wrong += len(load.wrong(site.references))

    def tell(self, name: str, value: float, unit: str, most: float | None = None) -> None:
        self.figures.append(Figure(name, value, unit, most, higher_is_better=False))
        print(f"… {name}: {value:.4g} {unit}", flush=True)

    def steady(self, site: Any) -> None:
        with Load(site.port, site.questions) as load:
            load.wait_for(self.size.steady // 4)  # everything has been read once
        self.count(load, site)
        with Load(site.port, site.questions) as load:
            load.wait_for(self.size.steady, 600)
        self.count(load, site)
        self.steady_p99 = load.seconds(0.99)
        self.tell("steady: server errors", len(load.errors), "requests", 0)
        self.tell("steady: median", load.seconds(0.5), "s")
        self.tell("steady: p99", self.steady_p99, "s")

    def flips(self, site: Any) -> None:
        from serving_matrix import flip, seconds_of_old  # type: ignore[import-not-found]

        with Load(site.port, site.questions) as load:
            load.wait_for(self.size.before)
            flips = flip(site, self.size.flips)
            load.wait_for(self.size.before)
        self.count(load, site)
        live = [one.live - one.committed for one in flips]
        old = seconds_of_old(flips, load.answers)
        self.tell(
            f"{len(flips)} flips: errors of {len(load.answers)} requests", len(load.errors), "requests", 0
        )
        self.tell("flip: live on both replicas, median", float(np.median(live)), "s")
        self.tell("flip: live on both replicas, p99", float(np.quantile(live, 0.99)), "s", FLIP_S)
        self.tell(
            "flip: last request that the old version answered, p99",
            float(np.quantile(old, 0.99)),
            "s",
            FLIP_S,
        )
        self.tell("flips: p99 over steady", load.seconds(0.99) / self.steady_p99, "times", MOST_SLOWER)

    def fault(self, site: Any, fault: Any) -> None:
        from serving_matrix import play

        load, measured = (
            (played := play(site, fault, self.size.before, self.size.after)).load,
            played.measured,
        )
        self.count(load, site)
        num, name = len(load.answers), fault.name
        if fault.is_kill:
            self.tell(f"{name}: lost at first", len(load.first_errors) / num, "share")
        lost = [one for one in load.answers if one.is_server_s_fault]
        self.tell(f"{name}: lost, of {num} requests", len(lost) / num, "share", MOST_LOST)
        self.tell(f"{name}: longest without any answer", load.longest_gap_s, "s")
        for key, value in measured.items():
            most = MOST_GROWN_MIB if key == "grown_mib" else None
            self.tell(f"{name}: {key}", value, key.rpartition("_")[2], most)
        if name == "clients read slowly":
            self.tell(f"{name}: others' p99 over steady", load.seconds(0.99) / self.steady_p99, "times")

    def store(self, site: Any, proxy: Any, failure: str) -> None:
        """The object store fails; everything that was served is served, and changes are followed after it."""
        from serving_matrix import flip

        proxy.silence_s = 30.0
        with Load(site.port, site.questions) as load:
            load.wait_for(self.size.before)
            proxy.plan(1, failure, times=10**9)
            start = time.monotonic()
            wait_until(lambda: bool(site.ready()["problems"]), 60, lambda: str(site.ready()))
            told_s = time.monotonic() - start
            load.wait_for(self.size.after)
            assert site.ready()["is_ready"], str(site.ready())
            proxy.plan(None)
            start = time.monotonic()
            site.wait_until_whole()
            back_s = time.monotonic() - start
            flip(site, 2)
            load.wait_for(self.size.before)
        self.count(load, site)
        self.tell(f"the object store, {failure}: server errors", len(load.errors), "requests", 0)
        self.tell(f"the object store, {failure}: told by /ready after", told_s, "s")
        self.tell(f"the object store, {failure}: whole again after", back_s, "s")
        self.tell(
            f"the object store, {failure}: p99 over steady", load.seconds(0.99) / self.steady_p99, "times"
        )


def play_all(size: Size, scratch: Path) -> list[Figure]:
    from object_server import CREDENTIALS, object_server  # type: ignore[import-not-found]
    from serving_matrix import FAULTS
    from serving_site import site  # type: ignore[import-not-found]

    matrix = Matrix(size)
    with site(scratch / "folder") as found:
        matrix.steady(found)
        matrix.flips(found)
        for fault in FAULTS:
            matrix.fault(found, fault)
    os.environ.update(CREDENTIALS)
    with object_server() as proxy, site(scratch / "s3", proxy.uri("releases")) as found:
        for failure in ("refused", "silence"):
            matrix.store(found, proxy, failure)
    matrix.tell("answers that are not those of the version they name", matrix.num_wrong, "requests", 0)
    compared = Figure(
        "answers that were compared", matrix.num_answered, "requests", NUM_REQUESTS if size is FULL else None
    )
    return [compared, *matrix.figures]


def main() -> None:
    parser = parser_of(__doc__, "serving_faults", "fewer requests of each kind, and 20 flips in place of 50")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory(prefix="raytrain-faults-") as scratch:
        figures = play_all(size, Path(scratch))
    report(figures, "A server of two replicas, and what can happen to it", arguments.json)


if __name__ == "__main__":
    main()
