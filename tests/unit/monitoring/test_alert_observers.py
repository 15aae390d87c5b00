"""What is looked at, and what is said of it: runs, the gate, signatures, servers, a month's budget."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alert_receivers import free_port
from answering_backends import ToldBackend, listening
from gates import promoted, team_policy, wanted
from queued import a_job
from releases import Evidence, Trained, release

from raytrain.errors import ConfigError, StorageError
from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.asking import Answer
from raytrain.monitoring.alerts.observers.drift import DriftObserver
from raytrain.monitoring.alerts.observers.endpoints import (
    EndpointHealth,
    EndpointObserver,
    Found,
    found_in,
    judge,
)
from raytrain.monitoring.alerts.observers.gate import GateObserver
from raytrain.monitoring.alerts.observers.month import alerts_of_month
from raytrain.monitoring.alerts.observers.runs import RunObserver
from raytrain.monitoring.alerts.observers.signatures import SignatureObserver
from raytrain.monitoring.alerts.post import Post
from raytrain.monitoring.alerts.section import AlertsSection, EndpointSection, MonthSection
from raytrain.monitoring.alerts.store import AlertStore
from raytrain.monitoring.alerts.watch import Watch, observers_of
from raytrain.monitoring.spending import Spending, month_of, spent_in_month, start_of_month
from raytrain.release.gate.evidence import Shelves
from raytrain.release.gate.promote import Desk, Insisted
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.runs.ownership import Owner
from raytrain.runs.queue.ending import Ended
from raytrain.runs.queue.job import Limits
from raytrain.runs.queue.store import QueueStore
from raytrain.runs.records import Records, open_records
from raytrain.serving.backend import Readiness
from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole


@pytest.fixture
def records() -> Iterator[Records]:
    records = open_records()
    yield records
    records.close()


def run(records: Records, run_id: str, state: Any = None, *, kind: str = "train", **values: Any) -> None:
    """Made an hour ago, and where a state is given ended now."""
    created_at, config = time.time() - 3600, values.pop("config", {})
    records.create_run(
        run_id, kind=kind, name=values.pop("name", "sums"), config=config, created_at=created_at
    )
    if state is not None:
        records.set_state(run_id, state, **values)


# Runs


def test_what_failed_before_the_first_look_is_no_news_and_what_fails_after_it_is(records: Records) -> None:
    run(records, "old", "failed", exit_reason="long ago", now=time.time() - 60)
    observer = RunObserver(records)
    first = observer.look(None, time.time())
    assert first.alerts == ()
    error = {"kind": "diverged", "what": "the loss is no number", "why": "it was nan", "fix": "lower it"}
    run(records, "bad", "failed", exit_reason="the loss is no number", error=error, global_step=40)
    run(records, "good", "succeeded")
    run(records, "stopped", "cancelled")
    run(records, "going")
    look = observer.look(first.seen, time.time())
    (alert,) = look.alerts
    assert (alert.kind, alert.subject, alert.severity) == ("run_failed", "bad", "critical")
    assert alert.text.splitlines() == [
        "the loss is no number", "why: it was nan", "fix: lower it", "look: raytrain runs show bad",
    ]  # fmt: skip
    assert alert.details["step"] == "40"
    again = observer.look(look.seen, time.time())
    assert [one.event for one in again.alerts] == [alert.event], "found again, and known by its event"
    assert observer.look(again.seen, time.time() + 7_300).alerts != []
    assert observer.look({**again.seen, "until": time.time() + 7_300}, time.time() + 7_300).alerts == []


def test_a_run_whose_process_is_gone_has_failed(records: Records) -> None:
    observer = RunObserver(records)
    seen = observer.look(None, time.time() - 100).seen
    run(records, "orphan")
    records.claim_run("orphan", Owner("another-host", 1, 1.0), now=time.time() - 90)
    (alert,) = observer.look(seen, time.time()).alerts
    assert "died without a word" in alert.text and alert.details["machine"] == "another-host"


def test_one_trial_of_a_search_is_told_mildly_and_a_spent_search_as_a_budget(records: Records) -> None:
    observer = RunObserver(records)
    seen = observer.look(None, time.time()).seen
    reason = "search.budget.gpu_hours: 4 of 4 are used"
    run(records, "find", "succeeded", kind="tune", exit_reason=reason)
    run(records, "done", "succeeded", kind="tune")
    run(records, "find-0003", "failed")
    run(records, "sums-2026", "failed")
    found = {one.subject: one for one in observer.look(seen, time.time()).alerts}
    assert {name: one.severity for name, one in found.items()} == {
        "find-0003": "info", "sums-2026": "critical", "find": "warning",
    }  # fmt: skip
    assert found["find"].kind == "budget" and reason in found["find"].text


def test_a_job_that_failed_before_it_had_a_run_is_told_too(records: Records) -> None:
    observer, queue = RunObserver(records), QueueStore(records.engine)
    seen = observer.look(None, time.time()).seen
    queue.submit(a_job("job-1", words=["train", "mine.yaml", "token=abc"]))
    ((job,), _) = queue.start_what_fits("me", "here", Limits())
    queue.settle(job, Ended(2))
    (alert,) = observer.look(seen, time.time()).alerts
    assert alert.title == "the job raytrain train mine.yaml failed" and "abc" not in str(alert)
    assert alert.details["job"] == "job-1"


def test_a_window_that_drifted_is_told_once(records: Records) -> None:
    observer = DriftObserver(records)
    run(records, "watch-sums-1a2b", kind="train")
    records.add_event("watch-sums-1a2b", "drift", "long ago", {"window": 1}, time=time.time() - 600)
    seen = observer.look(None, time.time()).seen
    data = {
        "window": 7,
        "report": "sha256:4f",
        "alarms": ["drift of prompt: length (p = 0.001)", "approval fell"],
    }
    records.add_event("watch-sums-1a2b", "drift", "window 7: drift of prompt: length (p = 0.001)", data)
    records.add_event("watch-sums-1a2b", "state", "running")
    look = observer.look(seen, time.time())
    (alert,) = look.alerts
    assert (alert.kind, alert.subject, alert.severity) == ("drift", "watch-sums-1a2b", "warning")
    assert alert.text.splitlines()[:2] == data["alarms"] and alert.details["report"] == "sha256:4f"
    assert [one.event for one in observer.look(look.seen, time.time()).alerts] == [alert.event]


# The gate


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return Evidence(tmp_path_factory.mktemp("evidence")).write()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    ring, registry = KeyRing(tmp_path / "keys"), Registry(tmp_path / "registry")
    for name in ("release", "ada", "grace", "katherine"):
        ring.generate(name)
    release(registry, ring, tmp_path / "bundle", Trained(), "1.0.0")
    return Desk(registry, ring, Shelves(Location(str(tmp_path / "storage"))))


def gate_alerts(desk: Desk, seen: Any) -> tuple[list[Alert], Any]:
    look = GateObserver(desk.registry, must_be_there=True).look(seen, 5.0)
    return list(look.alerts), look.seen


def test_what_the_gate_holds_is_told_once_and_what_it_lets_in_is_not(desk: Desk, evidence: Evidence) -> None:
    alerts, seen = gate_alerts(desk, None)
    assert alerts == []
    little = replace(wanted(evidence), evidence=())
    assert promoted(desk, little).refusal is not None
    (alert,), seen = gate_alerts(desk, seen)
    assert alert.title == "NO-GO: sums@1.0.0 does not become production"
    assert alert.severity == "critical" and "evaluation" in alert.text and "to do: " in alert.text
    assert alert.details["verdict"] == "NO-GO"
    promoted(desk, little)
    assert gate_alerts(desk, seen) == ([], seen), "the same decision on the same facts"
    assert promoted(desk, wanted(evidence)).moved
    alerts, seen = gate_alerts(desk, seen)
    assert alerts == []


def test_what_waits_for_people_is_told_mildly_and_an_override_gravely(desk: Desk, evidence: Evidence) -> None:
    _, seen = gate_alerts(desk, None)
    asks = team_policy(approvals=[{"role": "reviewer", "needed": 2}])
    assert promoted(desk, wanted(evidence, asks)).judged.outcome.verdict == "ESCALATE"
    (alert,), seen = gate_alerts(desk, seen)
    assert alert.severity == "warning" and alert.title.startswith("ESCALATE")
    desk.ring.signing_key("ada")
    from raytrain.release.gate.promote import promote

    insisted = replace(wanted(evidence, asks), why="the fair is tomorrow")
    promote(desk, insisted, desk.ring.signing_key("ada"), Insisted("on-call"))
    (alert,), seen = gate_alerts(desk, seen)
    assert alert.title == "sums@1.0.0 became production although the gate said ESCALATE"
    assert alert.severity == "critical" and "override by ada as on-call: the fair is tomorrow" in alert.text


def test_a_record_that_is_not_whole_yet_is_waited_for(desk: Desk, evidence: Evidence) -> None:
    _, seen = gate_alerts(desk, None)
    promoted(desk, replace(wanted(evidence), evidence=()))
    (signature,) = (Path(str(desk.registry.place)) / "_records.sums").rglob("*.sig*")
    shutil.move(signature, signature.with_name("elsewhere"))
    alerts, after = gate_alerts(desk, seen)
    assert alerts == []
    shutil.move(signature.with_name("elsewhere"), signature)
    assert len(gate_alerts(desk, after)[0]) == 1


def test_a_registry_that_is_named_and_gone_is_told(tmp_path: Path) -> None:
    gone = Registry(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="there is no registry"):
        GateObserver(gone, must_be_there=True).look(None, 1.0)
    assert GateObserver(gone, must_be_there=False).look(None, 1.0).alerts == []


# Signatures


def test_a_bundle_that_was_changed_is_told_at_each_look(desk: Desk, tmp_path: Path) -> None:
    observer = SignatureObserver(desk.registry, desk.ring, 86400.0, must_be_there=True)
    assert observer.look(None, 1.0).alerts == [] and observer.every_s == 86400.0
    (weights,) = (tmp_path / "registry").rglob("adapter_model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(content)
    for _ in range(2):
        (alert,) = observer.look({}, 2.0).alerts
        assert (alert.kind, alert.severity, alert.subject) == ("signature", "critical", "sums 1.0.0")
        assert "does not verify" in alert.title


def test_a_key_that_was_revoked_is_told(desk: Desk) -> None:
    key = next(one for one in desk.ring.known() if one.name == "release")
    desk.ring.revoke(key.short_id, "it was stolen")
    (alert,) = SignatureObserver(desk.registry, desk.ring, 1.0, must_be_there=True).look(None, 1.0).alerts
    assert "it was stolen" in alert.text


# Servers

SERVER = EndpointSection(name="prod", url="http://127.0.0.1:8000", after_looks=2)
UP, DOWN, ILL = Found(True), Found(False, why="nobody there"), Found(True, ("a",))
PROBLEMS = "warning prod problems"


def story(*found: Found) -> list[list[str]]:
    standing, told = EndpointHealth(), []
    for number, one in enumerate(found):
        alerts, standing = judge(SERVER, standing, one, now=60.0 * number)
        told.append([f"{alert.severity} {alert.subject}" for alert in alerts])
    return told


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ((UP, UP), [[], []]),
        ((UP, DOWN, UP), [[], [], []]),
        ((DOWN, DOWN, DOWN, DOWN), [[], ["critical prod"], [], []]),
        ((DOWN, DOWN, UP, UP), [[], ["critical prod"], ["info prod"], []]),
        ((DOWN, UP, DOWN, UP), [[], [], [], []]),
        ((ILL, ILL, Found(True, ("a", "b"))), [[PROBLEMS], [], [PROBLEMS]]),
        ((ILL, UP, ILL), [[PROBLEMS], [], [PROBLEMS]]),
    ],
    ids=["up", "a hiccup", "down", "down and up", "flapping", "problems", "problems that come back"],
)  # fmt: skip
def test_who_is_told_of_a_server_and_when(found: tuple[Found, ...], told: list[list[str]]) -> None:
    assert story(*found) == told


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer("h cannot be reached: Connection refused"), "Connection refused"),
        (Answer(None, 200, {}, b"<html>"), "it answered 200, and not as raytrain's /ready does"),
        (Answer(None, 200, {}, b"[" * 100_000), "not as raytrain's"),
        (Answer(None, 404, {}, b'{"detail": "Not Found"}'), "it answered 404"),
        (Answer(None, 503, {}, b'{"is_ready": false}'), "it says that it is not ready"),
        (Answer(None, 200, {}, b'{"is_ready": true, "problems": 3}'), "not as raytrain's"),
        (Answer(None, 200, {}, b'{"is_ready": "yes"}'), "not ready"),
    ],
)
def test_what_is_no_yes_is_a_no(answer: Answer, why: str) -> None:
    found = found_in(answer)
    assert not found.is_ready and why in found.why


def test_a_real_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Troubled(ToldBackend):
        async def readiness(self) -> Readiness:
            return Readiness(True, "base", {}, problems=("sums@production: it was signed by nobody known",))

    with listening(build_app(Troubled(), HttpSection(insecure=True))) as url:
        look = EndpointObserver(EndpointSection(name="prod", url=url)).look(None, 5.0)
    (alert,) = look.alerts
    assert alert.severity == "warning" and "signed by nobody known" in alert.text
    gone = EndpointObserver(
        EndpointSection(name="prod", url=f"http://127.0.0.1:{free_port()}", after_looks=1)
    )
    (alert,) = gone.look(look.seen, 6.0).alerts
    assert alert.severity == "critical" and "Connection refused" in alert.text
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(ConfigError, match="the key of prod is not there"):
        EndpointObserver(EndpointSection(name="prod", url="http://h", key_env="NO_KEY")).look(None, 1.0)


# A month's budget

PRICED = {
    "scaling": {"num_workers": 2, "use_gpu": True, "cpus_per_worker": 1},
    "cost": {"gpu_hour": 3.0, "currency": "EUR"},
}


def test_a_month_is_what_its_runs_took_in_it(records: Records) -> None:
    start = start_of_month(1_700_000_000.0)  # November 2023
    me = Owner.current()
    spans = {"over-new-month": (-7200.0, 3600.0), "within": (86400.0, 90000.0), "before": (-9000.0, -8000.0)}
    for run_id, (began, ended) in spans.items():
        records.create_run(run_id, kind="train", name="r", config=PRICED, created_at=start + began)
        records.claim_run(run_id, me, now=start + began)
        records.set_state(run_id, "succeeded", now=start + ended)
    records.create_run("s", kind="tune", name="s", config=PRICED, created_at=start)
    records.claim_run("s", me, now=start)
    found = spent_in_month(records, start + 100_000)
    assert found.gpu_hours == pytest.approx(4.0) and found.money == {"EUR": pytest.approx(12.0)}
    assert month_of(start) == "2023-11" and spent_in_month(records, start + 40 * 86400).gpu_hours == 0


@pytest.mark.parametrize(
    ("money", "gpu_hours", "told"),
    [
        (0.0, 0.0, []),
        (79.9, 0.0, []),
        (80.0, 0.0, ["warning 2023-11 money 0.8"]),
        (250.0, 0.0, ["critical 2023-11 money 1"]),
        (85.0, 10.0, ["warning 2023-11 money 0.8", "critical 2023-11 gpu_hours 1"]),
    ],
)
def test_shares_of_a_month_are_told(money: float, gpu_hours: float, told: list[str]) -> None:
    section = MonthSection(money=100, currency="EUR", gpu_hours=10)
    alerts = alerts_of_month(section, Spending(gpu_hours, {"EUR": money, "USD": 1e6}), 1_700_000_000.0)
    assert [f"{one.severity} {one.subject}" for one in alerts] == told
    assert len({one.event for one in alerts}) == len(alerts)
    assert all(("1000000.00 USD are not counted" in one.text) == ("money" in one.subject) for one in alerts)


# All together


def test_a_pass_looks_and_delivers_and_one_that_cannot_be_looked_at_stops_no_other(
    records: Records, home: Path, tmp_path: Path
) -> None:
    settings = AlertsSection.model_validate({"watch": {"registry": str(tmp_path / "nowhere")}})
    store = AlertStore(records.engine)
    watch = Watch(Post(store, settings), observers_of(settings.watch, records, KeyRing(tmp_path / "keys")))
    first = watch.pass_once()
    assert [one.partition(":")[0] for one in first.blind] == ["gate", "signatures"] and first.raised == 0
    assert first.passed.sent == 2
    run(records, "bad", "failed", exit_reason="no")
    second, third = watch.pass_once(), watch.pass_once()
    assert (second.raised, second.passed.repeats, third.raised) == (1, 2, 0)
    titles = [one.alert.title for one in store.kept() if one.repeats is None]
    assert sorted(titles) == ["gate cannot be watched", "signatures cannot be watched", "train sums failed"]


def test_what_cannot_be_written_down_is_found_again(
    records: Records, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raytrain.monitoring.alerts import spool

    store = AlertStore(records.engine)
    watch = Watch(Post(store, AlertsSection()), [RunObserver(records)])
    watch.pass_once()
    run(records, "bad", "failed")
    monkeypatch.setattr(spool, "_MOST_WAITING", 0)
    assert watch.pass_once().raised == 0
    monkeypatch.undo()
    monkeypatch.setenv("RAYTRAIN_HOME", str(home))
    assert watch.pass_once().raised == 1


def test_an_observer_is_looked_at_no_more_often_than_it_wants(records: Records) -> None:
    looks: list[float] = []

    class Slow:
        name, every_s = "slow", 100.0

        def look(self, seen: Any, now: float) -> Any:
            looks.append(now)
            if now == 150.0:
                raise StorageError("it is away", why="w", fix="f")
            from raytrain.monitoring.alerts.observers.observer import Look

            return Look((), {"at": now})

    times = iter([0.0, 50.0, 150.0, 160.0, 200.0, 40.0])
    current = [0.0]
    watch = Watch(Post(AlertStore(records.engine), AlertsSection(), now=lambda: current[0]), [Slow()])
    for current[0] in times:
        watch.pass_once()
    assert looks == [0.0, 150.0, 160.0, 40.0], (
        "a failed look is tried again, and a clock set back stops nothing"
    )
