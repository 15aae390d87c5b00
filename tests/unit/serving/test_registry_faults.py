"""The registry goes away, hangs, forgets, or holds what nobody expected: what a replica serves meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_server import CREDENTIALS, Proxy, object_server
from served_releases import Releases
from test_replica import (  # noqa: F401
    Start,
    asked,
    expected,
    production,
    releases,
    start,
    wait_for,
)

from raytrain.errors import StorageError
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.store import open_store
from raytrain.serving import lookup, routes
from raytrain.serving.adapters.opening import Door, Servable
from raytrain.serving.backend import Undecided
from raytrain.serving.http.errors import refusal_of
from raytrain.serving.replica import Replica

pytestmark = pytest.mark.whole


def problems(replica: Replica) -> list[str]:
    return [one for one in asyncio.run(replica.readiness()).problems if "registry" in one]


def test_a_folder_that_is_empty_is_no_registry_without_names(releases: Releases, start: Start) -> None:  # noqa: F811
    """As where it was mounted, and is not any more."""
    replica = start()
    first = next(iter(releases.adapters))
    place = Path(releases.registry.place)
    place.rename(place.with_name("away"))
    place.mkdir()
    (told,) = wait_for(lambda: problems(replica))
    assert "lost sums" in told and asyncio.run(replica.readiness()).is_ready
    assert asked(replica, "sums").served.digest == first
    place.rmdir()
    place.with_name("away").rename(place)
    wait_for(lambda: not problems(replica))


def test_a_version_with_files_that_nobody_expected_leaves_the_old_one_and_is_followed_by_the_next(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    replica = start()
    first, second = releases.adapters

    def change(adapter: Path) -> None:
        file = adapter / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "alpha_pattern": 5}))

    releases.release("sums", "1.2.0", seed=3, change=change)
    releases.promote("sums@1.2.0")
    wait_for(lambda: replica.routes.table.refused)
    time.sleep(0.3)
    assert caplog.text.count("ALARM sums@production is not served") == 1, "said once, not at every look"
    assert asked(replica, "sums").served.digest == first
    releases.promote("sums@1.1.0")
    wait_for(lambda: production(replica) == second)
    assert "sums@production" not in replica.routes.table.refused
    wait_for(lambda: "sums@previous" in replica.routes.table.refused)  # it names 1.2.0 by now


def test_a_store_that_fails_while_keys_change_takes_nothing_away(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_: Door, reference: str) -> Servable:
        raise StorageError(f"cannot read {reference}", why="nobody answers", fix="wait")

    replica = start()
    replica.routes.stop()
    releases.ring.generate("another")
    with monkeypatch.context() as patch:
        patch.setattr(Door, "admit", fails)
        replica.routes.refresh()
    assert asked(replica, "sums").served.digest == next(iter(releases.adapters))
    assert replica.routes.table.refused
    replica.routes.refresh()
    assert not replica.routes.table.refused


def test_a_registry_that_cannot_be_read_at_the_start_is_said_and_not_taken_for_an_empty_one(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookup, "_START_WITHIN_S", 0.2)
    place = Path(releases.registry.place)
    place.rename(place.with_name("away"))
    place.write_text("no folder any more")
    before = set(threading.enumerate())
    with pytest.raises(StorageError, match="nobody knows what is to be served"):
        start()
    left = {one.name for one in set(threading.enumerate()) - before}
    assert not left & {"engine", "classifying"}, "its engines have ended"


@pytest.fixture
def s3(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Proxy, Releases]]:
    """sums@1.0.0 was in production and is not any more, 1.1.0 is; in a registry on S3."""
    for key, value in CREDENTIALS.items():
        monkeypatch.setenv(key, value)
    with object_server() as proxy:
        (tmp_path / "s3").mkdir()
        releases = Releases(tmp_path / "s3", base)
        releases.registry = Registry(open_store(proxy.uri("releases")))
        for seed, version in enumerate(("1.0.0", "1.1.0")):
            releases.release("sums", version, seed=seed)
            releases.promote(f"sums@{version}")
        yield proxy, releases


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["refused", "silence"])
def test_an_object_store_that_is_down_stalls_no_answer_and_is_told(
    s3: tuple[Proxy, Releases],
    start: Start,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    failure: str,
) -> None:
    monkeypatch.setattr(routes, "_SILENT_AFTER_S", 0.5)
    monkeypatch.setattr(routes, "_VERSION_COUNTS_S", 0.0)
    proxy, released = s3
    first, second = released.adapters
    third = released.release("sums", "1.2.0", seed=5)
    replica = start(releases={"registry": proxy.uri("releases"), "keys": str(released.ring.folder)})
    replica.routes.table.aliases.pop("sums@previous")  # 1.0.0 is then a version that only the registry knows
    assert asked(replica, "sums@1.0.0").served.digest == first
    proxy.silence_s = 60
    proxy.plan(1, failure, times=100_000)  # type: ignore[arg-type]
    told = wait_for(lambda: problems(replica))
    for model, digest in (("sums", second), ("sums@1.0.0", first)):
        start_s = time.monotonic()
        answer = asked(replica, model)
        assert answer.served.digest == digest and answer.tokens == expected(released, digest)
        assert time.monotonic() - start_s < 4, f"{model} waits for nobody: {told}"
    readiness = asyncio.run(replica.readiness())
    assert readiness.is_ready and readiness.production == {"sums": second}
    with pytest.raises(Undecided) as raised:
        asked(replica, "sums@1.2.0")
    refusal = refusal_of(raised.value, lambda _: True)
    assert refusal is not None and refusal.status == 503 and refusal.retry_after_s
    proxy.plan(None)
    wait_for(lambda: not problems(replica))
    released.promote("sums@1.2.0")
    wait_for(lambda: production(replica) == third)
