"""What can happen to a server while it is asked: each fault does one thing to a site, waits until it is whole again,
and tells what it measured. Raises AssertionError where the server does not do what it must."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from served_releases import damaged
from serving_clients import (
    Measured,
    fill_disk,
    fill_queue,
    leave_streams,
    read_slowly,
    send_garbage,
    send_too_much,
)
from serving_site import Site

from benchmarks.serving_load import Asked, Load, wait_until
from raytrain.release.registry.versions import Version

_numbers = itertools.count(10)


@dataclass(frozen=True)
class Fault:
    """One row of the matrix."""

    name: str
    act: Callable[[Site], Measured]
    is_kill: bool = False
    """A process that holds requests ends: clients ask once more."""
    is_deaf: bool = False
    """Until it is whole again nobody listens, so that asking once more may be in vain."""
    is_alone: bool = False
    """Nobody else asks meanwhile."""


@dataclass(frozen=True)
class Played:
    """What became of it, and of those who asked meanwhile."""

    fault: Fault
    load: Load
    measured: Measured


def play(site: Site, fault: Fault, num_before: int, num_after: int) -> Played:
    """So many answers before and after it, by 16 connections."""
    load = Load(site.port, site.questions, asks_again=fault.is_kill)
    measured = fault.act(site) if fault.is_alone else {}
    with load:
        load.wait_for(num_before)
        if not fault.is_alone:
            measured = fault.act(site)
        load.wait_for(num_after)
    return Played(fault, load, measured)


# Processes and nodes


def kill_replica(site: Site) -> Measured:
    site.replicas()[0].kill()
    return {"whole_again_s": site.wait_until_whole()}


def kill_ingress(site: Site) -> Measured:
    """The one that the proxy prefers, on its own node."""
    max(site.processes("ServeReplica:raytrain:ingress"), key=lambda one: one.cpu_times().user).kill()
    return {"whole_again_s": site.wait_until_whole()}


def kill_one_proxy(site: Site) -> Measured:
    """Of two, which listen on one port here, and behind one address elsewhere."""
    site.proxies()[0].kill()
    return {"whole_again_s": site.wait_until_whole()}


def kill_proxies(site: Site) -> Measured:
    # Where one was killed before, the site is whole without it.
    wait_until(lambda: len(site.proxies()) >= 2, 60, lambda: f"one on each node: {site.proxies()}")
    for one in site.proxies():
        one.kill()
    return {"whole_again_s": site.wait_until_whole()}


def kill_node(site: Site) -> Measured:
    """Not the head: Ray ends with that. Another joins at once."""
    (raylet,) = [one for one in site.raylets() if "--head" not in " ".join(one.cmdline())]
    for one in [raylet, *raylet.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    start = time.monotonic()
    site.add_node()
    site.wait_until_whole()
    return {"whole_again_s": time.monotonic() - start}


# Releases


@dataclass(frozen=True)
class Flip:
    """One move of production, in seconds since 1970."""

    committed: float
    """By the journal."""
    live: float
    """When both replicas were seen to serve it."""
    old: str
    new: str


def flip(site: Site, num: int) -> list[Flip]:
    """Promote and roll back in turns."""
    releases, flips = site.releases, []
    for turn in range(num):
        old = str(site.production())
        if turn % 2:
            releases.roll_back("sums")
        else:
            releases.promote("sums@1.1.0" if _version(site) == Version(1, 0, 0) else "sums@1.0.0")
        state = releases.registry.state("sums")
        entry, new = state.moved["production"], state.versions[state.aliases["production"]].digest
        wait_until(lambda new=new: site.production() == new, 60, lambda: str(site.ready()))  # type: ignore[misc]
        flips.append(Flip(entry.written_at, time.time(), old, new))
    return flips


def seconds_of_old(flips: list[Flip], answers: list[Asked]) -> list[float]:
    """How long after each flip the last request was made that the version before it answered. Of those that were under
    way when the next flip came nobody can say which of the two let the old version answer."""
    until = [*(one.committed for one in flips[1:]), float("inf")]
    found = []
    for one, end in zip(flips, until, strict=True):
        late = [
            asked.began - one.committed
            for asked in answers
            if asked.digest == one.old
            and asked.question.model.startswith("sums")
            and one.committed < asked.began
            and asked.began + asked.seconds < end
        ]
        found.append(max(late, default=0.0))
    return found


def _version(site: Site) -> Version:
    found: Version = site.releases.registry.state("sums").aliases["production"]
    return found


def promote_corrupt(site: Site) -> Measured:
    """One whose numbers are none, through the gate; one that was damaged after it was signed, past the gate."""
    releases, before, old = site.releases, _version(site), site.production()
    first, second = f"2.{next(_numbers)}.0", f"2.{next(_numbers)}.0"
    releases.release("sums", first, seed=7, change=_spoil)
    releases.promote(f"sums@{first}")
    _wait_until_refused(site, old, "holds what is no number")
    releases.roll_back("sums")
    releases.registry.withdraw("sums", Version.parse(first), why="no numbers")  # else `previous` names it
    wait_until(site.is_whole, 60, lambda: str(site.ready()))
    digest = releases.release("sums", second, seed=8)
    place = releases.registry.store.bundle_place("sums", digest.removeprefix("sha256:"))
    damaged(Path(place) / "adapter" / "adapter_model.safetensors")
    releases.registry.move(
        "sums", "production", Version.parse(second), expected=before, decision=None, why="past the gate"
    )
    _wait_until_refused(site, old, "adapter_model")
    releases.promote(f"sums@{before}")
    releases.registry.withdraw("sums", Version.parse(second), why="damaged")
    site.wait_until_whole()
    return {}


def _spoil(adapter: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})


def _wait_until_refused(site: Site, old: str | None, word: str) -> None:
    def is_refused() -> bool:
        found = site.ready()
        return any("sums@production" in one and word in one for one in found["problems"])

    wait_until(is_refused, 60, lambda: str(site.ready()))
    found = site.ready()
    assert found["is_ready"] and found["production"]["sums"] == old, f"the old one goes on: {found}"
    assert _logs_say(site, "ALARM sums@production is not served")


def _logs_say(site: Site, words: str) -> bool:
    logs = site.bench.ray_folder.glob("session_*/logs/**/*.*")
    return any(words in one.read_text(errors="replace") for one in logs if one.suffix in (".log", ".err"))


def lose_registry(site: Site) -> Measured:
    """Its folder is gone, and is an empty one, as where a mount is lost."""
    place = Path(site.releases.registry.place)
    away = place.with_name("away")
    place.rename(away)
    try:
        for stands_there in (False, True):
            if stands_there:
                place.mkdir()
            wait_until(lambda: _complains(site), 60, lambda: str(site.ready()))
            time.sleep(1.0)
            assert site.ready()["is_ready"] and set(site.ready()["production"]) == {"sums", "words"}
    finally:
        with suppress(FileNotFoundError):
            place.rmdir()
        away.rename(place)
    return {"whole_again_s": site.wait_until_whole()}


def _complains(site: Site) -> bool:
    return any("the registry cannot be read" in one for one in site.ready()["problems"])


FAULTS = [
    Fault("a replica is killed", kill_replica),
    Fault("an ingress is killed", kill_ingress, is_kill=True),
    Fault("one of two proxies is killed", kill_one_proxy, is_kill=True),
    Fault("every proxy is killed", kill_proxies, is_kill=True, is_deaf=True),
    Fault("a node is killed", kill_node, is_kill=True),
    Fault("corrupt versions are promoted", promote_corrupt),
    Fault("the registry is lost", lose_registry),
    Fault("the queue is full", fill_queue),
    Fault("clients read slowly", read_slowly),
    Fault("clients leave their streams", leave_streams, is_alone=True),
    Fault("prompts are too long", send_too_much),
    Fault("garbage is sent", send_garbage),
    Fault("the request log's disk is full", fill_disk),
]
