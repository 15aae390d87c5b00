"""`raytrain alerts`: who is told of what, what waits to be told, and the watch that finds it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.keys import RingOption, ring_of
from raytrain.cli.output import JsonOption, emit, exit_code_when_stopped, stderr_console
from raytrain.cli.recorded_runs import opened_records, wide
from raytrain.errors import EndpointError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.monitoring.alerts.post import Post
    from raytrain.monitoring.alerts.store import Kept
    from raytrain.monitoring.alerts.watch import Watched
    from raytrain.runs.records import Records

app = typer.Typer(
    help="Tell people what needs them: failed runs, the gate, servers, budgets, signatures.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The alerts file; by default alerts.yaml in RAYTRAIN_HOME.")
]
_STEP_S = 0.2


@app.command("test")
def test(
    channel: Annotated[
        list[str] | None, typer.Option("--channel", help="Only this one; several times for several.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Send a test to each channel now, whatever the hour; exit code 4 where one did not take it."""
    from raytrain.monitoring.alerts.alert import Alert
    from raytrain.monitoring.alerts.post import attempt, channel_named, channels_of, redactor_of
    from raytrain.monitoring.alerts.section import load_alerts

    settings = load_alerts(config)
    wanted = [channel_named(settings, one) for one in channel] if channel else channels_of(settings)
    redactor = redactor_of(channels_of(settings))
    told = "Sent by `raytrain alerts test`. Nothing is wrong, and nothing is to be done."
    alert = Alert("test", "test", "info", "a test of this channel", told, time.time())
    results: list[dict[str, Any]] = []
    for one in wanted:
        failure = attempt(one, alert, 0, redactor)
        results.append({"channel": one.name, "why": None if failure is None else failure.why,
                        "arrived": failure is None or failure.partly})  # fmt: skip

    def show(console: Console) -> None:
        for one in results:
            sign = "✓" if one["arrived"] else "✗"
            console.print(f"{sign} {one['channel']}" + (f": {one['why']}" if one["why"] else ""), markup=False,
                          highlight=False, soft_wrap=True)  # fmt: skip

    emit({"id": alert.id, "channels": results}, as_json, show)
    return 0 if all(one["arrived"] for one in results) else EndpointError.exit_code


@app.command("send")
def send(
    title: Annotated[str, typer.Argument(help="One line.")],
    text: Annotated[str, typer.Argument(help="What happened, and what to do.")] = "",
    kind: Annotated[str, typer.Option(help="What it is about, as alerts of raytrain's own say.")] = "drift",
    severity: Annotated[str, typer.Option(help="info, warning or critical.")] = "warning",
    subject: Annotated[
        str | None,
        typer.Option(help="What is said of the same soon after counts as repeated; default: TITLE."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Raise an alert, from a program of your own; `raytrain alerts watch` delivers it."""
    from raytrain.errors import StorageError
    from raytrain.monitoring.alerts.alert import KINDS, SEVERITIES, Alert
    from raytrain.monitoring.alerts.spool import raise_alert, spool_folder
    from raytrain.runs.record_types import one_of

    alert = Alert(
        kind=one_of(kind, KINDS, "kind of an alert"),
        subject=subject or title,
        severity=one_of(severity, SEVERITIES, "severity"),
        title=title,
        text=text,
        time=time.time(),
    )
    if not raise_alert(alert):
        raise StorageError(
            "the alert cannot be written down",
            why=f"{spool_folder()} cannot be written, or holds too many that nobody delivers",
            fix="free space there, or run `raytrain alerts watch --once`",
        )
    emit({"id": alert.id}, as_json, lambda console: console.print(alert.id, highlight=False))


@app.command("watch")
def watch(
    once: Annotated[bool, typer.Option("--once", help="One look and one delivery, as for cron.")] = False,
    config: ConfigOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Look at what the alerts file names and deliver what there is to tell, until Ctrl-C. Several may run at once."""
    from raytrain.monitoring.alerts.section import load_alerts
    from raytrain.monitoring.alerts.watch import Watch, observers_of
    from raytrain.runs.queue.patience import patiently
    from raytrain.runs.signals import SignalWatch

    settings = load_alerts(config)
    console = stderr_console()
    result: dict[str, Any] = {
        **dict.fromkeys(("passes", "raised", "repeats", "sent", "failed"), 0),
        "blind": [],
    }

    def told(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with opened_records() as records, SignalWatch() as signals:
        watching = Watch(_post(records, settings, told), observers_of(settings.watch, records, ring_of(ring)))

        def is_over() -> bool:
            return signals.signal_name is not None

        def look() -> bool:
            found = watching.pass_once(is_over)
            _add(result, found)
            for one in found.blind:
                told(f"cannot be watched: {one}")
            return once

        while not is_over() and not (look() if once else patiently(look, told, is_over)):
            until = time.monotonic() + settings.watch.every_s
            while not is_over() and time.monotonic() < until:
                time.sleep(_STEP_S)
        result["stopped_by"] = stopped_by = signals.signal_name
    emit(result, as_json, lambda console: _show_watch(console, result))
    return exit_code_when_stopped(stopped_by)


@app.command("list")
def list_alerts(
    state: Annotated[
        str | None, typer.Option(help="With a delivery that is waiting, sending, sent or given_up.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Of this kind alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most alerts to show.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """Alerts, newest first, and what became of each; those just raised on this machine too."""
    from raytrain.monitoring.alerts.alert import KINDS
    from raytrain.monitoring.alerts.spool import spooled
    from raytrain.monitoring.alerts.store import DELIVERY_STATES
    from raytrain.runs.record_types import one_of

    in_state = None if state is None else one_of(state, DELIVERY_STATES, "state of a delivery")
    of_kind = None if kind is None else one_of(kind, KINDS, "kind of an alert")
    with _opened() as store:
        kept, counts = store.kept(state=in_state, kind=of_kind, limit=limit), store.counts()
    raised = [alert for _, alert in spooled()] if state in (None, "waiting") else []
    raised = [one for one in raised if of_kind in (None, one.kind)]
    found = [_object(one) for one in kept]
    result = {"alerts": found, "channels": counts, "not_taken_in": [one.as_dict() for one in raised]}
    emit(result, as_json, lambda console: _show_list(wide(console), kept, len(raised)))


@app.command("retry")
def retry(
    alert: Annotated[str, typer.Argument(metavar="ID", help="An alert's id, or the beginning of it.")],
    as_json: JsonOption = False,
) -> None:
    """Let the next pass try at once what waits or was given up of an alert."""
    with _opened() as store:
        count = store.retry(alert)
    emit({"deliveries": count}, as_json, lambda console: console.print(f"{count} deliveries wait again"))


@contextmanager
def _opened() -> Iterator[Any]:
    from raytrain.monitoring.alerts.store import AlertStore

    with opened_records() as records:
        yield AlertStore(records.engine)


def _post(records: Records, settings: Any, told: Any) -> Post:
    from raytrain.monitoring.alerts.post import Post
    from raytrain.monitoring.alerts.store import AlertStore

    return Post(AlertStore(records.engine), settings, told)


def _add(result: dict[str, Any], found: Watched) -> None:
    passed = found.passed
    told = {
        "passes": 1,
        "raised": found.raised,
        "repeats": passed.repeats,
        "sent": passed.sent,
        "failed": passed.failed,
    }
    for key, count in told.items():
        result[key] += count
    result["blind"] = list(found.blind)


def _object(one: Kept) -> dict[str, Any]:
    from dataclasses import asdict

    deliveries = [asdict(stood) for stood in one.deliveries]
    return {**one.alert.as_dict(), "taken_at": one.taken_at, "repeats": one.repeats, "deliveries": deliveries}


def _show_watch(console: Console, result: dict[str, Any]) -> None:
    told = f"{result['raised']} found, {result['sent']} delivered, {result['failed']} tries failed"
    console.print(told + f", {result['repeats']} repeated", highlight=False)


def _show_list(console: Console, kept: list[Kept], num_raised: int) -> None:
    from raytrain.cli.registry_place import show_rows
    from raytrain.runs.views import local_time

    rows = [
        (
            one.alert.id[:12],
            local_time(one.alert.time),
            one.alert.severity,
            one.alert.kind,
            one.alert.title,
            "repeated"
            if one.repeats
            else ", ".join(_told(stood) for stood in one.deliveries) or "nobody wants it",
        )
        for one in kept
    ]
    if rows:
        show_rows(console, ("id", "time", "severity", "kind", "title", "told"), rows)
    else:
        console.print("no alert fits")
    if num_raised:
        console.print(
            f"{num_raised} more were raised here and wait for `raytrain alerts watch`", highlight=False
        )


def _told(stood: Any) -> str:
    state = str(stood.state).replace("_", " ")
    if stood.state == "sent":
        return str(stood.channel) + (f" ({stood.why})" if stood.why else "")
    return f"{stood.channel} {state}" + (f" ({stood.why})" if stood.why else "")
