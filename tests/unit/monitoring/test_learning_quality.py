"""From rows of the request log to interactions, and how good each is to learn from."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from raytrain.evaluation.safety.redaction import number_of_token_ids
from raytrain.monitoring.learning.interaction import Interaction, interactions_of
from raytrain.monitoring.learning.quality import quality_of, usual_format


def log_row(**changes: Any) -> dict[str, Any]:
    row = {
        "at": datetime(2026, 5, 4, tzinfo=UTC), "request_id": "r1", "key": None, "model": "helper@1.0.0",
        "digest": "d" * 64, "prompts": ["Two and two?"], "answers": ["Four."], "finish": ["stop"], "user": "u",
        "consent": True,
    }  # fmt: skip
    return {**row, **changes}


def only(row: dict[str, Any], feedback: dict[str, Any] | None = None) -> Interaction:
    (found,) = interactions_of(row, feedback)
    return found


def test_an_interaction_is_the_same_whenever_the_log_is_read() -> None:
    first, second = only(log_row()), only(log_row(), {"rating": "up", "correction": None})
    assert first.id == second.id
    assert (first.rating, second.rating) == (None, "up")
    assert only(log_row(request_id="r2")).id != first.id
    assert first.prompt == ({"role": "user", "content": "Two and two?"},)
    assert first.at == datetime(2026, 5, 4, tzinfo=UTC).timestamp()


def test_each_answer_of_several_is_one_and_feedback_is_about_none_of_them() -> None:
    row = log_row(prompts=["a", "b"], answers=["1", "2", "3", "4"], finish=["stop", "length", "stop", "stop"])
    found = list(interactions_of(row, {"rating": "up"}))
    assert [(one.asked, one.answer, one.finish) for one in found] == [
        ("a", "1", "stop"), ("a", "2", "length"), ("b", "3", "stop"), ("b", "4", "stop"),
    ]  # fmt: skip
    assert {one.rating for one in found} == {None} and len({one.id for one in found}) == 4


def test_messages_and_token_ids() -> None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert only(log_row(prompts=[json.dumps(said)])).prompt == tuple(said)
    assert only(log_row(prompts=[json.dumps(said)])).asked == "Be brief.\nHi"
    ids = log_row(
        prompts=[number_of_token_ids([1, 2, 3]), "And words?"], answers=["Four.", "Yes."], finish=["stop"] * 2
    )
    assert [one.asked for one in interactions_of(ids, None)] == ["And words?"], "of ids no words are kept"
    assert only(log_row(prompts=["[1, 2, 3]"])).asked == "[1, 2, 3]", "a user may write a list"
    assert only(log_row(prompts=['{"role": "user"}'])).asked == '{"role": "user"}', (
        "a text that is JSON is a text"
    )
    kept_out = log_row(answers=["[not kept: a detector failed]"])
    assert list(interactions_of(kept_out, None)) == []


@pytest.mark.parametrize(
    "change", [{"answers": []}, {"prompts": []}, {"prompts": ["a", "b"]}, {"answers": None}]
)
def test_a_row_that_is_none_is_told(change: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        if not list(interactions_of(log_row(**change), None)):
            raise ValueError("nothing in it")


@pytest.mark.parametrize(
    ("changes", "feedback", "score", "weakest"),
    [
        ({}, None, 0.5, "feedback"),
        ({}, {"rating": "up"}, 1.0, None),
        ({}, {"rating": "down"}, 0.0, "feedback"),
        ({}, {"rating": "down", "correction": "It is four."}, 1.0, None),
        ({"finish": ["length"]}, {"rating": "up"}, 0.2, "completeness"),
        ({"finish": ["error"]}, {"rating": "up"}, 0.0, "completeness"),
        ({"finish": ["length"]}, {"correction": "Four."}, 1.0, None),
        ({"answers": ["  "]}, {"rating": "up"}, 0.0, "coherence"),
        ({"answers": ["ab \ufffd"]}, {"rating": "up"}, 0.0, "coherence"),
        ({"answers": ["no " * 40]}, {"rating": "up"}, 0.05, "coherence"),
    ],
)
def test_scores_of_text(
    changes: dict[str, Any], feedback: dict[str, Any] | None, score: float, weakest: str | None
) -> None:
    found = quality_of(only(log_row(**changes), feedback), "text")
    assert found.score == pytest.approx(score)
    assert weakest is None or found.weakest == weakest


def test_where_answers_are_json_another_form_scores_nothing() -> None:
    liked = {"rating": "up"}
    assert quality_of(only(log_row(), liked), "json").weakest == "format"
    assert quality_of(only(log_row(answers=['{"a": 1}']), liked), "json").score == 1.0
    assert quality_of(only(log_row(answers=['{"a": 1} and more']), liked), "json").score == 0.0
    assert usual_format(['{"a": 1}'] * 8 + ["text", "text"]) == "json"
    assert usual_format(['{"a": 1}'] * 7 + ["text"] * 3) == "text"
    assert usual_format([]) == "text"
