"""W&B's own client, before a loopback server of ours, keeps the contract of a mirror; and what it writes offline."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wandb", reason="the extra raytrain[wandb] is not installed")

from mirror_contract import MirrorContract, fill
from object_server import Proxy, handler_of
from registry_contract import V1, V2
from wandb_server import ENTITY, KEY, REFUSED_KEY, WandbServer, serve
from wandb_server import Version as Stored

from raytrain.cli.main import run
from raytrain.errors import ConfigError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.mirror import drift, follow
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.wandb_mirror import WandbMirror
from raytrain.release.registry.wandb_run import DEFAULTS, flat, native_tags

pytestmark = pytest.mark.slow

TARGET = f"{ENTITY}/registry"


@dataclass
class WandbPlace:
    proxy: Proxy
    server: WandbServer
    monkeypatch: pytest.MonkeyPatch
    least_requests: int = 20
    stride: int = 2  # seconds each

    def open(self, url: str | None = None, *, in_a_hurry: bool = False) -> WandbMirror:
        import wandb

        wandb.teardown()
        self.monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1" if in_a_hurry else "30")
        self.monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3" if in_a_hurry else "30")
        self.monkeypatch.setenv("WANDB_BASE_URL", url or self.proxy.endpoint)
        return WandbMirror(TARGET)

    def options(self, url: str | None = None) -> list[str]:
        self.monkeypatch.setenv("WANDB_BASE_URL", url or self.proxy.endpoint)
        return ["--wandb", TARGET]

    def _api(self) -> Any:
        import wandb

        self.monkeypatch.setenv("WANDB_BASE_URL", self.proxy.endpoint)
        return wandb.Api()

    def seen(self, name: str) -> dict[str, Any]:
        api = self._api()
        versions: dict[str, Any] = {}
        aliases: dict[str, str] = {}
        runs = set()
        for one in api.artifacts("model", f"{TARGET}/{name}"):
            made_by = self.server.versions[one.id].run
            runs.add(made_by)
            run = api.run(f"{TARGET}/{made_by}")
            metadata = {key: value for key, value in one.metadata.items() if key != "metrics"}
            metrics = {key: run.summary[key] for key in one.metadata["metrics"]}
            assert metrics == one.metadata["metrics"] and run.job_type == "release"
            facts = flat(metadata)
            assert sorted(one.tags) == [
                tag for tag in facts.get("raytrain.tags", "").split(", ") if tag in ("golden", "old")
            ]
            versions[facts["raytrain.version"]] = {
                "facts": facts,
                "metrics": metrics,
                "why": one.description,
                "entry": json.loads(self.server.files[f"{one.id}/release/entry.json"]),
            }
            aliases |= {alias: facts["raytrain.version"] for alias in one.aliases if alias != "latest"}
        all_runs = [one for one in self.server.runs.values() if one["displayName"].startswith(f"{name}@")]
        assert len(all_runs) == len(runs)
        return {"versions": versions, "aliases": aliases, "num_runs": len(runs)}

    def meddle(self, name: str) -> None:
        found = {one.version: one for one in self._api().artifacts("model", f"{TARGET}/{name}")}
        one = found["v0"]
        kept = self.server.versions[one.id]
        twin = replace(kept, id=f"{kept.id}-copy", index=99, aliases=set(), tags=list(kept.tags))
        one.aliases += ["production", "champion"]
        one.metadata["raytrain"]["digest"] = "sha256:evil"
        one.metadata["made_from"]["nothing"] = "x"
        one.metadata["their own"] = "stays"
        one.save()
        self.server.versions[twin.id] = twin


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Proxy, WandbServer]]:
    """Behind a proxy that fails as it is told."""
    ours = WandbServer()
    listening = serve(ours)
    proxy = Proxy(listening.server_address[1])
    before = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(proxy))
    before.daemon_threads = True
    proxy.port = before.server_address[1]
    ours.public = proxy.endpoint
    threading.Thread(target=before.serve_forever, args=(0.02,), daemon=True).start()
    yield proxy, ours
    for one in (before, listening):
        one.shutdown()
        one.server_close()


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's W&B, and nothing of the defaults that a command leaves in the environment."""
    for one in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{one}_DIR", str(tmp_path / f"wandb-{one.lower()}"))
    for key, value in DEFAULTS.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    import wandb

    wandb.teardown()


@pytest.fixture
def place(server: tuple[Proxy, WandbServer], alone: None, monkeypatch: pytest.MonkeyPatch) -> WandbPlace:
    return WandbPlace(*server, monkeypatch)


class TestWandbMirror(MirrorContract):
    """All of it with W&B's own client."""

    def test_tags_that_were_taken_away_come_back_and_those_of_others_stay(
        self, place: WandbPlace, registry: Registry, ring: KeyRing, tmp_path: Path
    ) -> None:
        fill(registry, ring, tmp_path, "tagged", V1)
        mirror = place.open()
        follow(mirror, registry, "tagged")
        (kept,) = place.server.of("tagged")
        kept.tags = ["theirs"]
        assert drift(mirror, registry, "tagged") == [
            "tagged@1.0.0: raytrain.tags is 'a/b, größer' and should be 'a/b, golden, größer'"
        ]
        follow(mirror, registry, "tagged")
        assert kept.tags == ["theirs", "golden"]
        registry.tag("tagged", V1, added=set(), removed={"golden"})
        follow(mirror, registry, "tagged")
        assert kept.tags == ["theirs"] and drift(mirror, registry, "tagged") == []

    def test_many_versions_come_in_pages(self, place: WandbPlace, monkeypatch: pytest.MonkeyPatch) -> None:
        place.server.versions |= {
            f"many-{i}": Stored(
                f"many-{i}", "registry", "many", str(i), "", "{}", "", state="COMMITTED", index=i
            )
            for i in range(450)
        }
        found = place.open().look("many")
        assert [one.number for one in found.versions] == [f"v{i}" for i in range(450)]

    @pytest.mark.parametrize("key", [REFUSED_KEY, None])
    def test_who_is_not_logged_in_is_told_what_to_do(
        self,
        key: str | None,
        place: WandbPlace,
        registry: Registry,
        ring: KeyRing,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        fill(registry, ring, tmp_path, "unknown", V1)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        if key is None:
            monkeypatch.delenv("WANDB_API_KEY")
        else:
            monkeypatch.setenv("WANDB_API_KEY", key)
        with pytest.raises(ConfigError, match="does not know who asks") as told:
            follow(place.open(), registry, "unknown")
        assert "WANDB_API_KEY" in told.value.fix and place.server.of("unknown") == []

    def test_offline_it_writes_what_wandb_sync_uploads(
        self,
        place: WandbPlace,
        registry: Registry,
        ring: KeyRing,
        home: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        fill(registry, ring, tmp_path, "later")
        monkeypatch.setenv("WANDB_MODE", "offline")
        mirror = place.open()
        with pytest.raises(ConfigError, match="offline"):
            drift(mirror, registry, "later")
        where = ("--registry", registry.place, *place.options())
        assert run(["registry", "publish", *where, "--json"]) == 0
        written = json.loads(capsys.readouterr().out)["written"]
        assert place.proxy.count == 0 and len(written) == 2
        folders = [one.partition(": ")[2] for one in written]
        assert all(Path(one).parent == home / "wandb" for one in folders)
        monkeypatch.delenv("WANDB_MODE")
        import wandb

        wandb.teardown()
        for _ in range(2):  # the second finds nothing to do
            command = [sys.executable, "-m", "wandb", "sync", *folders]
            subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, timeout=120)
        mirror = place.open()
        assert drift(mirror, registry, "later") == []
        found = place.seen("later")
        assert found["aliases"] == {"production": "1.1.0", "previous": "1.0.0"}
        assert found["versions"]["1.0.0"]["metrics"] == {"sums/score": 0.25, "sums/exact match": 0.5}
        registry.move("later", "production", V1, expected=V2, decision=None, why="back")
        assert len(drift(mirror, registry, "later")) == 3
        follow(mirror, registry, "later")
        assert place.seen("later")["aliases"] == {"production": "1.0.0", "previous": "1.1.0"}


@pytest.mark.parametrize("odd", ["", "registry", "/registry", "team/", "team/a/b", "team/a b", "team/a:b"])
def test_what_is_no_project_is_refused(odd: str, alone: None) -> None:
    with pytest.raises(ConfigError, match="no project") as told:
        WandbMirror(odd)
    assert "ENTITY/PROJECT" in told.value.fix


def test_where_it_is_disabled_nothing_is_shown(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(ConfigError, match="disabled"):
        WandbMirror(TARGET)


@pytest.mark.parametrize(
    "tag", ["golden", "größer", "a/b", "two words", " padded", "a  b", "x:y", "a\n", "", "-_"]
)
def test_tags_that_it_takes_for_tags_are_taken_by_its_client(tag: str) -> None:
    from wandb.sdk.artifacts._validators import validate_tags

    for one in native_tags({"raytrain.tags": tag}):
        assert validate_tags([one]) == [tag]
    assert bool(native_tags({"raytrain.tags": tag})) == (tag in ("golden", "two words", "a  b", "-_"))
