"""Loaded, unloaded and drained on all replicas, from any ingress."""

from __future__ import annotations

import asyncio
import io
import pickle
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import requests
from answering_backends import listening
from served_models import peft_answer
from served_releases import Releases, damaged

from raytrain.cli import main
from raytrain.errors import IntegrityError, NotRegisteredError, PlatformError, RefusedError
from raytrain.serving.backend import Ask, Draining
from raytrain.serving.engine.request import Sampling
from raytrain.serving.http.app import build_app
from raytrain.serving.http.keys import KeyFile
from raytrain.serving.http.section import HttpSection
from raytrain.serving.operations.protocol import InProduction
from raytrain.serving.operations.remote import RemoteOperations
from raytrain.serving.operations.replica import OperatedReplica
from raytrain.serving.operations.wanted import Wanted
from raytrain.serving.remote import Refusal
from raytrain.serving.replica import Replica
from raytrain.serving.section import ServingSection

pytestmark = pytest.mark.whole

PROMPT = "What is the sum"
EXPECTED = 6


class Replicas:
    """Real replicas in this process, behind as much of Ray Serve's handle as operators use."""

    def __init__(self, *replicas: Replica) -> None:
        self.all = list(replicas)
        self.told: list[str] = []

    def broadcast(self, method: str, *args: Any) -> Replicas:
        self._call = method, pickle.loads(pickle.dumps(args))
        self.told.append(method)
        return self

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[Any]:
        assert return_exceptions
        method, args = self._call
        async with asyncio.timeout(timeout_s):
            told = [getattr(OperatedReplica(one), method)(*args) for one in self.all]
            return list(pickle.loads(pickle.dumps(await asyncio.gather(*told))))

    @property
    def find(self) -> Replicas:
        return self

    async def remote(self, reference: str) -> Any:
        try:
            return await OperatedReplica(self.all[0]).find(reference)
        except PlatformError as error:
            return Refusal(error)


@pytest.fixture
def releases(base: Path, tmp_path: Path) -> Releases:
    """sums@1.0.0 is in production, 1.1.0 and 1.2.0 are in staging or were."""
    releases = Releases(tmp_path, base)
    for seed, version in enumerate(("1.0.0", "1.1.0", "1.2.0"), 1):
        releases.release("sums", version, seed=seed)
        releases.promote(f"sums@{version}", "staging" if version != "1.0.0" else "production")
    return releases


Start = Callable[..., Replica]


@pytest.fixture
def start(releases: Releases) -> Iterator[Start]:
    started: list[Replica] = []

    def begin(**engine: Any) -> Replica:
        section = {
            "base_model": str(releases.base),
            "releases": {"registry": releases.registry.place, "keys": str(releases.ring.folder)},
            "engine": {"max_rows": 4, "prefix_cache_mib": 1, **engine},
            "storage": {"path": str(releases.folder / "cache")},
        }
        started.append(Replica(ServingSection.model_validate(section), f"replica-{len(started)}"))
        return started[-1]

    yield begin
    for one in started:
        one.close()


def digest_of(releases: Releases, version: str) -> str:
    return releases.registry.find(f"sums@{version}").digest


async def answered(replica: Replica, model: str) -> list[int]:
    ask = Ask("r", model, PROMPT, Sampling(max_new_tokens=EXPECTED, top_logprobs=0))
    items = [one async for one in replica.generate(ask)]
    return [token.id for one in items[1:] for token in one.tokens]  # type: ignore[union-attr]


def test_loaded_on_all_before_anybody_asks_and_kept(releases: Releases, start: Start) -> None:
    replicas = Replicas(start(), start())
    digest = digest_of(releases, "1.1.0")
    target, found = asyncio.run(RemoteOperations(replicas).load("sums@1.1.0"))
    assert (target.model, target.digest) == ("sums@1.1.0", digest)
    assert [one.replica for one in found] == ["replica-0", "replica-1"]
    assert all(one.verify_s > 0 and one.read_s > 0 and one.put_s > 0 and not one.was_loaded for one in found)
    for replica in replicas.all:
        loads = replica.residents.loads
        assert asyncio.run(answered(replica, "sums@1.1.0")) == _expected(releases, digest)
        assert replica.residents.loads == loads, "nothing was read for the request"
    again = asyncio.run(RemoteOperations(replicas).load("sums@1.1.0"))[1]
    assert all(one.was_loaded and one.read_s == 0 for one in again)


def test_loaded_on_all_before_a_switch_and_kept_by_nobody(releases: Releases, start: Start) -> None:
    replicas = Replicas(start(), start())
    operations = RemoteOperations(replicas)
    target, found = asyncio.run(operations.load("sums@1.1.0", keep=False))
    assert target.digest == digest_of(releases, "1.1.0") and len(found) == 2
    assert [one.kept for one in asyncio.run(operations.standing())] == [(), ()]
    for replica in replicas.all:
        loads = replica.residents.loads
        assert asyncio.run(answered(replica, "sums@1.1.0")) == _expected(releases, target.digest)
        assert replica.residents.loads == loads, "nothing was read for the request"


def _expected(releases: Releases, digest: str) -> list[int]:
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(releases.base)(PROMPT)["input_ids"]
    return peft_answer(releases.base, releases.adapters[digest], ids, EXPECTED, ends=[2])


def test_an_alias_is_the_version_that_it_names_now(releases: Releases, start: Start) -> None:
    operations = RemoteOperations(Replicas(start()))
    assert asyncio.run(operations.load("sums@staging"))[0].model == "sums@1.2.0"
    assert asyncio.run(operations.load("sums"))[0].model == "sums@1.0.0"
    assert asyncio.run(operations.standing())[0].kept == ("sums@1.0.0", "sums@1.2.0")


def test_a_replica_that_starts_later_learns_it_and_so_does_an_ingress(
    releases: Releases, start: Start
) -> None:
    replicas = Replicas(start())
    first, second = RemoteOperations(replicas), RemoteOperations(replicas)
    asyncio.run(first.load("sums@1.1.0"))
    replicas.all.append(start())

    async def followed() -> None:
        following = asyncio.create_task(second.follow())  # it was told nothing by anybody
        try:
            async with asyncio.timeout(30):
                while any(one.kept != ("sums@1.1.0",) for one in await second.standing()):
                    await asyncio.sleep(0.05)
        finally:
            following.cancel()

    asyncio.run(followed())
    del replicas.all[0]
    asyncio.run(second.unload("sums@1.1.0"))
    assert replicas.all[0].residents.resident() == [digest_of(releases, "1.0.0")]


def test_what_may_not_be_served_is_loaded_nowhere(releases: Releases, start: Start) -> None:
    operations = RemoteOperations(replicas := Replicas(start(), start()))
    with pytest.raises(NotRegisteredError, match=r"sums@9\.0\.0"):
        asyncio.run(operations.load("sums@9.0.0"))
    with pytest.raises(NotRegisteredError, match="others"):
        asyncio.run(operations.load("others@production"))
    digest = digest_of(releases, "1.2.0").removeprefix("sha256:")
    place = Path(releases.registry.store.bundle_place("sums", digest))
    damaged(place / "adapter" / "adapter_model.safetensors")
    with pytest.raises(IntegrityError) as refused:
        asyncio.run(operations.load("sums@1.2.0"))
    assert "2 of 2 replicas" in refused.value.why and "adapter_model" in refused.value.why
    (key,) = releases.ring.known()
    releases.ring.revoke(key.id, "lost")
    with pytest.raises(RefusedError):
        asyncio.run(operations.load("sums@1.1.0"))
    for replica in replicas.all:
        assert replica.wishes.wanted.loaded == [] and replica.wishes.problems == []


def test_production_stays_and_another_goes(releases: Releases, start: Start) -> None:
    operations = RemoteOperations(replicas := Replicas(start()))
    with pytest.raises(InProduction) as kept:
        asyncio.run(operations.unload("sums@1.0.0"))
    assert "sums" in kept.value.why and "promote" in kept.value.fix
    asyncio.run(operations.load("sums@1.1.0"))
    (gone,) = asyncio.run(operations.unload("sums@1.1.0"))[1]
    assert gone.was_loaded and not gone.is_in_use
    assert replicas.all[0].residents.resident() == [digest_of(releases, "1.0.0")]
    (nothing,) = asyncio.run(operations.unload("sums@1.1.0"))[1]
    assert not nothing.was_loaded


def test_what_is_answering_goes_when_it_has_answered(releases: Releases, start: Start) -> None:
    operations = RemoteOperations(replicas := Replicas(start()))
    (replica,) = replicas.all
    digest = digest_of(releases, "1.1.0")

    async def across() -> None:
        await operations.load("sums@1.1.0")
        ask = Ask("long", "sums@1.1.0", PROMPT, Sampling(max_new_tokens=60))
        answer = replica.generate(ask)
        await anext(answer)
        assert (await operations.unload("sums@1.1.0"))[1][0].is_in_use
        assert digest in replica.residents.resident()
        async for _ in answer:
            pass
        assert digest not in replica.residents.resident()

    asyncio.run(across())


def test_what_is_kept_gives_way_to_production_alone(releases: Releases, start: Start) -> None:
    names = ["one", "two", "three", "four"]
    for seed, name in enumerate(names, 20):
        releases.release(name, "1.0.0", seed=seed, rank=64)
        releases.promote(f"{name}@1.0.0", "staging")
    replica = start(adapter_mib=1)  # 64 ranks take 0.25 MiB: three of them, and production's four ranks
    operations = RemoteOperations(Replicas(replica))
    for name in names[:3]:
        asyncio.run(operations.load(f"{name}@1.0.0"))
    with pytest.raises(RefusedError) as full:
        asyncio.run(operations.load("four@1.0.0"))
    assert "no room" in full.value.why and "unload another" in full.value.fix
    assert asyncio.run(operations.standing())[0].kept == ("one@1.0.0", "three@1.0.0", "two@1.0.0")
    replica.routes.stop()
    releases.promote("four@1.0.0")
    replica.routes.refresh()
    assert replica.routes.table.production["four"].digest in replica.residents.resident()
    assert asyncio.run(operations.standing())[0].kept == ("three@1.0.0", "two@1.0.0"), (
        "the least recently used went"
    )


def test_drained_and_taken_up_again(start: Start) -> None:
    operations = RemoteOperations(replicas := Replicas(start(), start()))
    busy = replicas.all[1]

    async def across() -> None:
        answer = busy.generate(Ask("long", "sums", PROMPT, Sampling(max_new_tokens=60)))
        await anext(answer)
        found = await operations.drain(is_on=True)
        assert [(one.is_draining, one.answering) for one in found] == [(True, 0), (True, 1)]
        for replica in replicas.all:
            with pytest.raises(Draining):
                await answered(replica, "sums")
            told = await replica.readiness()
            assert not told.is_ready and any("drained" in one for one in told.problems)
        async for _ in answer:
            pass
        assert [one.answering for one in await operations.standing()] == [0, 0]
        await RemoteOperations(replicas).drain(is_on=False)  # from another ingress
        assert await answered(busy, "sums") and (await busy.readiness()).is_ready

    asyncio.run(across())


def test_of_two_who_want_otherwise_the_later_counts() -> None:
    first = Wanted().loading("a@1.0.0", is_on=True).draining(is_on=True)
    second = first.loading("a@1.0.0", is_on=False)
    other = Wanted().loading("b@1.0.0", is_on=True)
    for merged in (first.merged(second).merged(other), other.merged(second.merged(first))):
        assert (merged.loaded, merged.is_draining) == (["b@1.0.0"], True)
    ahead = Wanted(
        {key: type(one)((one.stamp[0] + 10**15, ""), one.is_on) for key, one in first.wishes.items()}
    )
    assert not ahead.draining(is_on=False).merged(ahead).is_draining, "a clock that is ahead"


class Open:
    """One replica as a `Backend`, and an ingress over it."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def generate(self, ask: Ask) -> AsyncGenerator[Any]:
        return self._replica.generate(ask)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replica, name)


@pytest.mark.slow
def test_over_http_from_the_command_line(releases: Releases, start: Start, tmp_path: Path) -> None:
    replica = start()
    file = KeyFile(tmp_path / "keys.json")
    operator, user = file.add("operations", is_operator=True), file.add("user")
    section = HttpSection(api_keys=str(file.path))
    with listening(build_app(Open(replica), section, RemoteOperations(Replicas(replica)))) as url:

        def run(*words: str, key: str = operator) -> tuple[int, str]:
            told = io.StringIO()
            with redirect_stdout(told), redirect_stderr(told):
                code = main.run(["serve", *words, "--url", url, "--api-key", key])
            return code, told.getvalue()

        code, told = run("load", "sums@staging")
        assert code == 0 and "sums@1.2.0 is loaded on all 1 replicas" in told and "replica-0" in told
        assert run("load", "sums@staging", "--json")[1].count('"was_loaded": true') == 1
        assert run("load", "sums@9.9.9")[0] == 5
        assert run("load", "sums@canary")[0] == 5
        assert run("load", "sums@1.x")[0] == 2
        code, told = run("unload", "sums@production")
        assert code == 5 and "sums@1.0.0 stays loaded" in told
        code, told = run("unload", "sums@1.2.0")
        assert code == 0 and "unloaded" in told
        for command in (("load", "sums@staging"), ("drain",)):
            code, told = run(*command, key=user)
            assert code == 4 and "operator" in told
        assert run("load", "../etc")[0] == 4
        code, told = run("drain", "--timeout", "5")
        assert code == 0 and "nothing is under way" in told
        asked = {"model": "sums", "prompt": "x", "max_tokens": 2}
        head = {"authorization": f"Bearer {user}"}
        refused = requests.post(f"{url}/v1/completions", json=asked, headers=head, timeout=30)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert int(refused.headers["retry-after"]) > 0
        assert requests.get(f"{url}/ready", timeout=30).status_code == 503
        assert requests.get(f"{url}/health", timeout=30).status_code == 200
        code, told = run("status")
        assert code == 4 and "drained" in told
        assert run("drain", "--undo")[0] == 0
        assert requests.post(f"{url}/v1/completions", json=asked, headers=head, timeout=30).status_code == 200
