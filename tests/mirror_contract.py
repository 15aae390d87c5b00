"""What every mirror of a registry must keep: one suite, which each mirror's test module runs over its own server.

A module subclasses `MirrorContract` and gives the fixture `place`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

import pytest
from bundles import signed_bundle
from object_server import Failure, Proxy
from registry_contract import V1, V2

from raytrain.cli.main import run
from raytrain.errors import EndpointError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.mirror import Mirror, drift, follow
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.versions import Version


class MirrorPlace(Protocol):
    """A server behind a proxy that fails as it is told, and what others see and do there."""

    proxy: Proxy
    least_requests: int
    """At least so many are made for one version."""
    stride: int
    """Of how many of them one is stopped at."""

    def open(self, url: str | None = None, *, in_a_hurry: bool = False) -> Mirror:
        """As a new process would, by default at the proxy. In a hurry it waits for no upload longer than a moment."""

    def options(self, url: str | None = None) -> list[str]:
        """Of `raytrain registry publish` and `doctor`."""

    def seen(self, name: str) -> dict[str, Any]:
        """`versions`: by version its facts, metrics, why and entry; `aliases`: versions by alias; `num_runs`. As
        the server's own client, and so its pages, tell it."""

    def meddle(self, name: str) -> None:
        """As somebody else: give the oldest version the aliases production and champion, the digest sha256:evil,
        the parent `nothing`, and the fact `their own`, which is `stays`; then add a copy of it as it was before."""


def fill(registry: Registry, ring: KeyRing, folder: Path, name: str, *versions: Version) -> None:
    """Versions, the last of them in production, with metrics; the first has tags."""
    for i, version in enumerate(versions or (V1, V2)):
        bundle = signed_bundle(folder / f"{name}-{i}", ring, i)
        made_from = {"base_model": "sha256:b", "dataset": f"sha256:{i}"}
        details = {
            "metrics": {"sums/score": 0.25 + i / 2, "sums/exact match": 0.5},
            "subject": f"sha256:s{i}",
        }
        registry.register(
            name, version, bundle, ring, made_from=made_from, why=f"number {i}", details=details
        )
        before = registry.state(name).aliases.get("production")
        decision = f"sha256:{i:064x}"
        registry.move(name, "production", version, expected=before, decision=decision, why="it passed")
    registry.tag(name, V1, added={"golden", "größer", "a/b"})


class MirrorContract:
    """It says what the registry says, whatever happened to it or on the way there."""

    @pytest.fixture(autouse=True)
    def untold(self, place: MirrorPlace) -> None:
        place.proxy.plan(None)

    @pytest.fixture
    def registry(self, tmp_path: Path) -> Registry:
        return Registry(tmp_path / "registry")

    def test_versions_metrics_lineage_and_aliases_are_seen(
        self, place: MirrorPlace, registry: Registry, ring: KeyRing, tmp_path: Path
    ) -> None:
        fill(registry, ring, tmp_path, "seen")
        mirror = place.open()
        assert drift(mirror, registry, "seen") == ["seen@1.0.0 is not there", "seen@1.1.0 is not there"]
        assert follow(mirror, registry, "seen")
        found = place.seen("seen")
        assert found["aliases"] == {"production": "1.1.0", "previous": "1.0.0"} and found["num_runs"] == 2
        first, second = found["versions"]["1.0.0"], found["versions"]["1.1.0"]
        assert first["metrics"] == {"sums/score": 0.25, "sums/exact match": 0.5}
        assert first["facts"]["made_from.dataset"] == "sha256:0"
        assert first["facts"]["raytrain.digest"] == registry.find("seen@1.0.0").digest
        assert first["facts"]["raytrain.tags"] == "a/b, golden, größer"
        assert first["why"] == "number 0" and first["entry"] == vars(registry.entries("seen")[0])
        assert second["facts"]["decision.production"] == f"sha256:{1:064x}"
        assert not any(key.startswith("decision.") for key in first["facts"])
        assert follow(mirror, registry, "seen") == [] and drift(mirror, registry, "seen") == []
        assert place.seen("seen") == found

    def test_a_rollback_and_tags_are_followed(
        self, place: MirrorPlace, registry: Registry, ring: KeyRing, tmp_path: Path
    ) -> None:
        fill(registry, ring, tmp_path, "back")
        mirror = place.open()
        follow(mirror, registry, "back")
        registry.move("back", "production", V1, expected=V2, decision=None, why="back")
        registry.tag("back", V1, added={"old"}, removed={"golden"})
        # Two aliases, a decision that is no longer one, and the tags.
        assert len(drift(mirror, registry, "back")) == 4
        follow(mirror, registry, "back")
        assert drift(mirror, registry, "back") == []
        found = place.seen("back")
        assert found["aliases"] == {"production": "1.0.0", "previous": "1.1.0"}
        assert found["versions"]["1.0.0"]["facts"]["raytrain.tags"] == "a/b, größer, old"

    def test_what_others_change_there_is_found_and_set_back(
        self,
        place: MirrorPlace,
        registry: Registry,
        ring: KeyRing,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        fill(registry, ring, tmp_path, "changed")
        mirror = place.open()
        follow(mirror, registry, "changed")
        before = place.seen("changed")
        place.meddle("changed")
        told = drift(mirror, registry, "changed")
        assert len(told) == 5, told
        where = ("--registry", registry.place, *place.options())
        assert run(["registry", "doctor", *where]) == 0
        assert "sha256:evil" in capsys.readouterr().out
        assert run(["registry", "publish", "changed", *where]) == 0
        assert drift(mirror, registry, "changed") == []
        after = place.seen("changed")
        assert after["versions"]["1.0.0"]["facts"].pop("their own") == "stays"
        assert after == before

    @pytest.mark.thorough
    def test_stopped_at_any_request_it_goes_on_where_it_was(
        self, place: MirrorPlace, registry: Registry, ring: KeyRing, tmp_path: Path
    ) -> None:
        fill(registry, ring, tmp_path, "whole", V1)
        (Path(registry.place) / "first").symlink_to(Path(registry.place) / "whole")
        follow(place.open(), registry, "first")  # what a server is told once is not counted
        mirror = place.open()
        place.proxy.plan(None)
        follow(mirror, registry, "whole")
        total = place.proxy.count
        expected = place.seen("whole")
        entries = registry.entries("whole")
        failures: tuple[Failure, ...] = ("refused", "lost answer", "reset")
        assert total >= place.least_requests
        for point in range(1, total + 1, place.stride):
            name = f"stopped-{point}"
            (Path(registry.place) / name).symlink_to(Path(registry.place) / "whole")
            hurried = place.open(in_a_hurry=True)
            place.proxy.plan(point, failures[point % 3], times=1_000_000)
            with pytest.raises(EndpointError) as told:
                follow(hurried, registry, name)
            place.proxy.plan(None)
            mirror = place.open()
            assert told.value.exit_code == 4 and place.proxy.endpoint in told.value.what
            assert f"raytrain registry publish {name} {mirror.option}" in told.value.fix
            follow(mirror, registry, name)
            found = place.seen(name)
            for version, one in found["versions"].items():
                one["facts"]["raytrain.place"] = expected["versions"][version]["facts"]["raytrain.place"]
            assert found == expected, f"request {point}, {failures[point % 3]}"
            assert drift(mirror, registry, name) == []
        assert registry.entries("whole") == entries

    def test_a_server_that_is_down(
        self, place: MirrorPlace, registry: Registry, ring: KeyRing, tmp_path: Path
    ) -> None:
        fill(registry, ring, tmp_path, "down")
        entries = registry.entries("down")
        nowhere = "http://127.0.0.1:9"
        started = time.monotonic()
        with pytest.raises(EndpointError, match=r"127\.0\.0\.1:9") as told:
            follow(place.open(nowhere), registry, "down")
        assert told.value.exit_code == 4 and "raytrain registry publish down" in told.value.fix
        where = ("--registry", registry.place, *place.options(nowhere))
        assert run(["registry", "publish", *where]) == 4
        assert time.monotonic() - started < 30
        assert registry.entries("down") == entries and registry.orphans() == []
