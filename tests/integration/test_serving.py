"""Two replicas on a real Ray Serve: asked by OpenAI's client, promoted under load, killed, ended."""

from __future__ import annotations

import json
import secrets
import shlex
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pyarrow.parquet as pq
import pytest
from bench import Bench, end_ray, free_port, new_ray_folder, processes_below, wait_until
from served_classifiers import peft_probabilities
from served_releases import Releases
from serving_cluster import Server
from serving_site import NUM_TOKENS, PROMPTS, references_of
from tiny_models import save_tiny_llama
from transformers import AutoTokenizer

pytestmark = pytest.mark.alone

TRIED = {"trial-canary": "canary", "trial-shadow": "shadow"}
"""Names that are in a trial, and in which."""
NUM_PAIRS = 20


@pytest.fixture(scope="module", params=["default", pytest.param("ray", marks=pytest.mark.thorough)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Behind what listens by default, which on Linux is HAProxy, and behind Ray Serve's own proxy."""
    folder = tmp_path_factory.mktemp("serving")
    releases = Releases(folder, save_tiny_llama(folder / "base"))
    for seed, version in enumerate(("1.0.0", "1.1.0")):
        releases.release("sums", version, seed=seed + 1)
    releases.promote("sums@1.0.0")
    classifier = releases.release("tools", "1.0.0", seed=3, labels=["clock", "sum"])
    releases.promote("tools@1.0.0")
    for name in TRIED:
        releases.release(name, "1.0.0", seed=4)
        releases.promote(f"{name}@1.0.0")
    versions = dict(list(releases.adapters.items())[:2])
    classifiers = {classifier: releases.adapters.pop(classifier)}
    texts: dict[tuple[str, str], str] = {}
    for digest, adapter in versions.items():
        texts |= references_of(releases.base, digest, adapter)
    assert len(set(texts.values())) > len(PROMPTS), "the test can tell the versions apart"
    port, ray_folder = free_port(), new_ray_folder()
    config = folder / "serving.yaml"
    config.write_text(
        json.dumps(
            {
                "base_model": str(releases.base),
                "releases": {"registry": releases.registry.place, "keys": str(releases.ring.folder)},
                "replicas": {"num_replicas": 2, "cpus_per_replica": 0.5, "routing": "adapters"},
                "trials": [
                    {"name": name, "mode": mode, "share": 1, "pairs": NUM_PAIRS, "slower_by": 10}
                    for name, mode in TRIED.items()
                ],
                "http": {
                    "insecure": True,
                    "port": port,
                    "haproxy": None if request.param == "default" else False,
                    "request_log": {"folder": str(folder / "rows"), "feedback": True, "flush_s": 0.5},
                },
                "storage": {"path": str(folder / "cache")},
            }
        )
    )
    # A token of its own, so that other commands may join the cluster.
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    bench = Bench(folder / "bench", ray_folder, environment=token)
    running = bench.start("serve", "start", config)
    wait_until(
        lambda: "ready at" in running.files[0].read_text() or running.process.poll() is not None,
        150,
        lambda: running.files[1].read_text()[-3000:],
    )
    assert running.process.poll() is None, running.files[1].read_text()[-3000:]
    yield Server(bench, running, releases, f"http://127.0.0.1:{port}", texts, classifiers)
    running.process.kill()
    end_ray(ray_folder)


def test_openai_s_client_is_answered(server: Server) -> None:
    first = next(iter(server.releases.adapters))
    client = server.client
    assert [one.id for one in client.models.list().data] == [
        "base", "sums", "sums@production", "tools", "tools@production",
        "trial-canary", "trial-canary@production", "trial-shadow", "trial-shadow@production",
    ]  # fmt: skip
    whole = client.completions.create(model="sums", prompt=PROMPTS[0], max_tokens=NUM_TOKENS, temperature=0)
    assert whole.choices[0].text == server.texts[first, PROMPTS[0]]
    told = client.chat.completions.create(
        model="sums@1.0.0", messages=[{"role": "user", "content": "five"}], max_tokens=5, temperature=0
    )
    streamed = client.chat.completions.create(
        model="sums", messages=[{"role": "user", "content": "five"}], max_tokens=5, temperature=0, stream=True
    )
    parts = [chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices]
    assert "".join(parts) == told.choices[0].message.content
    with pytest.raises(openai.NotFoundError, match="sums"):
        client.completions.create(model="sum", prompt="x")
    with pytest.raises(openai.BadRequestError, match="context"):
        client.completions.create(model="sums", prompt=[5] * 300)


def test_probes_of_kuberay_and_ours(server: Server) -> None:
    told = {}
    for path in ("/-/healthz", "/-/routes", "/health", "/ready"):
        with urllib.request.urlopen(server.url + path, timeout=30) as answer:
            told[path] = answer.read().decode()
    assert told["/-/healthz"] == "success", "KubeRay's probe of a worker looks for this word"
    assert json.loads(told["/-/routes"]) == {"/": "raytrain"}
    assert json.loads(told["/ready"])["is_ready"]


def test_texts_are_classified(server: Server) -> None:
    body = json.dumps({"model": "tools", "input": PROMPTS}).encode()
    asked = urllib.request.Request(f"{server.url}/v1/classify", body, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        told, digest = json.loads(answer.read()), answer.headers["x-raytrain-digest"]
    tokenizer = AutoTokenizer.from_pretrained(server.releases.base)
    expected = peft_probabilities(
        server.releases.base, server.classifiers[digest], [tokenizer(one)["input_ids"] for one in PROMPTS]
    )
    assert told["raytrain"]["digest"] == digest and told["labels"] == ["clock", "sum"]
    for one, row in zip(told["data"], expected, strict=True):
        assert one["probs"] == pytest.approx(row, abs=1e-5)
    with pytest.raises(openai.BadRequestError, match="ask /v1/classify"):
        server.client.completions.create(model="tools", prompt="x")


def test_the_page_and_the_line_to_type_that_start_tells(server: Server) -> None:
    _, page, line = server.running.files[0].read_text().strip().splitlines()
    assert page == f"the page to try it: {server.url}/"
    with urllib.request.urlopen(f"{server.url}/", timeout=30) as told:
        assert b"<main>" in told.read() and "default-src 'none'" in told.headers["content-security-policy"]
    command = shlex.split(line)
    assert command[0] == "curl"
    done = subprocess.run(
        [*command, "--silent", "--noproxy", "*"], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout)["raytrain"]["digest"] == next(iter(server.releases.adapters))


def test_operated_from_the_command_line(server: Server) -> None:
    second = list(server.releases.adapters)[1]

    def run(*words: str) -> dict[str, Any]:
        outcome = server.bench.run("serve", *words, "--url", server.url, "--json")
        assert outcome.code == 0, outcome.told()
        return outcome.object

    with urllib.request.urlopen(
        urllib.request.Request(f"{server.url}/health", headers={"x-request-id": "mine-1"}), timeout=10
    ) as answer:
        assert answer.headers.get_all("x-request-id") == ["mine-1"]
    server.releases.promote("sums@1.1.0", "staging")
    loaded = run("load", "sums@staging")
    assert loaded["digest"] == second and len({one["replica"] for one in loaded["replicas"]}) == 2
    assert all(one["read_s"] > 0 for one in loaded["replicas"] if not one["was_loaded"])
    with server.load() as load:
        load.wait_for(4)
        drained = run("drain")
        assert drained["is_draining"] and drained["answering"] == 0
    assert load.wrong(server.texts) == [] and load.errors
    assert all("503" in one and "no new requests" in one for one in load.errors), set(load.errors)
    wait_until(
        lambda: any("drained" in one for one in server.ready()["problems"]), 60, lambda: str(server.ready())
    )
    assert run("drain", "--undo")["is_draining"] is False
    with server.load() as load:
        load.wait_for(4)
    assert load.errors == []
    assert [one["kept"] for one in run("drain", "--undo")["replicas"]] == [["sums@1.1.0"]] * 2


def test_a_rollback_has_every_replica_load_it_before_the_switch(server: Server) -> None:
    releases, name = server.releases, "back"
    digests = [releases.release(name, version, seed=7 + n) for n, version in enumerate(("1.0.0", "1.1.0"))]
    for version in ("1.0.0", "1.1.0"):
        releases.promote(f"{name}@{version}")
    places = (
        "--registry",
        str(releases.registry.place),
        "--ring",
        str(releases.ring.folder),
        "--key",
        "release",
    )

    def back(*words: str) -> Any:
        return server.bench.run("rollback", name, "--service", server.url, *places, *words, "--json")

    def in_production() -> object:
        return server.ready()["production"].get(name)

    wait_until(lambda: in_production() == digests[1], 30, lambda: str(server.ready()))
    drill = back("--rehearse")
    assert drill.code == 0 and drill.object["loaded"] and not drill.object["moved"], drill.told()
    assert f"loaded on all 2 replicas at {server.url}" in drill.object["notes"]
    done = back()
    assert done.code == 0 and done.object["loaded"] and done.object["moved"], done.told()
    assert list(done.object["seconds"]) == [
        "verify", "compatible", "weights", "load where it is served", "record", "switch",
    ]  # fmt: skip
    wait_until(lambda: in_production() == digests[0], 30, lambda: str(server.ready()))

    other = Releases(releases.folder / "elsewhere", releases.base)
    for n, version in enumerate(("1.0.0", "1.1.0")):
        other.release(name, version, seed=17 + n)
        other.promote(f"{name}@{version}")
    places = ("--registry", str(other.registry.place), "--ring", str(other.ring.folder), "--key", "release")
    refused = back()
    assert refused.code == 5 and "does not serve from this registry" in refused.error["what"], refused.told()
    assert str(other.registry.state(name).aliases["production"]) == "1.1.0"
    standing = server.bench.run("serve", "drain", "--undo", "--url", server.url, "--json").object
    assert not any(name in kept for one in standing["replicas"] for kept in one["kept"]), standing


def test_a_candidate_beside_production(server: Server) -> None:
    """All callers of one name get it, and of the other production's answer while it is asked as well."""
    releases, folder = server.releases, server.releases.folder / "rows"
    digests = {name: releases.release(name, "1.1.0", seed=5) for name in TRIED}
    for name in TRIED:
        releases.promote(f"{name}@1.1.0", "staging")

    def standing() -> dict[str, str]:
        return {one["name"]: one["standing"] for one in server.ready().get("trials", [])}

    wait_until(lambda: standing() == dict.fromkeys(TRIED, "running"), 60, lambda: str(server.ready()))
    for name, mode in TRIED.items():
        for number in range(NUM_PAIRS):
            told = server.client.completions.create(
                model=name,
                prompt=PROMPTS[number % 5],
                max_tokens=NUM_TOKENS,
                temperature=0,
                user=f"u-{number}",
            )
            found = (told.model_extra or {})["raytrain"]
            assert (found["digest"] == digests[name]) == (mode == "canary"), found
            assert found["trial"] == ("candidate" if mode == "canary" else "production")

    def kept(name: str) -> Counter[tuple[str, str]]:
        rows = [row for file in folder.glob("trials-*.parquet") for row in pq.read_table(file).to_pylist()]
        return Counter(
            (row["arm"], row["digest"]) for row in rows if row["name"] == name and not row["error"]
        )

    wait_until(lambda: kept("trial-shadow").total() == 2 * NUM_PAIRS, 30, lambda: str(kept("trial-shadow")))
    production = str(server.ready()["production"]["trial-shadow"])
    assert kept("trial-shadow") == {
        ("production", production): NUM_PAIRS, ("candidate", digests["trial-shadow"]): NUM_PAIRS,
    }  # fmt: skip
    wait_until(
        lambda: kept("trial-canary") == {("candidate", digests["trial-canary"]): NUM_PAIRS},
        30,
        lambda: str(kept("trial-canary")),
    )
    compared = server.bench.run("serve", "compare", "trial-shadow", "--log", folder, "--json")
    assert compared.code == (5 if compared.object["is_worse"] else 0), compared.told()
    assert compared.object["digests"] == {"production": production, "candidate": digests["trial-shadow"]}
    assert (compared.object["num_pairs"], compared.object["is_complete"]) == (NUM_PAIRS, True)


def test_an_adapter_is_read_by_one_replica_as_long_as_few_ask_for_it(server: Server) -> None:
    names = [f"cold-{number}" for number in range(6)]
    for seed, name in enumerate(names):
        server.releases.release(name, "1.0.0", seed=20 + seed)
        server.releases.promote(f"{name}@1.0.0", "staging")
    wanted = {f"{name}@staging" for name in names}
    wait_until(
        lambda: wanted <= {one.id for one in server.client.models.list().data}, 60, lambda: "they are shown"
    )
    before = server.engine("loads")
    for _ in range(5):
        for name in names:
            server.client.completions.create(model=f"{name}@staging", prompt=PROMPTS[0], max_tokens=1)
    read = server.engine("loads") - before
    assert len(names) <= read <= len(names) + 1, "two replicas would read each twice"


def test_no_word_of_a_prompt_is_in_a_log(server: Server) -> None:
    word, client = "xylophonequartz", server.client
    lost = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(500)}}
    later = {"type": "array", "prefixItems": [{"enum": [1, 2]}, lost], "minItems": 2}
    asked: dict[str, Any] = {
        "model": "sums", "max_tokens": 150, "messages": [{"role": "user", "content": f"the {word}"}],
    }  # fmt: skip
    told = {"x-request-id": "it-is-logged-1"}
    client.chat.completions.create(**asked, extra_headers=told)
    assert list(client.chat.completions.create(**asked, stream=True))
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": later}}
    with pytest.raises(openai.InternalServerError, match="JSON schema"):
        client.chat.completions.create(**asked, response_format=form)
    with pytest.raises(openai.BadRequestError, match="context"):
        client.completions.create(model="sums", prompt=f"{word} " * 300)
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="nobody", prompt=word)

    def holding(text: str) -> list[str]:
        files = [one for one in (server.session() / "logs").glob("**/*") if one.is_file()]
        files += server.running.files
        return [one.name for one in files if text in one.read_text(errors="replace")]

    wait_until(
        lambda: bool(holding("it-is-logged-1")), 30, lambda: "the access log is where it is looked for"
    )
    assert holding(word) == []


def test_ray_s_own_metrics_are_beside_and_headers_tell_nothing(server: Server) -> None:
    (port,) = server.session().glob("metrics_export_port_*")

    def page() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text()}/metrics", timeout=10) as told:
            return str(told.read().decode())

    counted = "ray_serve_deployment_request_counter_total{"
    wait_until(
        lambda: any(one.startswith(counted) and 'deployment="replica"' in one for one in page().splitlines()),
        60,
        lambda: str([one for one in page().splitlines() if one.startswith("ray_serve")][:20]),
    )
    body = json.dumps({"model": "sums", "prompt": "five", "max_tokens": 1}).encode()
    asked = urllib.request.Request(f"{server.url}/v1/completions", body, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        found = {one.lower() for one in answer.headers}
    ours = {
        "content-length",
        "content-type",
        "x-content-type-options",
        "x-raytrain-digest",
        "x-raytrain-model",
    }
    assert found <= ours | {"date", "server", "x-request-id", "connection"}, (
        "the last are Ray Serve's proxy's"
    )


def test_another_base_model_and_no_request_fails(server: Server) -> None:
    """The adapter over it is promoted first: replicas of the old base model go on with the version before."""
    releases, folder = server.releases, server.releases.folder
    first, other = next(iter(releases.adapters)), save_tiny_llama(folder / "other", seed=9)
    second = releases.release("sums", "2.0.0", seed=7, base=other)
    server.texts |= references_of(other, second, releases.adapters[second])
    releases.release("tools", "2.0.0", seed=8, base=other, labels=["clock", "sum"])
    config = json.loads((folder / "serving.yaml").read_text())
    (folder / "other.yaml").write_text(json.dumps(config | {"base_model": str(other)}))
    with server.load() as load:
        load.wait_for(4)
        releases.promote("tools@2.0.0")
        releases.promote("sums@2.0.0")
        started = server.bench.run(
            "serve",
            "start",
            folder / "other.yaml",
            "--address",
            server.address(server.running),
            timeout_s=400,
        )
        assert started.code == 0, started.told()
        server.wait_until_production_is(second)
        load.wait_for(8)
    assert load.errors == []
    assert load.wrong(server.texts) == [], f"{len(load.wrong(server.texts))} of {len(load.answers)}"
    assert {one.digest for one in load.answers} == {first, second}
    assert {one.digest for one in load.answers[-8:]} == {second}


def test_ctrl_c_ends_all_of_it(server: Server) -> None:
    """The last: the server is gone after it."""
    server.running.send(signal.SIGINT)
    outcome = server.running.ended(90)
    assert outcome.code == 0, outcome.told()
    deadline = time.monotonic() + 30
    while processes_below(server.bench.ray_folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_below(server.bench.ray_folder) == []
    status = server.bench.run("serve", "status", "--url", server.url)
    assert status.code == 4 and "nobody answers" in status.stdout + status.stderr


def test_stop_ends_it_from_elsewhere_once_it_has_answered(server: Server) -> None:
    bench, folder = server.bench, server.releases.folder
    config, port = json.loads((folder / "serving.yaml").read_text()), free_port()
    config |= {"replicas": {"cpus_per_replica": 0.5}, "http": {"insecure": True, "port": port}}
    (folder / "alone.yaml").write_text(json.dumps(config))
    running = bench.start("serve", "start", folder / "alone.yaml")
    alone = replace(server, running=running, url=f"http://127.0.0.1:{port}")
    wait_until(
        lambda: "ready at" in running.files[0].read_text() or running.process.poll() is not None,
        150,
        lambda: running.files[1].read_text()[-3000:],
    )
    endless = {"name": "text", "schema": {"type": "string", "minLength": 5000}}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            alone.client.chat.completions.create,
            model="base",
            messages=[{"role": "user", "content": "five"}],
            max_tokens=200,
            response_format={"type": "json_schema", "json_schema": endless},
        )
        wait_until(lambda: asked.done() or alone.answering() > 0, 30, lambda: "it was not asked")
        stopped = bench.run("serve", "stop", "--address", server.address(running), "--json")
        assert stopped.code == 0, stopped.told()
        assert stopped.object == {"was_running": True, "num_left": 0, "is_serve_ended": True}
        assert asked.result(30).choices[0].finish_reason == "length"
    running.send(signal.SIGINT)
    nobody = bench.run("serve", "stop", "--address", f"127.0.0.1:{free_port()}")
    assert nobody.code == 4, nobody.told()


def test_what_cannot_be_served_is_said(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "serving.yaml"
    config.write_text(
        json.dumps({"base_model": str(tmp_path / "nothing"), "http": {"insecure": True, "port": free_port()}})
    )
    started = server.bench.run("serve", "start", config)
    assert started.code == 2, started.told()
    assert str(tmp_path / "nothing") in started.stderr, started.told()
