"""The page at /, in a browser: two versions side by side, what is served, and what is said where something is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from answering_backends import CARDS, ToldBackend, listening, wait_until
from browsers import Page
from served_models import peft_answer
from served_releases import Releases, damaged
from transformers import AutoTokenizer

from raytrain.serving.backend import Readiness, ReplicaLost
from raytrain.serving.engine.request import Overloaded
from raytrain.serving.engine.text_stream import TextStream
from raytrain.serving.http.app import build_app
from raytrain.serving.http.keys import KeyFile
from raytrain.serving.http.section import HttpSection
from raytrain.serving.replica import Replica
from raytrain.serving.section import ServingSection

END, NUM_TOKENS, PROMPT = 2, 16, "What is the sum"
HOSTILE = "<img src=x onerror='window.ran=1'><script>window.ran=1</script></pre><b id=bold>bold</b>"
OPEN = HttpSection(insecure=True, access_log=False)


@pytest.fixture
def releases(base: Path, tmp_path: Path) -> Releases:
    """sums@1.1.0 is in production, after 1.0.0."""
    releases = Releases(tmp_path, base)
    for seed, version in enumerate(("1.0.0", "1.1.0", "1.2.0"), start=3):
        releases.release("sums", version, seed=seed)
    releases.promote("sums@1.0.0")
    releases.promote("sums@1.1.0")
    return releases


@pytest.fixture
def served(releases: Releases) -> Iterator[str]:
    section = {
        "base_model": str(releases.base),
        "releases": {
            "registry": releases.registry.place,
            "keys": str(releases.ring.folder),
            "poll_s": 0.05,
        },
        "engine": {"max_rows": 4, "prefix_cache_mib": 1},
        "storage": {"path": str(releases.folder / "cache")},
    }
    replica = Replica(ServingSection.model_validate(section))
    with listening(build_app(replica, OPEN)) as url:
        yield url
    replica.close()


def expected(releases: Releases, digest: str) -> str:
    """By PEFT, one version at a time."""
    tokenizer = AutoTokenizer.from_pretrained(releases.base)
    stream, ids = TextStream(tokenizer), tokenizer(PROMPT)["input_ids"]
    tokens = peft_answer(releases.base, releases.adapters[digest], ids, NUM_TOKENS, ends=[END])
    return "".join(map(stream.take, tokens)) + stream.finish()


@pytest.mark.slow
def test_two_versions_answer_side_by_side_and_a_promotion_shows_by_itself(
    page: Page, served: str, releases: Releases
) -> None:
    first, second, third = releases.adapters
    page.open(served)
    page.wait(lambda: page.find("#left-model").get_property("value") == "sums@previous", "what served before")
    assert page.find("#right-model").get_property("value") == "sums"
    page.choose("#kind", "text")
    page.fill("#length", str(NUM_TOKENS))
    page.ask()
    for side, version, digest in (("left", "1.0.0", first), ("right", "1.1.0", second)):
        page.wait(lambda side=side: page.text(f"#{side} .end"), "the answer ends")
        assert page.text(f"#{side} pre") == expected(releases, digest)
        facts = dict(
            zip(
                [one.text for one in page.browser.find_elements("css selector", f"#{side} dt")],
                page.browser.find_elements("css selector", f"#{side} dd"),
                strict=True,
            )
        )
        assert facts["answered by"].text == f"sums@{version}"
        assert facts["digest"].get_attribute("title") == digest
        assert facts["digest"].text == digest.removeprefix("sha256:")[:12]
        assert facts["first token"].text.endswith(" s") and float(facts["tokens/s"].text) > 0
    texts = {expected(releases, first), expected(releases, second)}
    assert len(texts) == 2 and "" not in texts, "the test can tell them apart"
    assert "1.1.0" in page.seen("#models")

    releases.promote("sums@1.2.0")
    page.wait(lambda: "sums@production is 1.2.0 now" in page.seen("#news"), "the promotion is told")
    row = page.find("#models tbody tr:nth-child(3)")
    assert "sums@production" in row.text and "1.2.0" in row.text and "loaded" in row.text
    assert page.find("#models tbody tr:nth-child(3) code").get_attribute("title") == third
    page.wait(lambda: "1.2.0" in page.text("#right-model option:checked"), "the choice names it")


@pytest.mark.slow
def test_a_refused_version_stands_there_with_its_reason(page: Page, served: str, releases: Releases) -> None:
    page.open(served)
    place = Path(
        releases.registry.store.bundle_place("sums", [*releases.adapters][2].removeprefix("sha256:"))
    )
    releases.promote("sums@1.2.0", "staging")
    page.wait(lambda: "sums@staging" in page.seen("#models"), "staging is told")
    damaged(place / "adapter" / "adapter_model.safetensors")
    page.wait(lambda: page.seen("#state") == "ready", "nothing has looked at it again")
    releases.ring.generate("another")  # whereupon everything is verified anew
    page.wait(lambda: "refused" in page.seen("#models"), "the refusal is told")
    assert page.seen("#state") == "ready, with problems"
    (row,) = [
        one.text
        for one in page.browser.find_elements("css selector", "#models tbody tr")
        if "refused" in one.text
    ]
    assert "sums@staging" in row and "adapter_model.safetensors" in row


@pytest.mark.slow
def test_texts_of_models_and_of_the_registry_are_text(page: Page) -> None:
    told = Readiness(True, "tiny", {}, (HOSTILE, f"sums@production: {HOSTILE}"))
    with listening(
        build_app(ToldBackend(pieces=[HOSTILE, "\N{RIGHT-TO-LEFT OVERRIDE}end"], readiness_told=told), OPEN)
    ) as url:
        page.open(url)
        page.ask(HOSTILE)
        page.wait(lambda: page.text("#right .end"), "the answer ends")
        assert page.text("#right pre").startswith(HOSTILE)
        assert page.text("#problems li") == HOSTILE
        assert HOSTILE in page.text("#models")
        assert page.run(
            "return [window.ran ?? 0, document.querySelectorAll('#bold, img, body script').length]"
        ) == [0, 1]
        with pytest.raises(Exception, match="TrustedHTML"):
            page.run("document.body.innerHTML = '<b>what a fault of the page could do</b>'")


@pytest.mark.slow
def test_without_a_key_nothing_is_shown_and_a_wrong_one_is_said(page: Page, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    key, operator = file.add("team", ["helper"]), file.add("operations", is_operator=True)
    problem = Readiness(True, "tiny", {}, ("something is wrong",))
    section = HttpSection(api_keys=str(file.path), access_log=False)
    with listening(build_app(ToldBackend(readiness_told=problem), section)) as url:
        page.open(url)
        page.wait(lambda: page.seen("#key-form"), "it asks for a key")
        assert "API key" in page.seen("#fault") and "helper" not in page.browser.page_source
        for wrong, said in (("rt_wrong", "401"), ("nö", "no API key")):
            page.fill("#key", wrong)
            page.find("#key-form button").click()
            page.wait(lambda said=said: said in page.seen("#fault"), "that it is wrong")
        page.fill("#key", key)
        page.find("#key-form button").click()
        page.wait(lambda: "helper@production" in page.seen("#models"), "the models of the key")
        assert not page.seen("#key-form") and not page.seen("#fault")
        assert "operator" in page.seen("#operators") and "something is wrong" not in page.browser.page_source
        assert "tiny" not in page.seen("#left-model"), "this key may not ask the base model"
        page.ask()
        page.wait(lambda: page.text("#right .end"), "it is answered")
        assert page.text("#right pre") == "Hello there"
        assert page.run("return [sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
        page.find("#forget").click()
        page.wait(lambda: page.seen("#key-form") and not page.seen("#models"), "nothing is shown any more")
        page.fill("#key", operator)
        page.find("#key-form button").click()
        page.wait(lambda: "something is wrong" in page.seen("#problems"), "what operators see")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (ToldBackend(refusal=Overloaded(3, 7.0)), ["Too many requests (429)", "3 others wait", "Try again in 7 s"]),
        (ToldBackend(refusal=ReplicaLost("x")), ["It cannot answer now (503)", "ask again"]),
        (ToldBackend(fault=ReplicaLost("x")), ["The answer broke off", "ask again"]),
        (ToldBackend(fault=ValueError("a secret path")), ["The answer broke off", "internal error"]),
    ],
    ids=["queue full", "503", "broken stream", "internal"],
)  # fmt: skip
def test_what_is_wrong_with_an_answer_is_said(page: Page, backend: ToldBackend, said: list[str]) -> None:
    with listening(build_app(backend, OPEN)) as url:
        page.open(url).ask()
        page.wait(lambda: page.seen("#left .fault"), "what is wrong")
        assert all(one in page.seen("#left .fault") for one in said), page.seen("#left .fault")
        assert "secret" not in page.browser.page_source
        assert page.find("#ask").is_enabled()


@pytest.mark.slow
def test_stop_ends_both_answers_on_the_server_too(page: Page) -> None:
    backend = ToldBackend(waits_after=1)
    with listening(build_app(backend, OPEN)) as url:
        page.open(url).ask()
        page.wait(lambda: page.text("#left pre") == page.text("#right pre") == "Hello", "both have begun")
        assert not backend.closed
        page.find("#stop").click()
        page.wait(
            lambda: page.text("#left .end") == page.text("#right .end") == "Stopped.", "both have ended"
        )
        wait_until(lambda: len(backend.closed) == 2, "the server has let both go")
        assert page.text("#left pre") == "Hello", "what was written stays"
        assert not page.find("#stop").is_enabled()


@pytest.mark.slow
def test_a_network_that_is_gone_and_comes_back_and_a_server_that_ends(page: Page) -> None:
    backend = ToldBackend(waits_after=1)
    with listening(build_app(backend, OPEN)) as url:
        page.open(url)
        page.browser.set_network_conditions(offline=True, latency=0, throughput=-1)
        try:
            page.wait(lambda: "cannot be reached" in page.seen("#fault"), "that it is gone")
            assert page.seen("#state") == "not reached"
            page.ask()
            page.wait(lambda: "cannot be reached" in page.seen("#right .fault"), "nothing can be asked")
        finally:
            page.browser.delete_network_conditions()
        backend.readiness_told = Readiness(False, "tiny", {}, ("helper is in production and not loaded",))
        page.wait(lambda: page.seen("#state") == "not ready" and not page.seen("#fault"), "it is back")
        assert "helper is in production and not loaded" in page.seen("#problems")
        page.ask()
        page.wait(lambda: page.text("#left pre") == "Hello", "the answer begins")
    page.wait(lambda: "The answer broke off" in page.seen("#left .fault"), "it cannot end")


@pytest.mark.slow
def test_it_asks_its_own_server_alone_and_every_control_has_a_name(page: Page) -> None:
    with listening(build_app(ToldBackend(), OPEN)) as url:
        page.browser.get_log("performance")
        page.open(url)
        page.ask()
        page.wait(lambda: page.text("#right .end"), "it is answered")
        events = [json.loads(one["message"])["message"] for one in page.browser.get_log("performance")]
        requested = {
            one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"
        }
        assert {one.removeprefix(url) for one in requested} == {
            "/",
            "/version",
            "/ready",
            "/v1/models",
            "/v1/chat/completions",
        }
        assert page.browser.get_log("browser") == [], "no fault, and nothing that the policy forbids"
        controls = page.browser.find_elements("css selector", "input, select, textarea, button, pre")
        assert len(controls) == 13 and all(one.accessible_name for one in controls if one.is_displayed())
        assert page.find("#state").aria_role == "status"
        for width in (320, 375, 1200):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 1000}
            page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            beyond = page.run("return document.body.scrollWidth - document.documentElement.clientWidth")
            assert beyond <= 0, f"nothing stands beyond {width} pixels"
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        paper = [colour_in(page, scheme) for scheme in ("light", "dark")]
        assert paper == ["rgb(255, 255, 255)", "rgb(18, 22, 28)"]
        page.find("#prompt").send_keys("", "\ue009\ue007")  # Ctrl + Enter
        page.wait(lambda: page.text("#right .end"), "the keyboard asks as well")


def colour_in(page: Page, scheme: str) -> str:
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    return str(page.run("return getComputedStyle(document.body).backgroundColor"))


def test_the_page_is_open_and_holds_nothing_of_the_server(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.add("team")
    with listening(build_app(ToldBackend(), HttpSection(api_keys=str(file.path)))) as url:
        open_to_all = requests.get(f"{url}/", timeout=30)
        assert open_to_all.status_code == 200
        assert not any(one.id in open_to_all.text or one.digest in open_to_all.text for one in CARDS)
        wrong = requests.get(f"{url}/", headers={"authorization": "Bearer wrong"}, timeout=30)
        assert wrong.content == open_to_all.content
        policy = open_to_all.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "*" not in policy
        assert "frame-ancestors 'none'" in policy and "require-trusted-types-for 'script'" in policy
        assert open_to_all.headers["cache-control"] == "no-store"
        assert requests.post(f"{url}/", timeout=30).status_code == 405
        assert requests.get(f"{url}//", timeout=30).status_code == 401
    with listening(build_app(ToldBackend(), OPEN)) as url:
        other = requests.get(f"{url}/", headers={"host": "attacker.example"}, timeout=30)
        assert other.status_code == 403, "a name that was made to lead here sees not even the page"
