"""Whether a trial goes on, by what a real registry says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from served_releases import Releases, damaged

from raytrain.serving.adapters.opening import Servable
from raytrain.serving.backend import Arm, Ask, Served
from raytrain.serving.engine.request import Finish, Overloaded, Piece, Sampling
from raytrain.serving.replica import Replica
from raytrain.serving.section import ServingSection
from raytrain.serving.table import Table
from raytrain.serving.trials.section import TrialSection
from raytrain.serving.trials.watch import standing_of

TRIAL = TrialSection(name="sums", mode="canary", share=0.5)


def version(number: str) -> Servable:
    return Servable("sums", number, f"sha256:{number}", Path("nowhere"), None, 0)


@pytest.mark.parametrize(
    ("candidate", "aliases", "standing", "why"),
    [
        ("1.1.0", {"production": "1.0.0"}, "running", "sums@1.1.0 beside sums@1.0.0"),
        ("1.1.0", {"production": "1.1.0", "previous": "1.0.0"}, "ended", "sums@1.1.0 is in production"),
        ("1.1.0", {"production": "1.0.0", "previous": "1.1.0"}, "ended", "moved away from sums@1.1.0"),
        ("1.1.0", {"production": "1.2.0", "previous": "1.0.0"}, "running", "sums@1.1.0 beside sums@1.2.0"),
        ("1.1.0", {}, "waiting", "nothing in production"),
        (None, {"production": "1.0.0"}, "waiting", "no sums@staging"),
        ("refused", {"production": "1.0.0"}, "ended", "its signature is not right"),
    ],
)
def test_when_a_trial_goes_on(
    candidate: str | None, aliases: dict[str, str], standing: str, why: str
) -> None:
    table = Table({f"sums@{alias}": version(number) for alias, number in aliases.items()})
    named = None if candidate is None else version(candidate)
    found = standing_of(TRIAL, "its signature is not right" if candidate == "refused" else named, table)
    assert found.standing == standing and why in found.why
    assert (found.candidate is not None) == (standing == "running")


def test_production_that_was_just_moved_away_is_no_candidate_before_previous_says_so() -> None:
    table = Table({"sums@production": version("1.0.0"), "sums@previous": version("1.0.0")})
    assert standing_of(TRIAL, version("1.1.0"), table).standing == "running"
    assert standing_of(TRIAL, version("1.1.0"), table, "sha256:1.1.0").standing == "ended"


@pytest.fixture
def releases(base: Path, tmp_path: Path) -> Releases:
    """sums@1.0.0 is in production, 1.1.0 on trial."""
    releases = Releases(tmp_path, base)
    for seed, number in enumerate(("1.0.0", "1.1.0")):
        releases.release("sums", number, seed=seed + 1)
    releases.promote("sums@1.0.0")
    releases.promote("sums@1.1.0", "staging")
    return releases


Start = Callable[[str], Replica]


@pytest.fixture
def start(releases: Releases) -> Iterator[Start]:
    started: list[Replica] = []

    def begin(candidate: str) -> Replica:
        section = {
            "base_model": str(releases.base),
            "releases": {
                "registry": releases.registry.place, "keys": str(releases.ring.folder), "poll_s": 0.05,
            },
            "engine": {"max_rows": 1, "max_waiting": 3, "prefix_cache_mib": 1},
            "storage": {"path": str(releases.folder / "cache")},
            "trials": [{"name": "sums", "candidate": candidate, "mode": "canary"}],
        }  # fmt: skip
        started.append(Replica(ServingSection.model_validate(section)))
        return started[-1]

    yield begin
    for one in started:
        one.close()


def asked(replica: Replica, arm: Arm | None, model: str = "sums") -> tuple[str, Arm | None]:
    """Who answered, and as what."""

    async def ask() -> Served:
        answer = replica.generate(Ask("r", model, "five", Sampling(2), arm=arm))
        served, *_ = [one async for one in answer]
        assert isinstance(served, Served)
        return served

    served = asyncio.run(ask())
    return served.model, served.arm


def wait_until_trial_is(replica: Replica, standing: str, why: str = "") -> str:
    for _ in range(400):
        (state,) = asyncio.run(replica.readiness()).trials
        if state.standing == standing and why in state.why:
            return state.why
        time.sleep(0.05)
    raise AssertionError(f"{state}")


@pytest.mark.slow
@pytest.mark.parametrize("candidate", ["staging", "1.1.0"])
def test_promoted_it_ends_and_rolled_back_it_stays_ended(
    candidate: str, releases: Releases, start: Start
) -> None:
    replica = start(candidate)
    wait_until_trial_is(replica, "running")
    assert asked(replica, "candidate") == ("sums@1.1.0", "candidate")
    assert asked(replica, "production") == ("sums@1.0.0", "production")
    assert asked(replica, None) == ("sums@1.0.0", None)
    assert asked(replica, "candidate", "base") == ("base", None)
    assert list(releases.adapters)[1] in replica.residents.resident(), "nobody waits for it to be read"
    releases.promote("sums@1.1.0")
    assert "is in production" in wait_until_trial_is(replica, "ended")
    for arm in ("candidate", "production"):
        assert asked(replica, arm) == ("sums@1.1.0", None)
    releases.roll_back("sums")
    while asked(replica, None)[0] != "sums@1.0.0":
        time.sleep(0.02)
    assert asked(replica, "candidate") == ("sums@1.0.0", None), "what was rolled back gets no requests"
    wait_until_trial_is(replica, "ended", "moved away")


@pytest.mark.slow
@pytest.mark.parametrize("candidate", ["staging", "1.2.0"])
def test_a_candidate_that_is_refused_ends_it_with_an_alarm(
    candidate: str, releases: Releases, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    digest = releases.release("sums", "1.2.0", seed=3)
    releases.promote("sums@1.2.0", "staging")
    place = Path(releases.registry.store.bundle_place("sums", digest.removeprefix("sha256:")))
    damaged(place / "adapter" / "adapter_model.safetensors")
    replica = start(candidate)
    assert "refused" in wait_until_trial_is(replica, "ended")
    assert asked(replica, "candidate") == ("sums@1.0.0", None)
    assert "ALARM the canary trial of sums is ended" in caplog.text


@pytest.mark.slow
def test_a_revoked_key_ends_it(releases: Releases, start: Start) -> None:
    replica = start("staging")
    wait_until_trial_is(replica, "running")
    (key,) = releases.ring.known()
    releases.ring.revoke(key.id, "lost on a train")
    assert "refused" in wait_until_trial_is(replica, "ended")


@pytest.mark.slow
def test_what_is_mirrored_is_dropped_from_a_queue_that_is_more_than_half_full(start: Start) -> None:
    replica = start("staging")
    endless = Sampling(200, json_schema={"type": "string", "minLength": 5000})

    async def crowd() -> tuple[list[str], Finish]:
        waiting = [replica.generate(Ask(f"r{number}", "sums", "five", endless)) for number in range(3)]
        outcomes = []
        for number, one in enumerate(waiting):
            await anext(one)
            while replica.engine.stats().waiting != number:
                await asyncio.sleep(0.01)
            mirror = replica.generate(
                Ask(f"m{number}", "sums", "five", Sampling(1), arm="candidate", is_mirror=True)
            )
            try:
                await anext(mirror)
                outcomes.append("taken")
            except Overloaded:
                outcomes.append("dropped")
            await mirror.aclose()
            while replica.engine.stats().waiting != number:
                await asyncio.sleep(0.01)
        client = replica.generate(Ask("c", "sums", "five", Sampling(1)))
        assert isinstance(await anext(client), Served), "a client may wait where what is mirrored may not"
        for one in waiting:
            await one.aclose()
        pieces = [one async for one in client]
        assert isinstance(pieces[-1], Piece) and pieces[-1].finish is not None
        return outcomes, pieces[-1].finish

    outcomes, finish = asyncio.run(crowd())
    assert outcomes == ["taken", "taken", "dropped"] and finish.reason == "length"
