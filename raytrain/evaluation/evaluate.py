"""An evaluation from its suites to its artifact, as a run that can be interrupted at any moment."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError, PlatformError
from raytrain.evaluation.answering.answerer import Answerer, Unit
from raytrain.evaluation.answering.endpoint import Endpoint
from raytrain.evaluation.answering.given_outputs import GivenOutputs
from raytrain.evaluation.answering.local_model import LocalModel, absolute_reference, find_model
from raytrain.evaluation.answering.settings import EvaluateSettings
from raytrain.evaluation.answering.worker_pool import WorkerPool
from raytrain.evaluation.items import Suite, where_suites_lie
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.report import EvaluationReport, summarise
from raytrain.evaluation.results import (
    Evaluation,
    Timings,
    open_evaluation,
    timings_place,
    write_evaluation,
    write_timings,
)
from raytrain.evaluation.scoring.registry import build_scorer
from raytrain.evaluation.work import EvaluateProgress, OnProgress, Work
from raytrain.runs.carrying import carried
from raytrain.runs.records import Records, open_records
from raytrain.runs.run_ids import choose_run_id, known_runs
from raytrain.runs.signals import SignalWatch
from raytrain.storage.artifact import copy_artifact
from raytrain.storage.home import run_folder
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_of
from raytrain.storage.provenance import collect_provenance


@dataclass(frozen=True)
class EvaluateResult:
    """How an evaluation ended. `evaluation` is None where it was asked to stop, and can be resumed."""

    run_id: str
    state: str
    evaluation: Evaluation | None
    stopped_by: str | None = None
    was_done_before: bool = False

    def as_dict(self) -> dict[str, Any]:
        done = self.evaluation
        return {
            "run_id": self.run_id,
            "state": self.state,
            "artifact": None if done is None else str(done.artifact.location),
            "digest": None if done is None else done.artifact.digest,
            "report": None if done is None else done.report.as_dict(),
            "resources": None if done is None or done.timings is None else done.timings.resources,
        }


def evaluate(
    model: str,
    suites: Sequence[Suite],
    settings: EvaluateSettings,
    *,
    address: str | None = None,
    fresh: bool = False,
    on_progress: OnProgress | None = None,
) -> EvaluateResult:
    """Put every item of every suite to the model; the same call goes on with an evaluation that was interrupted, and
    answers from the artifact of one that is done.

    model: anything `find_for_inference` takes, the URL of an endpoint, or a .jsonl file of outputs. address: of the
    Ray cluster whose actors answer; they also do where scaling.num_workers is above 1. Raises the PlatformError that
    ended it; what was answered until then is kept.
    """
    tell = on_progress or (lambda _: None)
    _check(suites)
    records = open_records()
    with _open_answerer(model, suites, settings, address, tell) as answerer:
        plans = {one.section.suite: answerer.plan(one) for one in suites}
        identity = _identity(answerer, suites)
        name = _name_of(model)
        base_id = f"{name}-eval-{identity.removeprefix('sha256:')[:8]}"
        run_id = choose_run_id(known_runs(records, "evaluate", base_id, name), base_id, fresh=fresh)
        place = settings.storage.location / "evaluations" / run_id
        if (done := _finished_before(records, run_id, place, tell)) is not None:
            return EvaluateResult(run_id, "succeeded", done, was_done_before=True)
        records.create_run(
            run_id,
            kind="evaluate",
            name=name,
            config={
                "model": model,
                "suites": {one.section.suite: one.digest for one in suites},
                **settings.model_dump(mode="json"),
            },
            config_digest=identity,
            storage_uri=str(place),
            max_steps=sum(len(one.items) for one in suites),
        )
        watch = SignalWatch()
        work = Work(run_id, suites, answerer, records, tell, watch, _how_to_ask_again(model, settings))
        with watch, carried(records, run_id, lambda: work.num_done):
            _answer_all(work, plans)
            if work.stopped_by is not None:
                reason = f"stopped by {work.stopped_by}"
                records.set_state(run_id, "cancelled", reason, global_step=work.num_done)
                return EvaluateResult(run_id, "cancelled", None, work.stopped_by)
            evaluation = _publish(work, place)
            records.set_state(run_id, "succeeded", global_step=work.num_done)
    return EvaluateResult(run_id, "succeeded", evaluation)


def _answer_all(work: Work, plans: dict[str, list[Unit]]) -> None:
    """Every unit that has not been answered whole; each is on the disk before the next is told of."""
    for suite in work.suites:
        name, total = suite.section.suite, len(suite.items)
        folder = work.folder_of(suite)
        found, damaged = folder.read()
        for file in damaged:
            work.tell(EvaluateProgress(name, note=f"{file} is damaged: its items are answered again"))
        wanted = {item.id: item.digest() for item in suite.items}
        found = {key: one for key, one in found.items() if wanted.get(key) == one.item_digest}
        work.found[name] = found
        if found:
            work.tell(EvaluateProgress(name, note=f"{len(found)} of {total} items were answered before"))
        work.tell(EvaluateProgress(name, len(found), total))
        left = [unit for unit in plans[name] if any(item.id not in found for item in unit)]
        began = time.perf_counter()
        for answered in work.answerer.answer(suite, left):
            folder.append(answered)
            now = time.perf_counter()
            if answered:
                work.add_cost(now - began)
                began = now
            found |= {one.item_id: one for one in answered}
            work.tell(EvaluateProgress(name, len(found), total))
            if work.should_stop():
                return


def _publish(work: Work, place: Location) -> Evaluation:
    ordered = {
        suite.section.suite: [work.found[suite.section.suite][item.id] for item in suite.items]
        for suite in work.suites
    }
    identity, settings = work.answerer.identity, work.answerer.settings
    summaries = {
        suite.section.suite: summarise(suite, ordered[suite.section.suite], settings.get("dtype"))
        for suite in work.suites
    }
    report = EvaluationReport(identity, settings, summaries)
    provenance = collect_provenance(
        **where_suites_lie(work.suites),
        run=work.run_id,
        answering=work.how,
    )
    artifact = write_evaluation(place, report, ordered, provenance=provenance)
    write_timings(artifact, _timings(work, ordered))
    records = work.records
    records.add_artifact(
        work.run_id, "evaluation", "written", artifact.kind, artifact.digest, str(place),
        parents=artifact.manifest.parents,
    )  # fmt: skip
    scores = {
        f"score/{name}/{metric}": value
        for name, one in summaries.items()
        for metric, value in one.metrics.items()
    }
    records.add_metrics(work.run_id, [(work.num_done, time.time(), scores)])
    shutil.rmtree(run_folder(work.run_id) / "records", ignore_errors=True)
    return open_evaluation(place)


def _timings(work: Work, ordered: dict[str, list[ItemRecord]]) -> Timings:
    seconds = {
        name: {one.item_id: one.seconds for one in found if one.seconds is not None}
        for name, found in ordered.items()
    }
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    resources = {
        "machine": machine,
        **work.answerer.settings,
        **work.answerer.resources(),
        **work.cost(),
    }
    return Timings(seconds, resources)


def _how_to_ask_again(model: str, settings: EvaluateSettings) -> dict[str, Any]:
    return {**settings.answering.model_dump(mode="json"), "reference": absolute_reference(model)}


def _open_answerer(
    model: str, suites: Sequence[Suite], settings: EvaluateSettings, address: str | None, tell: OnProgress
) -> Answerer:
    if model.startswith(("http://", "https://")):
        return Endpoint(model, settings.endpoint)
    if model.endswith(".jsonl"):
        given = GivenOutputs(Path(model).expanduser())
        if (note := given.note_on(suites)) is not None:
            tell(EvaluateProgress(note=note))
        return given
    found = find_model(model, settings)
    if address is None and settings.scaling.max_workers == 1:
        return LocalModel(found, settings)
    return WorkerPool(found, settings, address)


def _check(suites: Sequence[Suite]) -> None:
    """Before anything is begun: every suite has a name of its own, and a scorer that exists."""
    names = [one.section.suite for one in suites]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise ConfigError(
            f"the suite {twice[0]} is named twice" if twice else "no suite is named",
            why="an evaluation keeps one set of records a suite" if twice else "there is nothing to ask",
            fix="give each suite another `suite:` name" if twice else "name one with --suite",
        )
    for suite in suites:
        if (scorer := suite.section.scorer) is not None:
            build_scorer(scorer.name, scorer.options)


def _identity(answerer: Answerer, suites: Sequence[Suite]) -> str:
    """What decides every answer; the words under which a model was named do not, except an endpoint's address.

    A loopback address is another on every machine, so that its host counts, too.
    """
    who = answerer.identity
    named = [one for one in (who.reference, who.base_model, who.host) if one is not None]
    known = [
        who.base_digest, who.adapter_digest, who.outputs_digest, who.tokenizer_digest, who.template_digest,
    ]  # fmt: skip
    return digest_of(
        {
            "model": known if any(known) else named,
            "settings": answerer.settings,
            "suites": {one.section.suite: one.digest for one in suites},
        }
    )


def _name_of(model: str) -> str:
    last = re.sub(r"\.(gguf|jsonl)$", "", model.rstrip("/").rpartition("/")[2], flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._")[:40] or "model"


def _finished_before(records: Records, run_id: str, place: Location, tell: OnProgress) -> Evaluation | None:
    """The evaluation that the run wrote, where it is done and whole; brought to `place` where it lies elsewhere."""
    try:
        uri = records.artifact_of(run_id, role="evaluation")
    except ConfigError:
        return None
    if uri is None:
        return None
    try:
        found = open_evaluation(Location(uri))
    except PlatformError as error:  # lost or damaged
        tell(EvaluateProgress(note=f"{error.what}; the evaluation is made again"))
        return None
    if uri == str(place):
        return found
    copy_artifact(found.artifact.location, place)
    if found.timings is not None:
        copy_artifact(timings_place(found.artifact.location), timings_place(place))
    return open_evaluation(place)
