"""How long a registry of 10,000 versions takes: one name that has them all, and one version of each of as many names.

    python -m benchmarks.registry [--json FILE] [--quick]

What is timed is the command a person types, in a process of its own, and how much of that is raytrain's start. The
entries are written by the journal's own code; the bundles they name are not there: `audit` alone looks at them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, parser_of, report
from raytrain.release.registry.folder_store import FolderStore
from raytrain.release.registry.journal import NO_ENTRY, Entry, content_hash, content_of
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.versions import Version

NUM_VERSIONS = 10_000
TARGET_S = 1.0


def main() -> None:
    parser = parser_of(
        __doc__, "registry", "two repeats of each in place of five; the registries are as large"
    )
    arguments = parser.parse_args()
    repeats = 2 if arguments.quick else 5
    with tempfile.TemporaryDirectory(prefix="raytrain-registry-") as scratch:
        one, many = Path(scratch) / "one", Path(scratch) / "many"
        write_journal(one / "assistant", NUM_VERSIONS)
        for i in range(NUM_VERSIONS):
            write_journal(many / f"name-{i:05d}", 1)
        assert len(Registry(one).state("assistant").versions) == NUM_VERSIONS
        assert len(Registry(many).names()) == NUM_VERSIONS
        figures = [
            *timed("list, all of one name", ["list"], one, repeats, TARGET_S),
            *timed("list, one of each name", ["list"], many, repeats, TARGET_S),
            *timed("list --json, one of each name", ["list", "--json"], many, repeats),
            *timed("show, all of one name", ["show", "assistant"], one, repeats),
            *appended(one, repeats),
            *timed("--help, raytrain's start", ["--help"], None, repeats),
        ]
    report(figures, f"A registry of {NUM_VERSIONS:,} versions in a folder", arguments.json)


def write_journal(folder: Path, num_versions: int) -> None:
    """As `Journal` writes it, but for the waiting for the disk."""
    journal = folder / "journal"
    journal.mkdir(parents=True)
    previous = NO_ENTRY
    for number in range(1, num_versions + 1):
        details = {
            "version": str(Version(1 + number // 2000, number // 20 % 100, number % 20)),
            "digest": f"sha256:{number:064x}",
            "made_from": dict.fromkeys(("base_model", "dataset", "recipe"), f"sha256:{number:064x}"),
            "metrics": {"sums/score": number / num_versions},
        }
        entry = Entry(
            number,
            previous,
            "2026-11-21T12:00:00.000+00:00",
            "a@b",
            "register",
            details,
            "x",
            f"{number:032x}",
        )
        content = content_of(entry)
        (journal / f"{number:08d}.json").write_bytes(content)
        previous = content_hash(content)


def timed(
    name: str, command: list[str], registry: Path | None, repeats: int, target: float | None = None
) -> list[Figure]:
    """Median and the slowest; the first call, which fills the system's caches, is not counted."""
    place = [] if registry is None else ["--registry", str(registry)]
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "raytrain", "registry", *command, *place],
            check=True,
            stdout=subprocess.DEVNULL,
            env=dict(os.environ),
        )
        seconds.append(time.perf_counter() - start)
    counted = seconds[1:]
    return [
        Figure(name, statistics.median(counted), "s", target, higher_is_better=False),
        Figure(f"{name}, slowest of {repeats}", max(counted), "s"),
    ]


def appended(registry: Path, repeats: int) -> list[Figure]:
    """A tag more on the newest of all, with the state read and checked before it is written."""
    opened = Registry(FolderStore(registry))
    newest = max(opened.state("assistant").versions)
    seconds = []
    for i in range(repeats):
        start = time.perf_counter()
        opened.tag("assistant", newest, added={f"tag-{i}"})
        seconds.append(time.perf_counter() - start)
    return [Figure("a change of one name with all", statistics.median(seconds), "s")]


if __name__ == "__main__":
    main()
