"""`raytrain loop`: what is served is watched, trained again when it decays, and taken back when it falls."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.cli.recorded_runs import opened_records, wide
from raytrain.cli.repeating import repeated
from raytrain.cli.retrain import LoopArgument
from raytrain.errors import StorageError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.pipeline.loop.round import JobOf, Round
    from raytrain.pipeline.loop.section import Loop
    from raytrain.pipeline.steps import Release
    from raytrain.runs.records import Records

app = typer.Typer(
    help="Keep what is in production good: watch, retrain, release, take back.", no_args_is_help=True
)


@app.command("check")
def check(loop: LoopArgument, as_json: JsonOption = False) -> None:
    """Is the file valid, with all that it names, and can what is in production be trained again from here?"""
    from raytrain.pipeline.loop.opening import release_of
    from raytrain.pipeline.loop.production import find_production
    from raytrain.pipeline.loop.section import check_metrics, load_loop

    loaded = load_loop(loop)
    with opened_records() as records:
        check_metrics(loaded, records)
        release = release_of(loaded, records)
        found = find_production(release.desk.registry, release.name, release.ring, records)
    result = {
        "loop": loaded.section.loop,
        "production": {
            "version": str(found.version), "digest": found.digest, "model": found.model, "recipe": found.spec.name,
            "sources": [one.model_dump(mode="json") for one in found.sources],
        },
    }  # fmt: skip

    def show(console: Console) -> None:
        console.print(f"{loaded.section.loop} is valid", highlight=False, markup=False)
        told = f"{release.name}@{found.version}, recipe {found.spec.name}, {found.digest}"
        console.print(f"production: {told}", highlight=False, markup=False, soft_wrap=True)

    emit(result, as_json, show)


@app.command("run")
def run(
    loop: LoopArgument,
    every: Annotated[
        float | None, typer.Option(min=1.0, help="Look again so many seconds after each look, until Ctrl-C.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Of retrainings' jobs: ray (the default with an address), or local.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Jobs API of the cluster that retrains: http://HEAD:8265.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Look once, and act on what is seen: judge windows, take interactions in, take back what fell, order a retraining
    and put it into the queue, which `raytrain queue work` works off.

    Under --json it prints an object a look. Exit code 4 where a part of the only look could not be done.
    """
    from raytrain.pipeline.loop.opening import release_of
    from raytrain.pipeline.loop.round import Looker
    from raytrain.pipeline.loop.section import check_metrics, load_loop

    loaded = load_loop(loop)
    with opened_records() as records:
        check_metrics(loaded, records)
        release = release_of(loaded, records)
        looker = Looker(loaded, release, records, job_maker(loaded, release, records, backend, address))

        def look_once() -> int:
            done = looker.look(time.time())
            emit(done.as_dict(), as_json, partial(_show, done))
            return StorageError.exit_code if done.blind else 0

        return repeated(look_once, every, as_json)


@app.command("story")
def story(
    loop: LoopArgument,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the page; else loops/NAME below RAYTRAIN_HOME.")
    ] = None,
    rated: Annotated[int, typer.Option(min=1, help="Rated answers that make one point of quality.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """What has happened, on one page: quality, drift, versions and events over time, each with its digest."""
    from raytrain.pipeline.loop.opening import release_of
    from raytrain.pipeline.loop.section import load_loop
    from raytrain.pipeline.loop.story import gather
    from raytrain.pipeline.loop.story_page import headline, utc, write_story
    from raytrain.storage.home import raytrain_home

    loaded = load_loop(loop)
    with opened_records() as records:
        found = gather(loaded, release_of(loaded, records), records, rated_each=rated)
    page = write_story(out or raytrain_home() / "loops" / loaded.section.loop, found)

    def show(console: Console) -> None:
        for one in found.events:
            console.print(
                f"{utc(one.time)}  {one.kind}: {one.told}", highlight=False, markup=False, soft_wrap=True
            )
        console.print(headline(found), highlight=False)
        console.print(str(page), highlight=False, soft_wrap=True)

    emit({**found.as_dict(), "page": str(page)}, as_json, lambda console: show(wide(console)))


def job_maker(
    loop: Loop, release: Release, records: Records, backend: str | None, address: str | None
) -> JobOf:
    from raytrain.cli.queued_jobs import Asked, job_of
    from raytrain.pipeline.loop.production import find_production

    def made(ordered: Any) -> Any:
        scaling = find_production(release.desk.registry, release.name, release.ring, records).spec.scaling
        each, queue, search = scaling.worker_resources, loop.section.queue, loop.section.search
        count = scaling.max_workers * (1 if search is None else search.max_concurrent or 1)
        asked = Asked(
            ["retrain", str(loop.path), ordered.order.id],
            queue.name,
            queue.priority,
            backend,
            address,
            each["CPU"] * count,
            each.get("GPU", 0.0) * count,
            0.0,
            queue.retries,
            [],
        )
        return replace(job_of(asked), id=ordered.order.id, run_id=ordered.order.id)

    return made


def _show(done: Round, console: Console) -> None:
    def say(text: str) -> None:
        wide(console).print(text, markup=False, highlight=False, soft_wrap=True)

    for window in done.windows:
        told = "; ".join(window["alarms"]) or "no alarm"
        say(f"window {window['number']}: score {_score(window['score'])}, {told}")
    if done.reference is not None:
        say(f"a new reference: {done.reference}")
    if done.waits_for_rows is not None:
        say(f"production has changed: a new reference waits for {done.waits_for_rows} answers more")
    if done.collected is not None:
        quarantined = len(done.collected["quarantined"])
        say(f"interactions: {done.collected['num_new']} new rows; {quarantined} rows are set aside")
    if done.guarded is not None:
        for one in done.guarded["signals"]:
            say(f"{done.guarded['version']} beside the version before: {one}")
        if done.guarded["rolled_back_to"] is not None:
            say(f"TAKEN BACK: production is {done.guarded['rolled_back_to']} again")
    _show_decision(done, say)
    for one in done.blind:
        say(f"could not be done: {one}")


def _show_decision(done: Round, say: Any) -> None:
    for one in done.settled:
        say(f"{one}: its job has ended, and so has the order (raytrain triggers orders)")
    decision = done.decision
    if decision is not None:
        for one in decision["notes"]:
            say(f"note: {one}")
        for one in decision["reasons"]:
            say(f"  {one}")
        if decision["order"] is not None:
            say(f"ordered: {decision['order']}")
        elif decision["blocked"]:
            say("it would be time, but: " + "; ".join(decision["blocked"]))
    if done.queued is not None:
        say(f"{done.queued} waits in the queue: raytrain queue work")


def _score(score: float | None) -> str:
    return "unknown" if score is None else f"{score:.2f}"
