"""Endpoints over real HTTP: answered, slow, broken, gone, and gone on with."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from endpoint_server import Instead, serve
from suites import write_suite

from raytrain.errors import ConfigError, EndpointError
from raytrain.evaluation.answering.attempts import Attempts
from raytrain.evaluation.answering.endpoint import Endpoint
from raytrain.evaluation.answering.settings import EndpointSection, EvaluateSettings, settings_from
from raytrain.evaluation.evaluate import evaluate
from raytrain.evaluation.items import Suite, load_items
from raytrain.evaluation.suite import load_suite
from raytrain.runs.records import open_records

pytestmark = pytest.mark.whole


def asked(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"] if "messages" in body else body["prompt"])


def adds(question: str) -> str:
    number = int(question.split("of ")[1].split()[0])
    return f"That is {number + 3}. And more"


@pytest.fixture
def sums(tmp_path: Path) -> Suite:
    chat = {"mode": "chat", "template": "{question}", "system": "Add."}
    return load_items(
        load_suite(
            write_suite(tmp_path, "sums", prompt=chat, generation={"max_new_tokens": 9, "stop": [" And"]})
        )
    )


def quick(**endpoint: Any) -> EvaluateSettings:
    given = {"first_wait_s": 0, "max_retries": 2, "concurrency": 3, **endpoint}
    return settings_from([f"endpoint.{key}={value}" for key, value in given.items()])


def test_answers_are_asked_for_greedily_and_scored(sums: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "s3cret")
    with serve(adds) as served:
        result = evaluate(served.url, [sums], quick(api_key_variable="A_KEY"))
    assert result.evaluation is not None
    report = result.evaluation.report
    assert report.suites["sums"].score == 1.0 and report.model.base_model == "only-model"
    assert {record.output for record in result.evaluation.records["sums"]} >= {"That is 3.", "That is 14."}
    body = served.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "Add."}
    assert (body["temperature"], body["max_tokens"], body["stop"]) == (0, 9, [" And"])
    assert all(headers["Authorization"] == "Bearer s3cret" for headers in served.headers)
    assert len(served.bodies) == 12 and report.suites["sums"].num_prompt_tokens == 7 * 12
    artifact = result.evaluation.artifact
    assert not any(b"s3cret" in file.read_bytes() for file in artifact.path.rglob("*") if file.is_file())


def test_errors_are_tried_again(sums: Suite) -> None:
    with serve(adds, lambda number, _: (503, "busy") if number % 2 else None) as served:
        result = evaluate(served.url, [sums], quick(max_retries=8, concurrency=1))
    assert result.evaluation is not None and result.evaluation.report.suites["sums"].score == 1.0
    assert len(served.bodies) == 24


@pytest.mark.parametrize("status", [500, 429])
def test_one_that_breaks_down_is_gone_on_with(sums: Suite, status: int) -> None:
    with serve(adds, lambda number, _: (status, "out of memory") if number > 5 else None) as served:
        with pytest.raises(EndpointError, match=f"status {status}") as broken:
            evaluate(served.url, [sums], quick())
        assert "out of memory" in broken.value.why and broken.value.exit_code == 4
        answered = 5
        before = len(served.bodies)
        port = served.url
    with pytest.raises(EndpointError, match="does not answer"):
        evaluate(port, [sums], quick(model="only-model"))
    assert before >= answered + 3


def test_what_was_answered_is_not_asked_again(sums: Suite) -> None:
    broken = [True]
    with serve(adds, lambda number, _: (500, "") if broken[0] and number > 5 else None) as served:
        with pytest.raises(EndpointError):
            evaluate(served.url, [sums], quick(concurrency=1))
        before = len(served.bodies)
        broken[0] = False
        result = evaluate(served.url, [sums], quick(concurrency=1))
        assert result.evaluation is not None and result.evaluation.report.suites["sums"].score == 1.0
        assert len(served.bodies) - before == 12 - 5


def test_an_evaluation_of_a_loopback_endpoint_belongs_to_its_machine(
    sums: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(adds) as served:
        runs = []
        for host in ("one", "other", "one"):
            monkeypatch.setattr("socket.gethostname", lambda host=host: host)
            runs.append(evaluate(served.url, [sums], quick()))
        assert len(served.bodies) == 24
    one, other, again = runs
    assert one.run_id == again.run_id != other.run_id and again.was_done_before
    assert one.evaluation is not None and one.evaluation.report.model.host == "one"


@pytest.mark.parametrize(
    ("url", "belongs"),
    [
        ("http://localhost:8000", True),
        ("http://LocalHost./v1", True),
        ("http://api.localhost", True),
        ("https://127.0.0.1", True),
        ("http://127.9.8.7:80/v1", True),
        ("http://[::1]:8000", True),
        ("http://0.0.0.0:8000", True),
        ("http://10.0.0.1:8000", False),
        ("http://localhost.example.com", False),
        ("http://127.example.com", False),
        ("http://[fe80::1]:8000", False),
    ],
)
def test_which_addresses_belong_to_a_machine(
    monkeypatch: pytest.MonkeyPatch, url: str, belongs: bool
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    with Endpoint(url, EndpointSection(model="named")) as endpoint:
        assert endpoint.identity.host == ("here" if belongs else None)


def test_a_timeout_is_an_error_of_the_endpoint(sums: Suite) -> None:
    with serve(adds, slow_s=0.5) as served, pytest.raises(EndpointError, match="does not answer") as late:
        evaluate(served.url, [sums], quick(timeout_s=0.05, max_retries=1, model="m"))
    assert "2 attempts" in late.value.why


def test_a_question_that_it_refuses_is_a_counted_item(sums: Suite) -> None:
    def refuse(_: int, body: dict[str, Any]) -> tuple[int, str] | None:
        return (400, "context too long") if " 7 " in body["messages"][-1]["content"] else None

    with serve(adds, refuse) as served:
        result = evaluate(served.url, [sums], quick())
    assert result.evaluation is not None
    report, records = result.evaluation.report.suites["sums"], result.evaluation.records["sums"]
    assert (report.num_failed, report.score) == (1, 11 / 12)
    assert [one.error for one in records if one.error] == ["the endpoint answered 400: context too long"]


@pytest.mark.parametrize(
    "garbage", ["<html>", '{"choices": []}', '{"choices": [{"message": 3}]}', "[]", "[" * 99_999]
)
def test_garbage_is_a_counted_item(sums: Suite, garbage: str) -> None:
    with serve(adds, lambda number, _: (200, garbage) if number == 2 else None) as served:
        result = evaluate(served.url, [sums], quick(concurrency=1))
    assert result.evaluation is not None and result.evaluation.report.suites["sums"].num_failed == 1


def test_a_wrong_key_or_name_ends_it_at_once(sums: Suite) -> None:
    with serve(adds, lambda *_: (401, "no such key")) as served:
        with pytest.raises(ConfigError, match="status 401"):
            evaluate(served.url, [sums], quick())
        assert len(served.bodies) <= 3
    with pytest.raises(ConfigError, match="is not set"):
        evaluate("http://127.0.0.1:9", [sums], quick(api_key_variable="NOT_THERE"))


def test_likelihoods_are_not_to_be_had(tmp_path: Path) -> None:
    choices = load_items(load_suite(write_suite(tmp_path, "choices")))
    with serve(adds) as served, pytest.raises(ConfigError, match="cannot be put to an endpoint"):
        evaluate(served.url, [choices], quick())


@pytest.mark.parametrize("url", ["http://me:s3cret@127.0.0.1:9", "http://127.0.0.1:9/v1?api_key=s3cret"])
def test_an_address_with_a_key_is_refused_before_anything_is_written(
    sums: Suite, url: str, home: Path
) -> None:
    with pytest.raises(ConfigError, match="holds more than a place") as refused:
        evaluate(url, [sums], quick())
    assert "s3cret" not in str(refused.value)
    assert not any(b"s3cret" in file.read_bytes() for file in home.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("content", "score"),
    [
        ('[{"type": "text", "text": "3"}]', 1 / 12),
        ('[{"type": "image"}]', 0.0),
    ],
)
def test_answers_in_parts(sums: Suite, content: str, score: float) -> None:
    choice = {"message": {"content": json.loads(content)}, "finish_reason": 3}
    told = json.dumps({"choices": [choice], "usage": {"prompt_tokens": "4"}})
    with serve(adds, lambda *_: (200, told)) as served:
        result = evaluate(served.url, [sums], quick())
    assert result.evaluation is not None
    report = result.evaluation.report.suites["sums"]
    assert report.score == score and report.num_failed == 0


@pytest.mark.parametrize("status", [520, 524, 529])
def test_every_5xx_is_tried_again(sums: Suite, status: int) -> None:
    with serve(adds, lambda number, _: (status, "") if number == 1 else None) as served:
        result = evaluate(served.url, [sums], quick(concurrency=1))
    assert result.evaluation is not None and len(served.bodies) == 13


def test_further_attempts_wait_from_the_first_on(sums: Suite) -> None:
    times: list[float] = []

    def note(number: int, _: dict[str, Any]) -> tuple[int, str] | None:
        times.append(time.monotonic())
        return (500, "") if number <= 2 else None

    with serve(adds, note) as served:
        evaluate(served.url, [sums], quick(first_wait_s=0.2, concurrency=1))
    assert times[1] - times[0] >= 0.15 and times[2] - times[1] >= 0.3


CUT = (200, '{"choices": [', {"Content-Length": "999"})


def test_a_body_that_is_cut_short_is_asked_for_again(sums: Suite) -> None:
    with serve(adds, lambda number, _: CUT if number <= 2 else None) as served:
        result = evaluate(served.url, [sums], quick(concurrency=1))
    assert result.evaluation is not None and result.evaluation.report.suites["sums"].num_failed == 0
    assert len(served.bodies) == 12 + 2


@pytest.mark.parametrize("instead", [CUT, (200, "", {"Transfer-Encoding": "chunked"}), (503, "busy")])
def test_as_many_attempts_are_told_as_were_made(sums: Suite, instead: Instead) -> None:
    with serve(adds, lambda *_: instead) as served, pytest.raises(EndpointError) as ended:
        evaluate(served.url, [sums], quick(concurrency=1, timeout_s=0.5))
    assert "3 attempts" in ended.value.why and len(served.bodies) == 3


def test_what_no_further_attempt_can_mend_is_tried_once(sums: Suite) -> None:
    elsewhere = (307, "", {"Location": "http://127.0.0.1:0x/"})
    with serve(adds, lambda *_: elsewhere) as served, pytest.raises(EndpointError) as ended:
        evaluate(served.url, [sums], quick(concurrency=1))
    assert "1 attempt:" in ended.value.why and len(served.bodies) == 1


@pytest.mark.parametrize("instead", [None, (503, "busy"), (503, "busy", {"Retry-After": "60"})])
def test_a_stop_is_heard_while_the_endpoint_hangs(sums: Suite, instead: Instead | None) -> None:
    lets_go = threading.Event()

    def stop() -> None:
        (run,) = open_records().list_runs(kind="evaluate").runs
        open_records().request_stop(run.id)

    def misbehave(number: int, _: dict[str, Any]) -> Instead | None:
        if number == 6:
            threading.Timer(0.3, stop).start()
        if number > 3 and instead is None:
            lets_go.wait(20)
        return instead if number > 3 else None

    began = time.monotonic()
    with serve(adds, misbehave) as served:
        result = evaluate(served.url, [sums], quick(first_wait_s=60, timeout_s=15, max_retries=1))
        assert (result.state, result.stopped_by) == ("cancelled", "raytrain runs stop")
        assert time.monotonic() - began < 10
        lets_go.set()
        for thread in [one for one in threading.enumerate() if one.name == "asks-endpoint"]:
            thread.join(5)
            assert not thread.is_alive(), "it waits for a further attempt"
        assert len(served.bodies) == 6


class Notes(threading.Event):
    """How long each wait was to be; none is made."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return False


@pytest.mark.parametrize(
    ("told", "wait_s"),
    [
        ("7", 7),
        ("86400", 120),
        ("9" * 5000, 0),
        ("Fri, 31 Dec 2100 23:59:59 GMT", 120),
        ("0", 0),
        ("soon", 0),
    ],
)
def test_no_wait_that_an_endpoint_asks_for_is_without_end(told: str, wait_s: float) -> None:
    notes, instead = Notes(), (429, "", {"Retry-After": told})
    with serve(str, lambda number, _: instead if number == 1 else None) as served:
        sender = Attempts(served.url, quick().endpoint)
        assert sender.send("POST", "/v1/completions", {"prompt": "1"}, notes).ok
    assert notes.waits == [wait_s]


@pytest.mark.parametrize(
    ("count", "known"),
    [
        *[
            (told, 0)
            for told in ("Infinity", "NaN", "1e400", "-1e400", "-3", "1e30", '"many"', "null", "true")
        ],
        *[(told, 0) for told in ("[]", "{}", "9" * 30, "18446744073709551615", "9223372036854775807")],
        ("4", 4),
    ],
)
def test_a_strange_count_of_tokens_ends_nothing(sums: Suite, count: str, known: int) -> None:
    choices = '"choices": [{"message": {"content": "3"}}]'
    told = f'{{{choices}, "usage": {{"prompt_tokens": {count}, "completion_tokens": {count}}}}}'
    with serve(adds, lambda *_: (200, told)) as served:
        result = evaluate(served.url, [sums], quick())
    assert result.evaluation is not None
    report = result.evaluation.report.suites["sums"]
    assert (report.num_failed, report.num_prompt_tokens) == (0, 12 * known)


@pytest.mark.parametrize("usage", ["3", "[1]", '"x"'])
def test_a_strange_usage_costs_no_item(sums: Suite, usage: str) -> None:
    told = f'{{"choices": [{{"message": {{"content": "3"}}}}], "usage": {usage}}}'
    with serve(adds, lambda *_: (200, told)) as served:
        result = evaluate(served.url, [sums], quick())
    assert result.evaluation is not None and result.evaluation.report.suites["sums"].num_failed == 0


def test_answers_under_way_are_kept_where_another_request_fails_for_good(sums: Suite) -> None:
    def misbehave(number: int, _: dict[str, Any]) -> Instead | None:
        if number <= 3:
            time.sleep(0.0 if number == 1 else 0.5)
        return (500, "out of memory") if number == 1 else None

    with serve(adds, misbehave) as served:
        with pytest.raises(EndpointError, match="status 500"):
            evaluate(served.url, [sums], quick(max_retries=0))
        assert len(served.bodies) == 3
        result = evaluate(served.url, [sums], quick())
    assert result.evaluation is not None and result.evaluation.report.suites["sums"].score == 1.0
    assert len(served.bodies) == 12 + 1, "only what failed is asked for twice"


def test_after_one_that_failed_for_good_the_others_are_not_tried_again(sums: Suite) -> None:
    def misbehave(number: int, _: dict[str, Any]) -> Instead:
        time.sleep(0.0 if number == 1 else 0.3)
        return (401, "no such key") if number == 1 else (503, "busy")

    began = time.monotonic()
    with serve(adds, misbehave) as served, pytest.raises(ConfigError, match="status 401"):
        evaluate(served.url, [sums], quick(first_wait_s=60))
    assert len(served.bodies) == 3 and time.monotonic() - began < 20


def test_refusals_are_held_against_it_once_nothing_is_under_way(sums: Suite) -> None:
    def misbehave(number: int, _: dict[str, Any]) -> Instead | None:
        time.sleep(0.5 if number == 6 else 0.0)
        return (400, "too long") if number <= 5 else None

    with serve(adds, misbehave) as served:
        result = evaluate(served.url, [sums], quick(concurrency=6))
    assert result.evaluation is not None and result.evaluation.report.suites["sums"].num_failed == 5


def test_where_every_question_is_refused_it_is_no_score_of_nothing(sums: Suite) -> None:
    with serve(adds, lambda *_: (400, "Unsupported parameter: max_tokens")) as served:
        with pytest.raises(ConfigError, match="refuses every question") as refused:
            evaluate(served.url, [sums], quick())
        assert "max_tokens" in refused.value.why
    with serve(adds) as served:
        result = evaluate(served.url, [sums], quick())
    assert result.evaluation is not None and result.evaluation.report.suites["sums"].num_failed == 0


@pytest.mark.parametrize("answer", ["<html>", "{}", '{"choices": [{"message": {"content": 7}}]}'])
def test_where_no_answer_can_be_read_it_is_no_score_of_nothing(sums: Suite, answer: str) -> None:
    with serve(adds, lambda *_: (200, answer)) as served:
        with pytest.raises(EndpointError, match="as OpenAI's API does") as strange:
            evaluate(served.url, [sums], quick())
        assert strange.value.exit_code == 4 and "cannot be read" in strange.value.why
        assert len(served.bodies) < 12, "five are enough to know"
    with serve(adds) as served:
        result = evaluate(served.url, [sums], quick())
    assert result.evaluation is not None and result.evaluation.report.suites["sums"].num_failed == 0


def test_where_others_were_answered_all_that_is_left_may_be_refused(sums: Suite) -> None:
    status = [500]
    with serve(adds, lambda _, body: (status[0], "") if " 11 " in asked(body) else None) as served:
        with pytest.raises(EndpointError):
            evaluate(served.url, [sums], quick(concurrency=1, max_retries=0))
        status[0] = 400
        result = evaluate(served.url, [sums], quick())
    assert result.evaluation is not None
    report = result.evaluation.report.suites["sums"]
    assert (report.num_items, report.num_failed, len(served.bodies)) == (12, 1, 13)


def test_a_suite_may_be_refused_whole_after_one_that_was_answered(sums: Suite, tmp_path: Path) -> None:
    rows = [{"question": "too long", "answer": "3", "topic": "odd"}]
    long = load_items(load_suite(write_suite(tmp_path, "long", rows, like="sums")))
    with serve(adds, lambda _, body: (400, "") if "long" in asked(body) else None) as served:
        result = evaluate(served.url, [sums, long], quick())
    assert result.evaluation is not None and result.evaluation.report.suites["long"].num_failed == 1
