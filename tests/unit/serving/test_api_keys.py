"""Who may ask, what, and how often."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from hmac import compare_digest
from pathlib import Path

import pytest
import requests
from answering_backends import ToldBackend, listening, wait_until

from raytrain.errors import ConfigError, IntegrityError, PlatformError, RefusedError
from raytrain.serving.http.app import build_app
from raytrain.serving.http.errors import ApiError
from raytrain.serving.http.keys import ApiKey, KeyFile, find_key
from raytrain.serving.http.limits import Doorkeeper
from raytrain.serving.http.section import HttpSection

pytestmark = pytest.mark.whole

TEXT = {"model": "helper", "prompt": "Hi"}


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "serving" / "keys.json")


def section_of(file: KeyFile, **settings: object) -> HttpSection:
    return HttpSection(api_keys=str(file.path), **settings)  # type: ignore[arg-type]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_token_is_told_once_and_its_file_is_its_owners(file: KeyFile) -> None:
    token = file.add("search-team", ["helper"])
    secret = token.split("_", 2)[2]
    assert len(secret) == 43
    assert secret not in file.path.read_text()
    assert file.path.stat().st_mode & 0o777 == 0o600
    found = find_key(token, file.known())
    assert found is not None
    assert (found.name, found.models) == ("search-team", ("helper",))


def test_nothing_but_the_token_is_the_key(file: KeyFile) -> None:
    token, other = file.add("a"), file.add("b")
    keys = file.known()
    last = "A" if token[-1] != "A" else "B"
    mixed = "_".join([*token.split("_", 2)[:2], other.split("_", 2)[2]])
    wrong = ["", "rt_", token[:-1], token[:-1] + last, token + "x", token.upper(), mixed, "rt_000000000000_" + "A" * 43,
             "é" * 60, "\ud800"]  # fmt: skip
    assert [find_key(one, keys) for one in wrong] == [None] * len(wrong)
    hash_as_token = f"rt_{keys[0].id}_{keys[0].hash[:43]}"
    assert find_key(hash_as_token, keys) is None


def test_an_id_that_nobody_has_is_compared_as_any_other(
    file: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the time that a refusal takes would tell which ids there are."""
    token = file.add("a")
    compared: list[tuple[int, int]] = []

    def spy(left: str, right: str) -> bool:
        compared.append((len(left), len(right)))
        return compare_digest(left, right)

    monkeypatch.setattr("raytrain.serving.http.keys.hmac.compare_digest", spy)
    secret = token.split("_", 2)[2]
    for asked in (f"rt_{'0' * 12}_{secret}", token[:-1] + ("A" if token[-1] != "A" else "B"), "no token"):
        assert find_key(asked, file.known()) is None
    assert find_key(token, file.known()) is not None
    assert compared == [(64, 64)] * 4, "once each, and hashes of the same length"


@pytest.mark.parametrize(
    ("models", "asked", "may"),
    [
        (("*",), "anything@1.0.0", True),
        (("helper",), "helper", True),
        (("helper",), "helper@production", True),
        (("helper",), "helper2", False),
        (("helper@1.2.0",), "helper@1.2.0", True),
        (("helper@1.2.0",), "helper", False),
        ((), "helper", False),
    ],
)
def test_a_scope_is_a_name_with_all_its_versions_or_one(
    models: tuple[str, ...], asked: str, may: bool
) -> None:
    assert ApiKey("i", "n", models, "s", "h", "c").may_use(asked) is may


def test_a_file_that_others_may_read_is_refused(file: KeyFile) -> None:
    file.add("a")
    file.path.chmod(0o644)
    with pytest.raises(RefusedError, match="open to others"):
        build_app(ToldBackend(), section_of(file))


@pytest.mark.parametrize("content", ["", "[]", '{"keys": [{"id": 1}]}', "\x00"])
def test_a_file_that_is_none_is_refused(file: KeyFile, content: str) -> None:
    file.add("a")
    file.path.write_text(content)
    with pytest.raises(IntegrityError):
        file.known()


def test_nothing_starts_where_nobody_could_ask_or_anybody(file: KeyFile) -> None:
    with pytest.raises(ConfigError, match="nobody may ask"):
        build_app(ToldBackend(), section_of(file))
    for host in ("0.0.0.0", "10.0.0.1", "::", "example.org"):
        with pytest.raises(ValueError, match="insecure takes no requests"):
            HttpSection(insecure=True, host=host)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert HttpSection(insecure=True, host=host).insecure


def test_keys_open_what_is_in_their_scope_and_nothing_else(file: KeyFile) -> None:
    helper, tiny = file.add("helper-team", ["helper"]), file.add("tiny-team", ["tiny"])
    backend = ToldBackend()
    with listening(build_app(backend, section_of(file))) as url:
        for headers in ({}, {"authorization": "Basic eDp5"}, bearer("rt_wrong"), bearer(helper[:-1] + "!")):
            for route in ("/v1/models", "/v1/completions", "/metrics", "/nowhere"):
                refused = requests.get(url + route, headers=headers, timeout=30)
                assert refused.status_code == 401, route
                assert refused.json()["error"]["type"] == "authentication_error"
                assert refused.headers["www-authenticate"] == "Bearer"
        assert (
            requests.post(f"{url}/v1/completions", json=TEXT, headers=bearer(helper), timeout=30).status_code
            == 200
        )
        forbidden = requests.post(f"{url}/v1/completions", json=TEXT, headers=bearer(tiny), timeout=30)
        assert (forbidden.status_code, forbidden.json()["error"]["code"]) == (403, "model_not_in_scope")
        listed = requests.get(f"{url}/v1/models", headers=bearer(tiny), timeout=30).json()["data"]
        assert [one["id"] for one in listed] == ["tiny"]
        hidden = requests.get(f"{url}/v1/models/helper", headers=bearer(tiny), timeout=30)
        assert hidden.status_code == 404
        assert "helper@production" not in hidden.text, "another team's models are not told"
    assert len(backend.asks) == 1


def test_operators_see_the_numbers_and_probes_the_least(file: KeyFile) -> None:
    user, operator = file.add("user"), file.add("operator", [], is_operator=True)
    with listening(build_app(ToldBackend(), section_of(file))) as url:
        assert requests.get(f"{url}/health", timeout=30).json() == {"status": "ok"}
        assert requests.get(f"{url}/version", timeout=30).status_code == 200
        assert requests.get(f"{url}/ready", timeout=30).json() == {"is_ready": True}
        assert requests.get(f"{url}/ready", headers=bearer("rt_wrong"), timeout=30).json() == {
            "is_ready": True
        }
        whole = requests.get(f"{url}/ready", headers=bearer(operator), timeout=30).json()
        assert whole["production"] == {"helper": "1" * 64}
        assert requests.get(f"{url}/metrics", headers=bearer(user), timeout=30).status_code == 403
        assert requests.get(f"{url}/metrics", headers=bearer(operator), timeout=30).status_code == 200


def test_a_key_that_is_removed_opens_nothing_soon_after(file: KeyFile) -> None:
    token, other = file.add("a"), file.add("b")
    with listening(build_app(ToldBackend(), section_of(file))) as url:

        def status(one: str) -> int:
            return requests.get(f"{url}/v1/models", headers=bearer(one), timeout=30).status_code

        assert status(token) == 200
        file.remove(token.split("_")[1])
        wait_until(lambda: status(token) == 401, "the key is forgotten", 10)
        new = file.add("c")
        wait_until(lambda: status(new) == 200, "the new key is known", 10)
        file.path.write_text("broken")
        os.utime(file.path, (1, 1))
        assert status(other) == 200


def test_several_ingresses_let_in_their_shares() -> None:
    section = HttpSection(insecure=True, requests_per_minute=6, num_ingresses=3)
    key, now = ApiKey("a", "n", ("*",), "s", "h", "c"), [0.0]
    keepers = [Doorkeeper(section, clock=lambda: now[0]) for _ in range(3)]

    def let_in(asked: ApiKey) -> int:
        num = 0
        for keeper in keepers * 6:
            with suppress(ApiError):
                keeper.count(asked)
                num += 1
        return num

    assert let_in(key) == 6
    now[0] += 60
    assert let_in(key) == 6
    rare = ApiKey("b", "n", ("*",), "s", "h", "c", requests_per_minute=1)
    assert let_in(rare) == 3, "each lets in one at least"
    now[0] += 60
    assert let_in(rare) == 0, "and no more than its share after it"


def test_a_key_may_ask_so_often_a_minute() -> None:
    now = [0.0]
    keeper = Doorkeeper(HttpSection(insecure=True, requests_per_minute=6), clock=lambda: now[0])
    key, other = (ApiKey(one, "n", ("*",), "s", "h", "c") for one in "ab")
    for _ in range(6):
        keeper.count(key)
    with pytest.raises(ApiError) as refused:
        keeper.count(key)
    assert refused.value.status == 429
    assert refused.value.retry_after_s == pytest.approx(10)
    keeper.count(other)
    now[0] = 10.01
    keeper.count(key)
    with pytest.raises(ApiError):
        keeper.count(key)
    now[0] = 10_000.0
    for _ in range(6):
        keeper.count(key)
    with pytest.raises(ApiError):
        keeper.count(key)


def test_a_keys_own_limit_is_told_over_http(file: KeyFile) -> None:
    slow, free = file.add("slow", requests_per_minute=1), file.add("free")
    with listening(build_app(ToldBackend(), section_of(file))) as url:
        statuses = [
            requests.post(f"{url}/v1/completions", json=TEXT, headers=bearer(slow), timeout=30) for _ in "ab"
        ]
        assert [one.status_code for one in statuses] == [200, 429]
        assert 0 < int(statuses[1].headers["retry-after"]) <= 60
        assert statuses[1].json()["error"]["code"] == "rate_limit_exceeded"
        assert requests.get(f"{url}/v1/models", headers=bearer(free), timeout=30).status_code == 200


def test_a_wrong_key_is_said_to_be_wrong_in_words(file: KeyFile) -> None:
    with pytest.raises(PlatformError, match="no name for a key"):
        file.add("two words")
    with pytest.raises(ConfigError, match="no API key"):
        file.remove("none")
    token = file.add("a", requests_per_minute=3)
    assert json.loads(file.path.read_text())["keys"][0]["id"] == token.split("_")[1]


def test_without_keys_this_machine_is_asked_by_its_own_name_only(file: KeyFile) -> None:
    def status(url: str, host: str) -> int:
        return requests.get(f"{url}/v1/models", headers={"host": host}, timeout=30).status_code

    with listening(build_app(ToldBackend(), HttpSection(insecure=True))) as url:
        for own in ("localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "[::1]"):
            assert status(url, own) == 200, own
        for foreign in ("page.example", "page.example:8000", "localhost.page.example", ""):
            assert status(url, foreign) == 403, foreign
    token = file.add("a")
    with listening(build_app(ToldBackend(), section_of(file))) as url:
        headers = {**bearer(token), "host": "models.example"}
        assert requests.get(f"{url}/v1/models", headers=headers, timeout=30).status_code == 200
