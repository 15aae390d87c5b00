"""The chain of a retraining: rows, a run from rows to a decision, a release, the gate, a trial online, production."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from raytrain.errors import RefusedError
from raytrain.evaluation.answering.settings import AnsweringSection, EvaluateSettings
from raytrain.evaluation.decision.record import decision_place
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.triggers.state import Outcome
from raytrain.monitoring.triggers.store import Ordered
from raytrain.pipeline.loop import evidence, fresh_rows
from raytrain.pipeline.loop.canary import wait_for_trial
from raytrain.pipeline.loop.chain_record import Chain, candidate_of, note_candidate, note_step, recalled
from raytrain.pipeline.loop.fresh_rows import RowsPlan
from raytrain.pipeline.loop.opening import retrainings_of
from raytrain.pipeline.loop.planning import plan_rows, recipe_of
from raytrain.pipeline.loop.production import when_promoted
from raytrain.pipeline.loop.section import Loop
from raytrain.pipeline.recipe import PipelineView, StepResult, run_recipe
from raytrain.pipeline.section import PipelineRecipe
from raytrain.pipeline.steps import Release, Stopped, admitted, decided, frozen, released
from raytrain.release.bundle.parity.prompts import prompts_for
from raytrain.release.bundle.subject import find_subject
from raytrain.release.gate.policy import Target
from raytrain.release.registry.state import PRODUCTION
from raytrain.release.registry.versions import Version
from raytrain.release.signing import sign
from raytrain.runs.queue.store import QueueStore
from raytrain.runs.records import Records
from raytrain.storage.artifact import Artifact, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import read_manifest

APPROVAL = "approval"
"""Kind of the error of a run that waits for people."""
CANARY_LOSS = "canary_loss"
"""Event of a run whose candidate lost its trial."""


class RetrainView(PipelineView, Protocol):
    """Who looks on: the steps of `raytrain run` among those of the chain."""

    def tell(self, text: str) -> None:
        """A line of progress."""


class AwaitsApprovalError(RefusedError):
    """The gate wants people's word: once it is given, the same call goes on."""

    kind = APPROVAL


class NoGain(Exception):
    """What was trained does not follow production, in words."""


@dataclass
class Carrying:
    """One call's way through the chain."""

    loop: Loop
    ordered: Ordered
    release: Release
    records: Records
    view: RetrainView
    address: str | None
    chain: Chain = field(init=False)

    def __post_init__(self) -> None:
        self.chain = Chain(self.ordered.order, self.loop.section.loop, self.release.name, clock.time())

    @property
    def folder(self) -> Location:
        return retrainings_of(self.release) / self.ordered.order.id

    def carry_out(self) -> tuple[Outcome, str]:
        try:
            plan = self._planned()
            recipe = recipe_of(self.loop, plan)
            made = self._made(plan, recipe)
            version, decision = self._released(recipe, made)
            note_candidate(self.ordered.order.id, version, self.records)
            there = when_promoted(self.release.desk.registry, self.release.name, version)
            if there is not None:  # by a call that was killed afterwards: what came of it since is not undone
                gone_through = {one.name for one in self.chain.steps} | {PRODUCTION}
                earlier = recalled(self.ordered.order.id, self.records)
                self.chain.steps += [one for one in earlier if one.name not in gone_through]
                self._done(StepResult(PRODUCTION, f"it was put there at {there}", True))
            else:
                self._let_in(plan, recipe, made, version, decision)
        except NoGain as end:
            return "no_gain", str(end)
        name, now = self.release.name, self._production()
        if now != str(version):
            return "succeeded", f"{name}@{version} went to production, where {now} is by now"
        return "succeeded", f"{name}@{version} is in production"

    def _let_in(
        self,
        plan: RowsPlan,
        recipe: PipelineRecipe,
        made: dict[str, StepResult],
        version: Version,
        decision: Artifact,
    ) -> None:
        """Reports, the gate, the trial, the gate."""
        reports = [decision, *self._reports(recipe, made)]
        if any(one.signed_evidence for one in self._targets):
            for one in (*reports, *(_evaluation(made[name]).artifact for name in ("baseline", "evaluate"))):
                sign(one.path, self.release.key)
        self._refuse_outdated(plan)
        if self.loop.needs_staging:
            self._admitted("staging", version, reports)
        if self.loop.section.canary is not None:
            QueueStore(self.records.engine).give_back(self.ordered.order.id)  # what is left needs no workers
            self._tried_online(plan, version)
            self._refuse_outdated(plan)
        self._admitted(PRODUCTION, version, reports)

    def _planned(self) -> RowsPlan:
        self.view.begin("rows")
        known = fresh_rows.open_plan(self.folder / "rows")
        if (
            known is not None
            and promoted_candidate(self.ordered.order.id, self.release, self.records) is None
        ):
            self._refuse_forgotten(known)
        plan = known or plan_rows(self.folder, self.loop, self.ordered.order, self.release, self.records)
        self.chain.plan = plan
        self.note_artifact("rows", "written", plan.artifact)
        self._done(_step("rows", plan.told(), plan.artifact, was_known=known is not None))
        return plan

    def _refuse_forgotten(self, plan: RowsPlan) -> None:
        pool, ids = InteractionPool(self.records.engine), plan.ids()
        gone = pool.known(ids) - pool.ready(ids)
        if gone:
            raise RefusedError(
                f"{len(gone)} of the rows of {self.ordered.order.id} may not be learned from any more",
                why="somebody had them forgotten, or refused them, since they were written down",
                fix="nothing: the next order learns from the others",
            )

    def _made(self, plan: RowsPlan, recipe: PipelineRecipe) -> dict[str, StepResult]:
        """`raytrain run` of production's recipe over these rows, held against production: its steps by their names."""
        found: dict[str, StepResult] = {}

        def done(step: StepResult) -> None:
            found[step.name] = step
            if step.name == "prepare":
                self._note_dataset(step, plan)
            self._done(step)

        result = run_recipe(recipe, _Following(self.view, done), address=self.address)
        if result.stopped_by is not None:
            raise Stopped(result.stopped_by)
        if result.refusal is not None:
            raise NoGain(f"{result.refusal.what} ({result.refusal.why})")
        return found

    def _note_dataset(self, step: StepResult, plan: RowsPlan) -> None:
        """It was made from these rows: by this all is found that has learned from a user's words."""
        assert step.place is not None and step.digest is not None, "it is an artifact"
        own = read_manifest(Location.parse(step.place)).parents
        parents = {**own, "rows": plan.artifact.digest}
        self.records.add_artifact(
            self.ordered.order.id, "dataset", "read", "dataset", step.digest, step.place, parents
        )

    def _released(self, recipe: PipelineRecipe, made: dict[str, StepResult]) -> tuple[Version, Artifact]:
        """The version, and the decision between it and production."""
        self.view.begin("release")
        release, contract = self.release, self.loop.policy.contract
        baseline, candidate = (_evaluation(made[name]) for name in ("baseline", "evaluate"))
        kept = frozen(baseline, recipe.spec)
        _, decision = decided(
            contract, kept, candidate, decision_place(release.storage, [kept, candidate], contract)
        )
        model = str(made["train"].place)
        subject = find_subject(model, release.storage)
        prompts, _ = prompts_for(subject, self.loop.prompts, release.export_check)
        why = f"{self.ordered.order.id}: {'; '.join(self.ordered.order.reasons)}"[:500]
        version = released(release, model, candidate, prompts, why)
        self.chain.version = str(version)
        if any(one.signed_evidence for one in self._targets):
            sign(kept.artifact.path, release.key)
        bundle = release.desk.registry.find(f"{release.name}@{version}").digest
        told = f"{release.name}@{version}: held against what was trained, scanned, signed"
        self._done(StepResult("release", told, False, None, bundle))
        return version, decision

    @property
    def _targets(self) -> list[Any]:
        wanted = ("staging", PRODUCTION) if self.loop.needs_staging else (PRODUCTION,)
        return [self.loop.policy.target(one) for one in wanted]

    def _reports(self, recipe: PipelineRecipe, made: dict[str, StepResult]) -> Sequence[Artifact]:
        dataset = open_artifact(Location.parse(str(made["prepare"].place)))
        answering = AnsweringSection(
            chat_template=recipe.spec.model.chat_template, batch_size=recipe.section.batch_size
        )
        settings = EvaluateSettings(answering=answering, storage=recipe.spec.storage)
        candidate = evidence.Candidate(
            str(made["train"].place), str(made["train"].digest), dataset, recipe.spec, recipe.suites, settings
        )
        found = evidence.reports_for(candidate, self._targets, self.folder, self.view.tell)
        for one in found:
            self.note_artifact(one.kind, "written", one)
        return found

    def _admitted(self, to: Target, version: Version, reports: Sequence[Artifact]) -> None:
        """Raises NoGain where the gate says no, AwaitsApprovalError where people have to."""
        self.view.begin(to)
        promotion = admitted(self.release, version, reports, to=to, why=f"order {self.ordered.order.id}")
        refusal = promotion.refusal
        if refusal is not None and promotion.judged.outcome.verdict == "ESCALATE":
            raise AwaitsApprovalError(
                refusal.what, why=refusal.why, fix=f"{refusal.fix}; then: raytrain retrain, as before"
            )
        told = promotion.judged.outcome.verdict if refusal is None else f"{refusal.what} ({refusal.why})"
        self._done(_step(to, told, promotion.record, was_known=not promotion.moved and refusal is None))
        if refusal is not None:
            raise NoGain(told)

    def _tried_online(self, plan: RowsPlan, version: Version) -> None:
        """Raises NoGain where the candidate is surely worse in anything."""
        self.view.begin("canary")
        still = partial(self._refuse_outdated, plan)
        found = wait_for_trial(self.loop, self.release, plan, version, self.view.tell, still)
        worse = [one for one in found.measured if one.verdict is not None and one.verdict.word == "worse"]
        told = f"{found.size}: " + (
            "; ".join(f"{one.measure.name} is worse" for one in worse)
            or "the candidate is worse in nothing that was measured"
        )
        self._done(StepResult("canary", told, False))
        if worse:
            self.records.add_event(self.ordered.order.id, CANARY_LOSS, told, {"version": str(version)})
            raise NoGain(f"the candidate lost its trial: {told}")

    def _production(self) -> str:
        return str(self.release.desk.registry.state(self.release.name).aliases.get(PRODUCTION))

    def _refuse_outdated(self, plan: RowsPlan) -> None:
        """What was held against one version may not follow another, and nothing that has learned what is forgotten."""
        self._refuse_forgotten(plan)
        before, now = plan.content["production"]["version"], self._production()
        if now != before:
            raise RefusedError(
                f"{self.release.name}@{before} is not in production any more",
                why=f"{now} is, and what was trained here was held against {before}",
                fix="nothing: the next order begins from what is in production then",
            )

    def note_artifact(self, role: str, direction: Any, artifact: Artifact) -> None:
        place, parents = str(artifact.location), artifact.manifest.parents
        self.records.add_artifact(
            self.ordered.order.id, role, direction, artifact.kind, artifact.digest, place, parents
        )

    def _done(self, step: StepResult) -> None:
        self.chain.steps.append(step)
        note_step(self.ordered.order.id, step, self.records)
        self.view.done(step)


def promoted_candidate(order_id: str, release: Release, records: Records) -> tuple[Version, str] | None:
    """What the order has released, and when it was put into production; None where it has not come so far."""
    found = candidate_of(order_id, records)
    version = None if found is None else Version.parse(found)
    there = None if version is None else when_promoted(release.desk.registry, release.name, version)
    return None if version is None or there is None else (version, there)


class _Following:
    """The view of one who looks on, with every step told to somebody else."""

    def __init__(self, view: PipelineView, done: Callable[[StepResult], None]) -> None:
        self._view = view
        self.done = done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)


def _step(name: str, told: str, artifact: Artifact | None, *, was_known: bool) -> StepResult:
    place, digest = (None, None) if artifact is None else (str(artifact.location), artifact.digest)
    return StepResult(name, told, was_known, place, digest)


def _evaluation(step: StepResult) -> Evaluation:
    return open_evaluation(Location.parse(str(step.place)))
