"""From raising to delivery: once, in time, and also where a process is killed, a server is away, or two do the same."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from alert_receivers import SECRET_PATH, Hook, an_alert, free_port, hook

from raytrain.errors import ConfigError, StorageError
from raytrain.monitoring.alerts import spool
from raytrain.monitoring.alerts.post import Passed, Post
from raytrain.monitoring.alerts.routing import Delivery, Route, Told
from raytrain.monitoring.alerts.section import AlertsSection
from raytrain.monitoring.alerts.spool import raise_alert, spool_folder, spooled
from raytrain.monitoring.alerts.store import CLAIM_S, AlertStore
from raytrain.runs.records import open_records

pytestmark = pytest.mark.whole

HOUR_S = 3600.0


@dataclass
class Clock:
    now: float = 10_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Office:
    """A store, a clock and one webhook."""

    store: AlertStore
    url_file: Path
    clock: Clock = field(default_factory=Clock)
    lines: list[str] = field(default_factory=list)

    def post(self, **values: Any) -> Post:
        team = {"name": "team", "url_file": str(self.url_file), **values.pop("team", {})}
        settings = AlertsSection.model_validate({"webhooks": [team], **values})
        return Post(self.store, settings, self.lines.append, self.clock, lambda: 0.0)

    def point_at(self, url: str) -> None:
        self.url_file.write_text(url)
        self.url_file.chmod(0o600)

    def states(self, alert_id: str | None = None) -> dict[str, str]:
        kept = [one for one in self.store.kept() if alert_id in (None, one.alert.id)]
        return {stood.channel: stood.state for one in kept for stood in one.deliveries}


@pytest.fixture
def store(database_url: str) -> Iterator[AlertStore]:
    records = open_records(database_url)
    yield AlertStore(records.engine)
    records.close()


@pytest.fixture
def office(store: AlertStore, tmp_path: Path) -> Office:
    return Office(store, tmp_path / "url")


@pytest.fixture
def received(office: Office) -> Iterator[Hook]:
    with hook() as found:
        office.point_at(found.url)
        yield found


def to(channel: str, due_at: float = 0.0) -> Any:
    return lambda told: Route((Delivery(channel, due_at),))


# Raising


def test_what_is_raised_is_delivered_once(office: Office, received: Hook, home: Path) -> None:
    alert = an_alert(time=office.clock())
    assert raise_alert(alert)
    assert office.post().deliver() == Passed(taken_in=1, repeats=0, sent=2, failed=0)
    assert office.post().deliver() == Passed(0, 0, 0, 0)
    assert received.ids == [alert.id] and list(spooled()) == []
    assert office.states() == {"team": "sent", "log": "sent"}
    (line,) = (home / "alerts.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == alert.id


def test_raising_never_raises(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file where the folder is to be")
    assert raise_alert(an_alert(text="token ghp_" + "a8Zk3" * 8)) is False
    assert raise_alert(None) is False  # type: ignore[arg-type]
    assert "an alert (run_failed) is lost" in caplog.text and "ghp_" not in caplog.text
    home.unlink()
    monkeypatch.setattr(spool, "_MOST_WAITING", 2)
    assert [raise_alert(an_alert()) for _ in range(3)] == [True, True, False]


def test_raising_waits_for_no_database_and_no_server(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYTRAIN_DATABASE", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    raise_alert(an_alert())  # the detectors are built once
    started = time.monotonic()
    assert raise_alert(an_alert())
    assert time.monotonic() - started < 0.5


def test_files_that_are_no_alerts_are_set_aside(
    office: Office, received: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    spool_folder().mkdir(parents=True)
    good = an_alert(time=office.clock())
    raise_alert(good)
    whole = good.as_dict()
    for name, content in {
        "half": json.dumps(whole)[:40], "list": "[]", "more": json.dumps({**whole, "id": 3}), "empty": "",
        "kind": json.dumps({**whole, "kind": "x"}), "less": json.dumps({"kind": "drift"}), "bytes": "\udc80",
        "nan": json.dumps({**whole, "time": math.nan}), "late": json.dumps({**whole, "time": 1e300}),
    }.items():  # fmt: skip
        (spool_folder() / f"0-{name}.json").write_text(content, errors="surrogateescape")
    (spool_folder() / "0-unfinished.tmp").write_text("{")
    os.utime(spool_folder() / "0-unfinished.tmp", (0, 0))
    assert office.post().deliver().taken_in == 1 and received.ids == [good.id]
    assert len(list(spool_folder().glob("*.bad"))) == 9 and not list(spool_folder().glob("*.tmp"))
    assert "is no alert and is set aside" in caplog.text
    assert not raise_alert(an_alert(time=math.nan)) and "is lost: ValueError" in caplog.text


# Repetitions


def test_the_same_within_an_hour_is_told_once_and_counted(office: Office, received: Hook) -> None:
    post = office.post()
    for minutes in (0, 1, 2, 61):
        office.clock.now = 10_000.0 + 60 * minutes
        raise_alert(an_alert(time=office.clock()))
        post.deliver()
    assert [one["repeats"] for one in received.bodies] == [0, 2]
    raise_alert(an_alert(time=office.clock(), subject="another"))
    post.deliver()
    assert [one["subject"] for one in received.bodies] == ["sums-1", "sums-1", "another"]
    assert [one.repeats is not None for one in office.store.kept()] == [False, False, True, True, False]


def test_one_event_is_one_alert_whoever_finds_it_and_however_late(office: Office, received: Hook) -> None:
    for days in (0, 0, 3):
        office.clock.now += 86400 * days
        raise_alert(an_alert(time=office.clock(), event="sums-1 100.0"))
        office.post().deliver()
    raise_alert(an_alert(kind="drift", event="sums-1 100.0", time=office.clock()))
    office.post().deliver()
    assert [one["kind"] for one in received.bodies] == ["run_failed", "drift"]


# Failures


def test_an_unreachable_webhook_keeps_the_alert_until_it_is_back(office: Office) -> None:
    port = free_port()
    office.point_at(f"http://127.0.0.1:{port}{SECRET_PATH}")
    alert = an_alert(time=office.clock())
    raise_alert(alert)
    post = office.post()
    waits = []
    for _ in range(9):
        assert post.deliver().failed == 1
        (stood,) = [one for one in office.store.kept()[0].deliveries if one.channel == "team"]
        waits.append(stood.due_at - office.clock())
        assert post.deliver().failed == 0, "before it is due it is left alone"
        office.clock.now = stood.due_at
    assert waits == [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0]
    assert stood.why == "127.0.0.1 cannot be reached: Connection refused" and stood.num_tries == 9
    assert office.states()["log"] == "sent"
    with hook(port=port) as received:
        assert post.deliver().sent == 1 and received.ids == [alert.id]


def test_what_nobody_takes_for_a_week_is_given_up_and_can_be_taken_up_again(
    office: Office, received: Hook
) -> None:
    received.reply = lambda number: (500, "", {}) if number < 3 else (200, "", {})
    alert = an_alert(time=office.clock())
    raise_alert(alert)
    office.post().deliver()
    office.clock.now += 8 * 86400
    office.post().deliver()
    assert office.states()["team"] == "given_up" and "it is given up" in office.lines[-1]
    assert [one.alert.id for one in office.store.kept(state="given_up")] == [alert.id]
    office.post().deliver()
    assert len(received.bodies) == 2
    assert office.store.retry(alert.id[:8]) == 1
    office.post().deliver()
    assert office.states()["team"] == "sent" and office.store.retry(alert.id) == 0


def test_a_server_that_is_away_is_asked_once_a_pass_and_one_that_refuses_an_alert_gets_the_others(
    office: Office, received: Hook
) -> None:
    for number in range(4):
        raise_alert(an_alert(time=office.clock(), subject=f"run-{number}"))
    received.reply = lambda _: (503, "", {})
    assert office.post().deliver() == Passed(4, 0, sent=4, failed=1) and len(received.bodies) == 1
    received.reply = lambda number: (400, "no", {}) if number == 2 else (200, "", {})
    office.clock.now += 30
    assert office.post().deliver() == Passed(0, 0, sent=3, failed=1)


def test_a_channel_that_hangs_keeps_no_other_waiting(office: Office, received: Hook, tmp_path: Path) -> None:
    hanging = threading.Event()
    received.reply = lambda _: (hanging.wait(20), (200, "", {}))[1]
    log = tmp_path / "log.jsonl"
    raise_alert(an_alert(time=office.clock()))
    with ThreadPoolExecutor() as pool:
        done = pool.submit(office.post(log={"file": str(log)}).deliver)
        deadline = time.monotonic() + 10
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert log.exists() and not done.done()
        hanging.set()
        assert done.result(20).sent == 2


def test_quiet_hours_hold_it_back_and_lose_nothing(office: Office, received: Hook) -> None:
    office.clock.now = 23 * HOUR_S  # 23:00 on the first of January 1970
    night = {"quiet_hours": {"start": "22:00", "end": "07:00"}}
    mild, grave = (
        an_alert(time=office.clock(), severity="warning"),
        an_alert(time=office.clock(), subject="other"),
    )
    raise_alert(mild), raise_alert(grave)
    post = office.post(team=night)
    post.deliver()
    assert received.ids == [grave.id]
    office.clock.now = 31 * HOUR_S
    post.deliver()
    assert received.ids == [grave.id, mild.id]


def test_quiet_hours_hold_back_what_could_not_be_told_before_them(office: Office, received: Hook) -> None:
    office.clock.now = 22 * HOUR_S - 30
    mild = an_alert(time=office.clock(), severity="warning")
    raise_alert(mild)
    post = office.post(team={"quiet_hours": {"start": "22:00", "end": "07:00"}})
    received.reply = lambda _: (503, "busy", {})
    assert post.deliver().failed == 1
    received.reply = lambda _: (200, "", {})
    tried = len(received.ids)
    for hour in (22.1, 25, 30.9):
        office.clock.now = hour * HOUR_S
        assert (post.deliver().sent, len(received.ids)) == (0, tried)
    stood = next(one for one in office.store.kept()[0].deliveries if one.channel == "team")
    assert (stood.state, stood.num_tries, stood.due_at) == ("waiting", 1, 31 * HOUR_S)
    office.clock.now = 31 * HOUR_S
    assert post.deliver().sent == 1 and len(received.ids) == tried + 1


def test_what_a_person_asks_for_is_told_in_quiet_hours(office: Office, received: Hook) -> None:
    office.clock.now = 23 * HOUR_S
    mild = an_alert(time=office.clock(), severity="warning")
    raise_alert(mild)
    post = office.post(team={"quiet_hours": {"start": "22:00", "end": "07:00"}})
    post.deliver()
    assert received.ids == [] and office.store.retry(mild.id) == 1
    assert post.deliver().sent == 1 and received.ids == [mild.id]


def test_a_secret_that_is_not_there_keeps_the_alert_and_says_so(office: Office) -> None:
    raise_alert(an_alert(time=office.clock()))
    assert office.post().deliver().failed == 1
    stood = next(one for one in office.store.kept()[0].deliveries if one.channel == "team")
    assert stood.state == "waiting" and "the URL of team cannot be read from" in str(stood.why)


def test_no_url_is_ever_recorded_or_told(office: Office, received: Hook) -> None:
    received.reply = lambda number: (500, f"I am {received.url} and {SECRET_PATH}", {})
    raise_alert(
        an_alert(time=office.clock(), text=f"posting to {received.url} failed", details={"u": received.url})
    )
    office.post().deliver()
    office.point_at(f"http://127.0.0.1:{free_port()}{SECRET_PATH}")
    office.clock.now += HOUR_S
    office.post().deliver()
    told = json.dumps([str(one) for one in office.store.kept()]) + "\n".join(office.lines)
    assert "500: I am [secret] and [secret]" in told and "cannot be reached" in told
    assert "notasecretofanybody" not in told + json.dumps(received.bodies)


# Kills, and two at once


def test_who_dies_in_a_try_leaves_it_to_the_next_after_a_while(office: Office, received: Hook) -> None:
    alert = an_alert(time=office.clock())
    office.store.take_in(alert, to("team"), office.clock())
    lost = office.store.claim("team", office.clock())
    assert lost is not None and office.store.claim("team", office.clock()) is None
    office.clock.now += CLAIM_S - 1
    assert office.post().deliver().sent == 0
    office.clock.now += 1
    assert office.post().deliver().sent == 1 and received.ids == [alert.id]
    assert office.store.delivered(lost, office.clock()) is False, "nobody listens to the earlier try"
    assert office.store.failed(lost, "late", 0.0, office.clock()) is False
    assert office.states() == {"team": "sent"}


def test_a_kill_between_keeping_and_unlinking_takes_nothing_in_twice(
    office: Office, received: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_alert(an_alert(time=office.clock()))
    ((place, alert),) = spooled()
    office.store.take_in(alert, to("team"), office.clock())
    assert place.exists()
    assert office.post().deliver() == Passed(0, 0, sent=1, failed=0) and not place.exists()
    assert received.ids == [alert.id]


def test_a_database_that_is_away_leaves_what_was_raised_where_it_is(
    office: Office, received: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raise_alert(an_alert(time=office.clock()))
    whole = office.store
    office.store = AlertStore(open_records(f"sqlite:///{tmp_path}/other.db").engine)
    office.store.engine.dispose()
    (tmp_path / "other.db").write_text("not a database at all, however long one looks at it" * 100)
    for one in tmp_path.glob("other.db-*"):
        one.unlink()
    with pytest.raises(StorageError):
        office.post().deliver()
    assert len(list(spooled())) == 1
    office.store = whole
    assert office.post().deliver().sent == 2


def test_of_many_deliverers_each_alert_is_delivered_by_one(office: Office, received: Hook) -> None:
    alerts = [an_alert(time=office.clock(), subject=f"run-{number}") for number in range(12)]
    for one in alerts:
        raise_alert(one)
    with ThreadPoolExecutor(4) as pool:
        passes = [one.result() for one in [pool.submit(office.post().deliver) for _ in range(4)]]
    assert sorted(received.ids) == sorted(one.id for one in alerts)
    assert sum(one.taken_in for one in passes) == 12 and sum(one.sent for one in passes) == 24


def deliver_for_ever(url_file: str) -> None:
    """In a process of its own, until it is killed."""
    records = open_records()
    settings = AlertsSection.model_validate({"webhooks": [{"name": "team", "url_file": url_file}]})
    while True:
        Post(AlertStore(records.engine), settings).deliver()


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_and_nothing_is_sent_twice_knowingly(
    office: Office, received: Hook, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYTRAIN_DATABASE", database_url)
    received.reply = lambda _: (time.sleep(0.01), (200, "", {}))[1]
    alerts = [an_alert(time=time.time(), subject=f"run-{number}") for number in range(30)]
    for one in alerts:
        raise_alert(one)
    context, kills = multiprocessing.get_context("spawn"), 0
    while len(set(received.ids)) < 16:
        process = context.Process(target=deliver_for_ever, args=(str(office.url_file),))
        process.start()
        seen, deadline = len(received.bodies), time.monotonic() + 60
        while len(received.bodies) < seen + 8 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(30)
        kills += 1
    office.clock.now = time.time() + CLAIM_S + 1
    office.post().deliver()
    times = {one.id: received.ids.count(one.id) for one in alerts}
    assert min(times.values()) == 1, "nothing is lost"
    # Of each kill at most the one in flight is sent again: nobody knows whether it had arrived.
    assert sum(times.values()) - 30 <= kills, times
    assert list(spooled()) == [] and office.states() == {"team": "sent", "log": "sent"}


RAISE = """
import sys
from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.spool import raise_alert
print("ready", flush=True)
for number in range(1_000_000):
    assert raise_alert(Alert("drift", f"f{number}", "warning", "it moved", "x" * 3_000, float(number)))
"""


@pytest.mark.slow
def test_who_is_killed_while_he_raises_leaves_whole_alerts_or_none() -> None:
    process = subprocess.Popen([sys.executable, "-c", RAISE], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + 60
    while len(list(spool_folder().glob("*.json"))) < 30 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    subjects = [alert.subject for _, alert in spooled()]
    assert subjects == [f"f{number}" for number in range(len(subjects))] and len(subjects) >= 29
    assert not list(spool_folder().glob("*.bad"))


# The store


def test_an_alert_comes_back_as_it_went_in(store: AlertStore) -> None:
    alert = an_alert(details={"größe": "3"}, event="e", text="a\nb", time=5.5)
    store.take_in(alert, to("team", 7.0), now=6.0)
    (kept,) = store.kept()
    assert (kept.alert.id, kept.alert.text, kept.taken_at) == (alert.id, "a\nb", 6.0)
    assert kept.alert.details == {"größe": "3"}
    assert store.counts() == {"team": {"waiting": 1}}
    assert store.kept(kind="drift") == store.kept(state="sent") == []
    assert store.unknown([alert, an_alert(event="f"), an_alert()]) != [] and alert not in store.unknown(
        [alert]
    )


def test_the_last_that_was_told_is_what_counts(store: AlertStore) -> None:
    seen: list[Told | None] = []

    def decide(told: Told | None) -> Route:
        seen.append(told)
        return Route(repeats=told.id) if told is not None else Route()

    first = an_alert(time=1.0)
    for now, alert in enumerate([first, an_alert(time=2.0), an_alert(time=3.0), an_alert(subject="other")]):
        store.take_in(alert, decide, now=float(now))
    assert seen == [None, Told(first.id, 1.0, "critical"), Told(first.id, 1.0, "critical"), None]


def test_ids_of_none_or_several(store: AlertStore) -> None:
    for alert_id in ("aa1", "aa2"):
        store.take_in(an_alert(id=alert_id), to("team"), now=1.0)
    for wrong, why in (("aa", "several ids begin so"), ("b", "no id begins so"), ("a%", "no id begins so")):
        with pytest.raises(ConfigError) as caught:
            store.retry(wrong)
        assert caught.value.why == why


def test_old_alerts_are_forgotten_and_what_waits_is_not(store: AlertStore) -> None:
    old, waiting, young = an_alert(subject="a"), an_alert(subject="b"), an_alert(subject="c")
    store.take_in(old, to("log"), now=1.0)
    store.take_in(waiting, to("team"), now=1.0)
    store.take_in(young, to("log"), now=100.0)
    one = store.claim("log", 5.0)
    assert one is not None and one.alert.id == old.id and store.delivered(one, 5.0)
    assert store.forget_before(50.0) == 1
    assert {one.alert.id for one in store.kept()} == {waiting.id, young.id}


def test_a_machine_with_another_file_leaves_channels_alone_that_it_does_not_know(
    office: Office, received: Hook
) -> None:
    office.store.take_in(an_alert(), to("of another machine"), office.clock())
    office.post().deliver()
    assert office.states() == {"of another machine": "waiting"}
