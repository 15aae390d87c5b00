"""A patch for an instance, from its text to one record."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from raytrain.errors import DataError
from raytrain.evaluation.code.equivalence import Equivalence, compare_trees
from raytrain.evaluation.code.grading import Grade, TestRun, grade
from raytrain.evaluation.code.instances import Instance, Prediction, locate_repository
from raytrain.evaluation.code.patches import DiffMeasure, facts_of, measure, to_restore
from raytrain.evaluation.code.testing import CANARY_BLOCKS, TestSettings, run_tests
from raytrain.evaluation.code.trees import (
    Applied,
    PatchError,
    apply_patch,
    blocks_of,
    changed_files,
    check_out,
    put_back,
)
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.sandbox.scratch import scratch_folder
from raytrain.evaluation.sandbox.words import printable

Found = TypeVar("Found")
Status = Literal["resolved", "unresolved", "empty", "not applied", "refused", "stopped", "tampered"]


@dataclass(frozen=True)
class Verdict:
    """What became of one patch."""

    instance: Instance
    patch: str
    status: Status
    note: str
    """In a line, for people."""
    grade: Grade | None = None
    """None where no test was run."""
    run: TestRun | None = None
    applied: Applied | None = None
    restored: tuple[str, ...] = ()
    """Files that the patch changes and that were put back, for they decide what passes."""
    measure: DiffMeasure | None = None
    equivalence: Equivalence | None = None
    """With gold, as the files tell."""

    @property
    def is_resolved(self) -> bool:
        return self.status == "resolved"


def judge_patch(instance: Instance, patch: str, repositories: Path, settings: TestSettings) -> Verdict:
    """Apply a patch and run the tests; an empty one is run as well.

    Raises DataError where the instance itself is at fault.
    """
    repository = locate_repository(instance, repositories)
    with scratch_folder("raytrain-instance-") as place:
        base, folder = place / "base", place / "candidate"
        check_out(repository, instance.base_commit, base)
        shutil.copytree(base, folder, symlinks=True)
        verdict = Verdict(instance, patch, "unresolved", "")
        if patch.strip():
            try:
                verdict = replace(verdict, measure=measure(patch, instance.patch))
                verdict = replace(verdict, applied=_applied(patch, folder, base, settings.limits.disk_mb))
            except (PatchError, ValueError) as error:  # the latter from what cannot be read
                is_unsafe = isinstance(error, PatchError) and error.is_unsafe
                status: Status = "refused" if is_unsafe else "not applied"
                return replace(verdict, status=status, note=printable(str(error)))
        changed = changed_files(base, folder)
        verdict = replace(verdict, restored=_restore(instance, changed, folder, base))
        if patch.strip():
            verdict = replace(verdict, equivalence=_beside_gold(instance, changed, folder, base))
        before = blocks_of(folder)
        _apply_tests(instance, folder)
        of_tests = blocks_of(folder) - before + CANARY_BLOCKS
        if patch.strip() and (why := _too_large(folder, base, settings.limits.disk_mb, of_tests)):
            return replace(verdict, status="refused", note=why)
        run = run_tests(folder, instance.tests, settings)
    return _judged(replace(verdict, run=run), run)


def _applied(patch: str, folder: Path, base: Path, disk_mb: int) -> Applied:
    """Raises PatchError also where it does what it does not say, or leaves no room on the sandbox's disk."""
    applied = apply_patch(folder, patch)
    said = {os.path.normpath(one) for one in facts_of(patch).files}
    unsaid = [one for one in changed_files(base, folder) if one not in said]
    if unsaid:
        raise PatchError(f"it changes {unsaid[0]}, which it does not name", is_unsafe=True)
    if why := _too_large(folder, base, disk_mb):
        raise PatchError(why, is_unsafe=True)
    return applied


def _too_large(folder: Path, base: Path, disk_mb: int, of_tests: int = 0) -> str:
    """Why the sandbox's disk would be full before any test, where without the patch it would not; else nothing.

    of_tests: blocks that the tests take; those of the test patch stand in `folder` alone.
    """
    most = disk_mb * _BLOCKS_IN_MIB
    taken = blocks_of(folder) + (CANARY_BLOCKS if of_tests else 0)
    if taken >= most > blocks_of(base) + of_tests:
        return f"it makes the repository larger than the sandbox's {disk_mb} MiB"
    return ""


_BLOCKS_IN_MIB = 256


def _restore(instance: Instance, changed: Sequence[str], folder: Path, base: Path) -> tuple[str, ...]:
    decisive = to_restore(changed, facts_of(instance.patch).files, instance.tests)
    of_tests = facts_of(instance.test_patch).files
    put_back(folder, base, {*decisive, *of_tests})
    return tuple(one for one in changed if one in of_tests or one in decisive)


def _apply_tests(instance: Instance, folder: Path) -> None:
    if not instance.test_patch.strip():
        return
    try:
        apply_patch(folder, instance.test_patch, is_exact=True)
    except PatchError as error:
        raise DataError(
            f"{instance.instance_id}: its test_patch cannot be applied",
            why=str(error),
            fix="check base_commit",
        ) from error


def _beside_gold(instance: Instance, changed: Sequence[str], folder: Path, base: Path) -> Equivalence | None:
    gold = base.with_name("gold")
    shutil.copytree(base, gold, symlinks=True)
    try:
        apply_patch(gold, instance.patch)
    except PatchError:
        return None  # the controls tell of it
    return compare_trees(folder, gold, {*changed, *changed_files(base, gold)})


def _judged(verdict: Verdict, run: TestRun) -> Verdict:
    instance = verdict.instance
    found = grade(instance.fail_to_pass, instance.pass_to_pass, run)
    status: Status = "resolved" if found.is_resolved else "unresolved"
    if run.fault:
        status = "tampered" if run.is_tampered else "stopped"
    parts = [
        run.fault or "",
        f"{len(found.not_fixed)} of {len(instance.fail_to_pass)} not fixed" if found.not_fixed else "",
        f"{len(found.broken)} of {len(instance.pass_to_pass)} broken" if found.broken else "",
        "applied with tolerance" if verdict.applied == "with tolerance" else "",
        f"put back: {', '.join(verdict.restored[:3])}" if verdict.restored else "",
    ]
    return replace(
        verdict, status=status, grade=found, note=printable("; ".join(one for one in parts if one))
    )


def judge_prediction(
    instance: Instance, prediction: Prediction | None, repositories: Path, settings: TestSettings
) -> Verdict:
    """As `judge_patch`; without a patch nothing is run, as in SWE-bench."""
    patch = "" if prediction is None else prediction.model_patch
    if not patch.strip():
        note = "no prediction" if prediction is None else "the patch is empty"
        return Verdict(instance, patch, "empty", note)
    return judge_patch(instance, patch, repositories, settings)


def judge_predictions(
    instances: Sequence[Instance],
    predictions: Mapping[str, Prediction],
    repositories: Path,
    settings: TestSettings,
    num_workers: int = 1,
) -> Iterator[Verdict]:
    """One verdict for each instance, in their order."""
    yield from side_by_side(
        lambda one: judge_prediction(one, predictions.get(one.instance_id), repositories, settings),
        instances,
        num_workers,
    )


def side_by_side(
    judge: Callable[[Instance], Found], instances: Sequence[Instance], num_workers: int
) -> Iterator[Found]:
    """Several instances at a time; what waits is let go when one fails."""
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            yield from pool.map(judge, instances)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def record_of(verdict: Verdict) -> ItemRecord:
    """For comparing models item by item. Bugs of one repository are one group: they are no independent evidence."""
    instance = verdict.instance
    return ItemRecord(
        instance.instance_id,
        instance.digest(),
        instance.problem_statement,
        verdict.patch,
        (instance.patch,),
        float(verdict.is_resolved),
        note=f"{verdict.status}: {verdict.note}" if verdict.note else verdict.status,
        group=instance.repo,
    )
