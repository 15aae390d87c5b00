"""Replicas behind a handle as Ray Serve's: what crosses, what is asked again, what all of them come to."""

from __future__ import annotations

import asyncio
import pickle
import random
from dataclasses import replace
from typing import Any

import pytest

from raytrain.serving import remote
from raytrain.serving.backend import (
    AnswerFailed,
    Ask,
    BadPrompt,
    Classification,
    Classified,
    ClassifyAsk,
    Draining,
    ModelCard,
    PromptTooLong,
    Readiness,
    RefusedModel,
    ReplicaLost,
    Served,
    UnknownModel,
    other_task,
)
from raytrain.serving.engine.request import Finish, Overloaded, Piece, Sampling, Token
from raytrain.serving.remote import Refusal, RemoteBackend, combined

SERVED = Served("sums@1.0.0", "sha256:a", "sha256:b")
WORDS = [Piece("one "), Piece("two"), Piece(finish=Finish("stop", 1, 0, 3, 0.0, 0.0))]
WHOLE = [SERVED, *WORDS]


class Stream:
    """What a replica yields; an exception in it is raised there."""

    def __init__(self, items: list[Any]) -> None:
        self._items = iter(items)
        self.is_cancelled = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        item = next(self._items, None)
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, Exception):
            raise item
        return item

    def cancel(self) -> None:
        self.is_cancelled = True


class Handle:
    """Of Ray Serve's handles as much as is used: each call of `generate` takes the next script, each of `answer` the
    whole of it."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.streams = [Stream(one) for one in scripts]
        self.asked: list[Ask] = []

    @property
    def num_asked(self) -> int:
        return len(self.asked)

    def options(self, *, stream: bool) -> Handle:
        assert stream
        return self

    @property
    def generate(self) -> Handle:
        return self

    def remote(self, ask: Ask) -> Stream:
        self.asked.append(ask)
        return self.streams[self.num_asked - 1]

    @property
    def answer(self) -> Whole:
        return Whole(self)


class Whole:
    """A script's answer where it is waited for to its end."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def remote(self, ask: Ask) -> Whole:
        self._stream = self._handle.remote(ask)
        return self

    def __await__(self) -> Any:
        return self._collected().__await__()

    async def _collected(self) -> Any:
        found = [one async for one in self._stream]
        return found[0] if isinstance(found[0], Refusal) else tuple(found)

    def cancel(self) -> None:
        self._stream.cancel()


def died() -> Exception:
    from ray.exceptions import ActorDiedError

    return ActorDiedError()


def run(handle: Handle, *, is_streamed: bool = True) -> list[Any]:
    async def collect() -> list[Any]:
        ask = Ask("r", "sums", "text", Sampling(max_new_tokens=3), is_streamed)
        return [one async for one in RemoteBackend(handle).generate(ask)]

    return asyncio.run(collect())


@pytest.mark.parametrize("is_streamed", [True, False])
def test_an_answer_comes_as_it_is(is_streamed: bool) -> None:
    handle = Handle(WHOLE)
    assert run(handle, is_streamed=is_streamed) == WHOLE
    assert not handle.streams[0].is_cancelled


@pytest.mark.parametrize(
    "error",
    [
        UnknownModel("x", ("a", "b")),
        RefusedModel("x"),
        BadPrompt("too long", "prompt"),
        PromptTooLong("9", "prompt"),
        Draining(),
        Overloaded(3, 2.5),
        other_task("x", None),
        AnswerFailed(),
    ],
)
@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_refusal_crosses_as_what_it_is(error: Exception, is_streamed: bool) -> None:
    crossed = pickle.loads(pickle.dumps(Refusal(error)))
    with pytest.raises(type(error)) as raised:
        run(Handle([crossed]), is_streamed=is_streamed)
    assert vars(raised.value) == vars(error) and str(raised.value) == str(error)


@pytest.mark.parametrize(
    ("is_streamed", "lost"),
    [(True, []), (True, [SERVED]), (False, []), (False, [SERVED])],
)
def test_what_nobody_has_read_is_asked_for_once_more(is_streamed: bool, lost: list[Any]) -> None:
    handle = Handle([*lost, died()], WHOLE)
    assert run(handle, is_streamed=is_streamed) == WHOLE
    assert handle.num_asked == 2 and handle.streams[0].is_cancelled


def tokens(*ids: int) -> tuple[Token, ...]:
    """The replica that lives writes the same tokens; their probabilities may differ in the last bits."""
    return tuple(Token(one, f"<{one}>", -1.0 - random.random() / 1e6) for one in ids)


def plain(answer: list[Any]) -> list[Any]:
    return [
        (one.text, [token.id for token in one.tokens], one.finish) if isinstance(one, Piece) else one
        for one in answer
    ]


END = Piece(finish=Finish("length", 1, 0, 4, 0.0, 0.0))


@pytest.mark.parametrize(
    ("read", "anew", "rest"),
    [
        ([WORDS[0]], WORDS, WORDS[1:]),
        ([WORDS[0], WORDS[1]], WORDS, WORDS[2:]),
        ([Piece("one t")], WORDS, [Piece("wo"), WORDS[2]]),
        ([Piece("one tw")], [Piece("o"), Piece("n"), Piece("e two"), WORDS[2]], [Piece("o"), WORDS[2]]),
        ([Piece("one tw")], [replace(WORDS[2], text="one two")], [replace(WORDS[2], text="o")]),
        (
            [Piece("a", tokens(5)), Piece("", tokens(6))],
            [Piece("a", tokens(5, 6, 7)), END],
            [Piece("", tokens(7)), END],
        ),
        (
            [Piece("a", tokens(5, 6))],
            [Piece("a", tokens(5)), Piece("b", tokens(6, 7)), END],
            [Piece("b", tokens(7)), END],
        ),
    ],
)
def test_a_stream_goes_on_where_another_replica_writes_the_same(
    read: list[Piece], anew: list[Piece], rest: list[Piece]
) -> None:
    handle = Handle([SERVED, *read, died()], [SERVED, *anew])
    assert plain(run(handle)) == plain([SERVED, *read, *rest])
    assert [one.model for one in handle.asked] == ["sums", "sums@1.0.0"] and handle.streams[0].is_cancelled


@pytest.mark.parametrize(
    ("read", "anew"),
    [
        ([WORDS[0]], [Piece("another"), END]),
        ([Piece("one two three")], WORDS),
        ([Piece("", tokens(5, 6))], [Piece("", tokens(5, 7)), END]),
        ([Piece("", tokens(5, 6))], [Piece("", tokens(5)), END]),
        ([WORDS[0]], [died()]),
    ],
    ids=["another text", "a shorter text", "another token", "fewer tokens", "it dies as well"],
)
def test_a_stream_never_goes_on_with_another_answer(read: list[Piece], anew: list[Any]) -> None:
    handle = Handle([SERVED, *read, died()], [SERVED, *anew], WHOLE)
    with pytest.raises(ReplicaLost):
        run(handle)
    assert handle.num_asked == 2


def test_an_answer_is_never_put_together_from_two_versions() -> None:
    other = [Served("sums@1.1.0", "sha256:c", "sha256:b"), *WORDS]
    handle = Handle([SERVED, died()], other)
    with pytest.raises(ReplicaLost):
        run(handle)
    assert [one.model for one in handle.asked] == ["sums", "sums@1.0.0"], (
        "it is asked of the version that was told"
    )


def test_an_answer_that_nobody_reads_along_is_of_whichever_version_wrote_all_of_it() -> None:
    other = [Served("sums@1.1.0", "sha256:c", "sha256:b"), *WORDS]
    handle = Handle([SERVED, WORDS[0], died()], other)
    assert run(handle, is_streamed=False) == other


@pytest.mark.parametrize(("is_streamed", "second"), [(True, SERVED), (False, died)])
def test_lost_twice_is_lost(is_streamed: bool, second: Any) -> None:
    handle = Handle([died()], [second() if callable(second) else second])
    with pytest.raises(ReplicaLost):
        run(handle, is_streamed=is_streamed)
    assert handle.num_asked == 2


@pytest.mark.parametrize("is_streamed", [True, False])
def test_ray_s_own_full_queue_is_overload(is_streamed: bool) -> None:
    from ray.serve.exceptions import BackPressureError

    full = BackPressureError(num_queued_requests=1, max_queued_requests=1)
    with pytest.raises(Overloaded):
        run(Handle([full]), is_streamed=is_streamed)


def test_whoever_goes_away_takes_his_request_with_him() -> None:
    handle = Handle(WHOLE)

    async def leave() -> None:
        answer = RemoteBackend(handle).generate(Ask("r", "m", "t", Sampling(3)))
        await anext(answer)
        await answer.aclose()

    asyncio.run(leave())
    assert handle.streams[0].is_cancelled


def ready(*problems: str, is_ready: bool = True, **production: str) -> Readiness:
    return Readiness(is_ready, "base", production, problems)


@pytest.mark.parametrize(
    ("found", "is_ready", "production", "problems"),
    [
        ([], False, {}, ["no replica answers yet"]),
        ([ready(sums="a")], True, {"sums": "a"}, []),
        ([ready(sums="a"), ready(sums="a", is_ready=False)], False, {"sums": "a"}, []),
        ([ready(sums="a"), ready(sums="b")], True, {}, ["replicas differ in what they serve as sums"]),
        (
            [ready("cold"), ready("cold", sums="b")],
            True,
            {},
            ["cold", "replicas differ in what they serve as sums"],
        ),
    ],
)
def test_what_all_replicas_come_to(
    found: list[Readiness], is_ready: bool, production: dict[str, str], problems: list[str]
) -> None:
    told = combined(found)
    assert (told.is_ready, told.production, list(told.problems)) == (is_ready, production, problems)


class BroadcastHandle:
    """All replicas at once, as Ray Serve collects them, and one of them by itself."""

    def __init__(self, told: list[Any] | Exception, of_one: Any = None) -> None:
        self._told, self._of_one = told, of_one

    def broadcast(self, method: str) -> BroadcastHandle:
        assert method == "readiness"
        return self

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[Any]:
        assert timeout_s > 0 and return_exceptions
        if isinstance(self._told, Exception):
            raise self._told
        return self._told

    @property
    def readiness(self) -> BroadcastHandle:
        return self

    async def remote(self) -> Any:
        if isinstance(self._of_one, Exception):
            raise self._of_one
        return self._of_one


@pytest.mark.parametrize(
    ("handle", "is_ready", "problems"),
    [
        (BroadcastHandle([ready(), ready()]), True, ()),
        (BroadcastHandle([ready(), died()]), True, ("a replica does not answer: ActorDiedError",)),
        (BroadcastHandle(TimeoutError(), ready()), True, ("a replica does not answer: TimeoutError",)),
        (
            BroadcastHandle([died(), died()]),
            False,
            ("a replica does not answer: ActorDiedError", "no replica answers yet"),
        ),
        (
            BroadcastHandle(TimeoutError(), died()),
            False,
            (
                "a replica does not answer: TimeoutError",
                "a replica does not answer: ActorDiedError",
                "no replica answers yet",
            ),
        ),
        (
            BroadcastHandle(RuntimeError("no such deployment")),
            False,
            ("a replica does not answer: RuntimeError", "no replica answers yet"),
        ),
    ],
)
def test_one_that_is_dead_or_hangs_keeps_no_other_from_being_ready(
    handle: BroadcastHandle, is_ready: bool, problems: tuple[str, ...]
) -> None:
    told = asyncio.run(RemoteBackend(handle).readiness())
    assert (told.is_ready, told.problems) == (is_ready, problems)


class Once:
    """Each call of `classify` or `models` takes the next of these; what is an exception is raised there, and None never
    comes."""

    def __init__(self, *told: Any) -> None:
        self._told = iter(told)
        self.asked: list[Any] = []
        self.is_cancelled = False

    @property
    def classify(self) -> Once:
        return self

    models = classify

    def remote(self, *asked: Any) -> Once:
        self.asked.extend(asked)
        return self

    def __await__(self) -> Any:
        return self._next().__await__()

    async def _next(self) -> Any:
        told = next(self._told)
        if told is None:
            await asyncio.Event().wait()
        if isinstance(told, Exception):
            raise told
        return told

    def cancel(self) -> None:
        self.is_cancelled = True


TEXTS = ClassifyAsk("r", "tools", ("a", "b"))
CLASSES = Classified(SERVED, ("no", "yes"), (Classification((0.25, 0.75), 3, 0.0),) * 2)


def classified(handle: Once) -> Classified:
    return asyncio.run(RemoteBackend(handle).classify(TEXTS))


def test_classes_are_asked_for_once_more_where_their_replica_was_lost() -> None:
    assert classified(Once(pickle.loads(pickle.dumps(CLASSES)))) == CLASSES
    handle = Once(died(), CLASSES)
    assert classified(handle) == CLASSES and handle.asked == [TEXTS, TEXTS]
    with pytest.raises(ReplicaLost):
        classified(Once(died(), died(), CLASSES))


def test_a_refusal_to_classify_crosses_and_is_not_asked_again() -> None:
    handle = Once(Refusal(BadPrompt("too long", "input")), CLASSES)
    with pytest.raises(BadPrompt, match="too long"):
        classified(handle)
    assert len(handle.asked) == 1


def test_a_question_that_nobody_waits_for_is_taken_back_from_the_replica() -> None:
    async def leave() -> Once:
        handle = Once(None)
        asked = asyncio.ensure_future(RemoteBackend(handle).classify(TEXTS))
        await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        return handle

    assert asyncio.run(leave()).is_cancelled


def models(handle: Once) -> list[ModelCard]:
    return asyncio.run(RemoteBackend(handle).models())


def unavailable() -> Exception:
    from ray.serve._private.common import DeploymentID
    from ray.serve.exceptions import DeploymentUnavailableError

    return DeploymentUnavailableError(DeploymentID("replica"))


@pytest.mark.parametrize("lost", [died(), unavailable(), None])
def test_models_are_told_by_another_replica_where_one_is_lost_and_by_nobody_where_both_are(
    lost: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_MODELS_TIMEOUT_S", 0.05)
    card = ModelCard("sums", "sha256:a", 0)
    assert models(Once(lost, [card])) == [card]
    handle = Once(lost, lost, [card])
    with pytest.raises(ReplicaLost):
        models(handle)
    assert handle.is_cancelled, "no question waits for a replica on and on"
