"""Verdicts on a trial, by rows as an ingress leaves them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import Told
from trial_rows import START, pairs, row, written

from raytrain.evaluation.decision.contract import OverallSection
from raytrain.evaluation.statistics.gains import judge_gain
from raytrain.evaluation.statistics.pairs import pair
from raytrain.evaluation.statistics.samples import judge_samples, samples, samples_test
from raytrain.serving.trials.comparison import OnlineComparison, compare_online
from raytrain.serving.trials.rows import Kept, read_kept, read_rows

pytestmark = pytest.mark.whole


def compared(folder: Path, *, since_last: float = 0.0) -> OnlineComparison:
    """since_last: seconds after the 200th pair."""
    now = START.timestamp() + 199 + since_last
    return compare_online(read_kept(folder, "sums"), read_rows(folder, "feedback"), OverallSection(), now)


def verdicts(found: OnlineComparison) -> dict[str, str | None]:
    return {one.measure.name: None if one.verdict is None else one.verdict.word for one in found.measured}


def test_a_candidate_that_breaks_its_format_is_worse(tmp_path: Path) -> None:
    rows = pairs(range(200), lambda n: {"is_valid": n % 5 > 0, "agrees": n % 5 > 0}, is_valid=True)
    found = compared(written(tmp_path, rows))
    assert found.is_complete and found.is_worse
    told = verdicts(found)
    assert told["format"] == "worse" and told["no refusal"] == "cannot tell" and told["length"] is None
    (format_,) = [one for one in found.measured if one.measure.name == "format"]
    alone = judge_gain(pair([1.0] * 200, [float(n % 5 > 0) for n in range(200)]), margin=0.01)
    assert format_.interval == alone.interval, "the same statistics as an evaluation's"
    (agreed,) = found.shares["pairs"]
    assert (agreed.num, agreed.num_of) == (160, 200)
    assert agreed.interval.low < 0.8 < agreed.interval.high


def test_no_verdict_before_the_horizon_and_none_changes_after_it(tmp_path: Path) -> None:
    early = pairs(range(199), lambda _: {"is_refusal": True})
    found = compared(written(tmp_path / "early", early))
    assert not found.is_complete and not found.is_worse
    assert all(one.verdict is None and one.interval is None for one in found.measured)
    full = [*early, *pairs([199])]
    first = compared(written(tmp_path / "full", full))
    assert verdicts(first)["no refusal"] == "worse"
    later = compared(written(tmp_path / "later", [*full, *pairs(range(200, 700))]))
    assert later.num_pairs == 200 and later.measured == first.measured


def test_no_verdict_while_another_ingress_may_write_pairs_of_before(tmp_path: Path) -> None:
    """Each writes its rows as a file when it is time for it: those of one second come as much as flush_s apart."""
    two = {"num_ingresses": 2, "pairs": 100}
    early = pairs(range(0, 400, 2), ingress="a", **two)
    late = pairs(range(1, 401, 2), lambda n: {"is_refusal": n % 3 == 0}, ingress="b", **two)
    folder = written(tmp_path / "log", early)
    for after in (0.0, 38.0):
        first = compared(folder, since_last=after)  # the hundredth pair of `a` is the 199th of both
        assert first.num_pairs == 100 and not first.is_complete and first.waits_until is not None
        assert all(one.verdict is None and one.interval is None for one in first.measured)
        assert first.waits_until == START.timestamp() + 198 + 30 + 10
    written(folder, late, name="late")
    found = compared(folder)
    assert found.is_complete and verdicts(found)["no refusal"] == "worse", "both have written what is later"
    assert compared(folder, since_last=1e6).measured == found.measured


@pytest.mark.parametrize(
    ("writers", "more", "since_last", "is_complete"),
    [
        ("a", {"num_ingresses": 1}, 0, True),
        ("a", {"num_ingresses": 2}, 0, False),
        ("a", {"num_ingresses": 2}, 39.9, False),
        ("a", {"num_ingresses": 2}, 40.1, True),
        ("a", {"num_ingresses": 2, "flush_s": 0.5}, 10.6, True),
        ("ab", {"num_ingresses": 2}, 0, False),
        ("abab", {"num_ingresses": 1}, 0, False),
        ("a", {"ingress": None, "num_ingresses": None, "flush_s": None}, 39.9, False),
        ("a", {"ingress": None, "num_ingresses": None, "flush_s": None}, 40.1, True),
    ],
    ids=["one", "the other has written nothing", "nor now", "it had its time", "it writes often",
         "the other has written of before", "more than there are", "rows that say nothing", "nor now, at last"],
)  # fmt: skip
def test_when_all_pairs_of_before_are_known(
    tmp_path: Path, writers: str, more: dict[str, Any], since_last: float, is_complete: bool
) -> None:
    rows = pairs(range(200))
    told = [{**one, "ingress": writers[n // 2 % len(writers)], **more} for n, one in enumerate(rows)]
    found = compared(written(tmp_path, told), since_last=since_last)
    assert found.num_pairs == 200 and found.is_complete is is_complete
    assert (found.waits_until is None) is is_complete


def test_callers_with_several_requests_are_groups(tmp_path: Path) -> None:
    rows = [
        {**one, "caller": f"c{n // 20}"}
        for n in range(200)
        for one in pairs([n], lambda n: {"is_whole": n // 20 != 3})
    ]
    found = compared(written(tmp_path, rows))
    (whole,) = [one for one in found.measured if one.measure.name == "whole"]
    assert whole.verdict is not None and "clustered" in whole.verdict.test.method
    assert whole.verdict.word == "cannot tell", "20 requests of one caller are one voice"


def test_what_the_candidate_could_not_answer_counts_against_it(tmp_path: Path) -> None:
    rows = pairs(range(150))
    rows += [row(n, "production", agrees=None, error="invalid_prompt") for n in range(150, 200)]
    rows += [row(n, "production") for n in range(200, 260)]  # whose mirrored ones are not written yet
    found = compared(written(tmp_path, rows))
    assert found.num_pairs == 200 and verdicts(found)["answered"] == "worse"
    assert {one.measure.name: one.num_pairs for one in found.measured}["whole"] == 150


def test_a_slower_candidate_is_worse_by_so_much(tmp_path: Path) -> None:
    noise = random.Random(5)
    rows = pairs(range(200), lambda _: {"seconds": 1.4 * noise.uniform(0.9, 1.1)})
    found = compared(written(tmp_path, rows))
    (time,) = [one for one in found.measured if one.measure.name == "time per token"]
    assert time.verdict is not None and time.verdict.word == "worse" and found.is_worse
    assert time.interval is not None and time.interval.low < -0.3365 < time.interval.high, "log(1.4)"


@pytest.mark.parametrize(
    ("slower_by", "seconds", "word"),
    [(0.25, 1.1, "equivalent"), (0.05, 1.1, "worse"), (0.25, 0.9, "equivalent"), (0.05, 0.9, "better")],
)
def test_times_of_other_moments_differ_and_count_from_a_share_on(
    tmp_path: Path, slower_by: float, seconds: float, word: str
) -> None:
    noise = random.Random(5)
    rows = pairs(range(200), lambda _: {"seconds": seconds * noise.uniform(0.9, 1.1)}, slower_by=slower_by)
    assert verdicts(compared(written(tmp_path, rows)))["time per token"] == word


def test_whose_right_answers_are_longer_is_not_worse_for_it(tmp_path: Path) -> None:
    noise = random.Random(5)
    rows = pairs(
        range(200),
        lambda _: {
            "seconds": 1.5 * noise.uniform(0.9, 1.1),
            "tokens": 15,
            "first_token_s": noise.uniform(0.09, 0.11),
        },
    )
    found = compared(written(tmp_path, rows))
    assert "worse" not in verdicts(found).values() and not found.is_worse
    (length,) = [one for one in found.measured if one.measure.name == "length"]
    assert length.verdict is None and length.interval is not None


def test_another_trial_or_version_begins_anew(tmp_path: Path) -> None:
    old = pairs(range(300))
    moved = pairs(range(300, 320), lambda _: {"digest": "newer"})
    found = compared(written(tmp_path / "moved", [*old, *moved]))
    assert found.num_pairs == 20 and found.kept.num_left_out == 300
    other = pairs(range(320, 330), trial="second", pairs=20)
    found = compared(written(tmp_path / "other", [*old, *moved, *other]))
    assert (found.num_pairs, found.kept.horizon, found.is_complete) == (10, 20, False)


def canary(
    num: int, candidate: Callable[[int], Mapping[str, Any]] = lambda _: {}, first: int = 0, **more: Any
) -> list[dict[str, Any]]:
    """Every fourth caller is the candidate's; so many requests, each of another caller."""
    return [
        row(n, "production", mode="canary", **more)
        if n % 4
        else row(n, "candidate", mode="canary", **{**more, **candidate(n)})
        for n in range(first, first + num)
    ]


def thumbs(told: Mapping[int, bool], digest: str = "candidate", late_s: float = 0.5) -> list[dict[str, Any]]:
    """By the request's number whether it is up; given so long after."""
    return [
        {
            "at": START + timedelta(seconds=n + late_s),
            "request_id": f"r{n}",
            "rating": "up" if is_up else "down",
            "digest": digest,
        }
        for n, is_up in told.items()
    ]


def test_a_canary_s_sides_are_told_each_by_itself(tmp_path: Path) -> None:
    rows = [{**one, "caller": f"c{n % 40}", "is_refusal": n % 40 == 0} for n, one in enumerate(canary(400))]
    up = thumbs({0: False, 4: True, 12: True, 40: True})
    foreign = [{**one, "digest": None} for one in thumbs({4: False})]
    written(tmp_path, [*up, *foreign], "feedback")
    found = compared(written(tmp_path, rows))
    assert found.num_pairs == 10 and found.size == "10 callers of each side"
    assert not found.is_complete and not found.is_worse and set(verdicts(found).values()) == {None}
    told = {
        side: {one.name: (one.num, one.num_of) for one in shares} for side, shares in found.shares.items()
    }
    assert told["candidate"]["refusals"] == (1, 10), "each caller counts once"
    assert told["candidate"]["thumbs up"] == (2, 3)
    assert told["production"]["refusals"] == (0, 30) and "thumbs up" not in told["production"]


def test_a_canary_s_verdict_is_on_what_came_until_each_side_had_its_callers(tmp_path: Path) -> None:
    """20 callers of each side: the candidate's 20th is request 76, when production has 57."""
    rows = canary(100, lambda n: {"is_valid": n % 8 > 0 or n > 76}, is_valid=True, pairs=20)
    early = compared(written(tmp_path / "early", rows[:76]))
    assert early.num_pairs == 19 and set(verdicts(early).values()) == {None}
    found = compared(written(tmp_path / "all", rows))
    assert found.is_complete and found.is_worse and verdicts(found)["format"] == "worse"
    (format_,) = [one for one in found.measured if one.measure.name == "format"]
    expected = judge_samples(each := samples([1.0] * 57, [float(n % 8 > 0) for n in range(0, 80, 4)]),
                             samples_test(each), margin=0.01)  # fmt: skip
    assert format_.interval == expected.interval and format_.num_pairs == 20
    later = compared(written(tmp_path / "later", [*rows, *canary(400, first=100, pairs=20)]))
    assert later.measured == found.measured


def test_a_canary_s_verdict_waits_for_what_is_not_written_yet(tmp_path: Path) -> None:
    folder = written(tmp_path, canary(77, pairs=20))
    now = START.timestamp() + 76
    for after, waits in ((39.9, now + 40), (40.1, None)):
        found = compare_online(read_kept(folder, "sums"), (), OverallSection(), now + after)
        assert found.num_pairs == 20 and found.waits_until == waits and found.is_complete is (waits is None)


def test_people_s_thumbs_decide_on_a_canary(tmp_path: Path) -> None:
    rows = canary(400, pairs=100)  # the candidate's hundredth caller is request 396
    good = thumbs({n: True for n in range(400) if n % 4 and n % 10 < 5}, "production")
    bad = thumbs({n: n % 8 > 0 for n in range(0, 400, 4)})
    folder = written(tmp_path / "log", rows)
    written(folder, [*good, *bad], "feedback")
    found = compared(folder, since_last=1e6)
    assert verdicts(found)["thumbs up"] == "worse" and found.is_worse
    late = written(tmp_path / "late", rows)
    written(late, [*good, *thumbs(dict.fromkeys(range(0, 400, 4), False), late_s=400.0)], "feedback")
    found = compared(late, since_last=1e6)
    assert "thumbs up" not in verdicts(found), "what comes later changes nothing"


def test_answers_that_came_to_no_end_count_against_a_canary_s_side(tmp_path: Path) -> None:
    rows = canary(400, lambda n: {"error": "engine_error"} if n % 16 == 0 else {}, pairs=100)
    found = compared(written(tmp_path, rows), since_last=1e6)
    assert verdicts(found)["answered"] == "worse"
    (answered,) = [one for one in found.measured if one.measure.name == "answered"]
    assert (answered.production, answered.candidate) == (1.0, 0.75)


def test_what_failed_before_it_was_known_who_answers_is_the_sides(tmp_path: Path) -> None:
    """Between the first and the last answer of the version; not what failed before it was there."""
    lost = {"error": "engine_error", "digest": None, "model": None}
    rows = canary(420, lambda n: lost if n % 16 == 0 else {}, pairs=100)
    found = compared(written(tmp_path, rows), since_last=1e6)
    (answered,) = [one for one in found.measured if one.measure.name == "answered"]
    assert verdicts(found)["answered"] == "worse" and found.kept.num_left_out == 2
    assert answered.candidate == pytest.approx(0.75, abs=0.02)


def test_a_slower_canary_is_worse_by_so_much(tmp_path: Path) -> None:
    noise = random.Random(5)
    rows = canary(400, lambda _: {"seconds": 1.4 * noise.uniform(0.9, 1.1)}, pairs=100)
    rows = [one if one["arm"] == "candidate" else {**one, "seconds": noise.uniform(0.9, 1.1)} for one in rows]
    found = compared(written(tmp_path, rows), since_last=1e6)
    (time,) = [one for one in found.measured if one.measure.name == "time per token"]
    assert time.verdict is not None and time.verdict.word == "worse"
    assert time.interval is not None and time.interval.low < -0.3365 < time.interval.high, "log(1.4)"


def test_a_canary_without_a_difference_is_seldom_called_worse() -> None:
    """All measures together: 5 % at most, of either word."""
    draw, worse = random.Random(1), 0
    for _ in range(200):
        rows = [
            {**one, "is_valid": draw.random() < 0.9, "is_refusal": draw.random() < 0.1,
             "is_whole": draw.random() < 0.8, "seconds": draw.lognormvariate(0.0, 0.5)}
            for one in canary(240, pairs=60)
        ]  # fmt: skip
        kept = Kept("sums", "canary", 60, 0.25, tuple(rows), 0)
        found = compare_online(kept, (), OverallSection(), 1e12)
        assert found.is_complete
        worse += found.is_worse
    assert worse <= 10, "P(more than 10 of 200 at 2.5 %) is 1 in 100"


def test_the_command(tmp_path: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    from raytrain.cli.main import run

    rows = pairs(range(200), lambda n: {"is_refusal": n % 3 == 0})
    folder = written(tmp_path / "log", rows)
    code, found = told("serve", "compare", "sums", "--log", folder)
    assert (
        code == 5
        and found["is_worse"]
        and found["digests"] == {"production": "production", "candidate": "candidate"}
    )
    assert {one["name"]: one["verdict"] for one in found["measures"]}["no refusal"] == "worse"
    assert run(["serve", "compare", "sums", "--log", str(folder)]) == 5
    shown = capsys.readouterr().out
    assert "200 pairs, of 200" in shown and "no refusal: worse: -33.5 points" in shown
    fresh = written(
        tmp_path / "fresh", [{**one, "at": datetime.now(UTC), "num_ingresses": 2} for one in rows]
    )
    code, found = told("serve", "compare", "sums", "--log", fresh)
    assert (code, found["num_pairs"], found["is_complete"]) == (0, 200, False)
    assert 0 < found["waits_until"] - time.time() <= 40
    assert run(["serve", "compare", "sums", "--log", str(fresh)]) == 0
    shown = capsys.readouterr().out
    assert "no verdict before " in shown and "worse" not in shown
    code, found = told("serve", "compare", "other", "--log", folder)
    assert code == 3 and "no row" in found["error"]["why"]
    (folder / "trials-broken.parquet").write_bytes(b"no parquet")
    assert told("serve", "compare", "sums", "--log", folder)[0] == 3
