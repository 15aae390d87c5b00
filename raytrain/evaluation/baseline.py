"""Frozen baselines: an evaluation that nothing may change any more, and whether anything did."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raytrain.errors import ConfigError, IntegrityError, PlatformError
from raytrain.evaluation.answering.local_model import identify
from raytrain.evaluation.answering.settings import EvaluateSettings
from raytrain.evaluation.items import Suite, how_asked, load_items, where_suites_lie
from raytrain.evaluation.report import EvaluatedModel, SuiteReport
from raytrain.evaluation.results import (
    Evaluation,
    open_evaluation,
    timings_place,
    write_evaluation,
    write_timings,
)
from raytrain.evaluation.suite import SuiteSection, load_suite
from raytrain.models.inference import find_for_inference
from raytrain.storage.artifact import Artifact, artifacts_in
from raytrain.storage.location import Location, translated_errors
from raytrain.storage.manifest import (
    MANIFEST_NAME,
    differences,
    file_sha256,
    read_manifest,
    short_digest,
    unlisted,
)
from raytrain.storage.provenance import collect_provenance

Standing = Literal["same", "changed", "not reached", "no digest"]


@dataclass(frozen=True)
class Finding:
    """One thing that a baseline rests on. `detail` says what it was and is, or why it cannot be looked at.

    not reached = it has a digest, and nobody can say whether it is still so; no digest = it never had one.
    """

    thing: str
    standing: Standing
    detail: str = ""


def freeze(evaluation: Evaluation, place: Location, suites: Sequence[Suite] = ()) -> Artifact:
    """Publish an evaluation as a baseline at `place`; frozen twice, it is the same artifact.

    suites: its own, where they lie now; else where they lay when it was made.
    Raises IntegrityError where another baseline stands there: one is never replaced.
    """
    provenance = evaluation.artifact.manifest.provenance
    kept = {key: provenance.get(key) for key in ("config", "suite_files", "answering")}
    kept |= where_suites_lie(suites) if suites else {}
    frozen = write_evaluation(
        place,
        evaluation.report,
        evaluation.records,
        kind="baseline",
        parents={"evaluation": evaluation.artifact.digest},
        provenance=collect_provenance(**kept),
        replace_other=False,
    )
    if evaluation.timings is not None and not _has_timings_of(frozen):
        write_timings(frozen, evaluation.timings)
    return frozen


def _has_timings_of(frozen: Artifact) -> bool:
    """Whether its own are there; those that an earlier baseline of this name left are not."""
    try:
        return read_manifest(timings_place(frozen.location)).parents.get("evaluation") == frozen.digest
    except PlatformError:
        return False


def verify(place: Location, suites: Sequence[Suite] = ()) -> list[Finding]:
    """Hash all that a baseline consists of and rests on: its files, the model, every item of every suite.

    suites: as they stand now; the others are read anew, file and rows, from where they lay.
    Raises IntegrityError where nothing at `place` can be read as a baseline.
    """
    manifest = read_manifest(place)
    if manifest.kind != "baseline":
        raise IntegrityError(
            f"{place} is no baseline",
            why=f"it is of kind {manifest.kind}",
            fix="freeze one: raytrain baseline freeze MODEL --suite SUITE.yaml",
        )
    damaged = [*_damage_of(place, "file"), *_damage_of(timings_place(place), "timings")]
    if damaged:
        return damaged
    frozen = open_evaluation(place)
    found = [Finding("files", "same", f"{len(manifest.files)} files, {manifest.size_bytes:,} bytes")]
    if frozen.timings is None:
        found.append(Finding("timings", "no digest", f"nothing lies at {timings_place(place)}"))
    found += _model_findings(frozen)
    now = {suite.section.suite: suite for suite in suites}
    _refuse_unknown(now, frozen)
    for name, report in frozen.report.suites.items():
        found += _suite_findings(report, frozen, now.get(name))
    return found


def _refuse_unknown(suites: Mapping[str, Suite], frozen: Evaluation) -> None:
    for name in suites:
        if name not in frozen.report.suites:
            raise ConfigError(
                f"the baseline has no suite {name}",
                why=f"it has {', '.join(frozen.report.suites)}",
                fix="name a file whose `suite:` is one of these",
            )


def _damage_of(place: Location, what: str) -> list[Finding]:
    if not (place / MANIFEST_NAME).exists():
        return []
    manifest = read_manifest(place)
    with tempfile.TemporaryDirectory(prefix="raytrain-verify-") as folder:
        if not place.is_local:  # as it lies there now, not as it was fetched once
            place.copy_files_to(Location(folder))
        here = place.path if place.is_local else Path(folder)
        changed = [Finding(f"{what} {name}", "changed", how) for name, how in differences(here, manifest)]
        added = [Finding(f"{what} {name}", "changed", "was added") for name in unlisted(here, manifest)]
    return changed + added


def _reached(thing: str, is_there: bool, look: Callable[[], list[Finding]]) -> list[Finding]:
    """What cannot be read although it is there, or is not what it says that it is, has changed."""
    try:
        return look()
    except PlatformError as error:
        has_changed = is_there or isinstance(error, IntegrityError)
        return [Finding(thing, "changed" if has_changed else "not reached", error.line)]


def _model_findings(frozen: Evaluation) -> list[Finding]:
    was = frozen.report.model
    how = frozen.artifact.manifest.provenance.get("answering") or {}
    if was.outputs_digest is not None:
        return _outputs_findings(was, how.get("reference"))
    if was.base_digest is None:
        return [Finding(f"model {was.reference}", "no digest", "it is an endpoint")]

    def look() -> list[Finding]:
        found = find_for_inference(
            how.get("reference") or was.reference,
            cache=EvaluateSettings().storage.location,
            dtype=frozen.report.settings["dtype"],
            base_model_only=bool(how.get("base_model_only")),
            chat_template=how.get("chat_template"),
        )
        return list(_compared(was, identify(found)))

    return _reached(f"model {was.reference}", False, look)


def _outputs_findings(was: EvaluatedModel, file: str | None) -> list[Finding]:
    """file: with the outputs; None where the baseline does not say which."""
    thing, before = f"outputs {was.reference}", was.outputs_digest
    if file is None:
        return [Finding(thing, "not reached", "where they lay was not kept")]
    place = Location.parse(file)
    if not place.exists():
        return [Finding(thing, "not reached", f"nothing lies at {place}")]

    def look() -> list[Finding]:
        with translated_errors(place, "read"):
            after = f"sha256:{file_sha256(place.path)}"
        if after == before:
            return [Finding(thing, "same", short_digest(after))]
        return [Finding(thing, "changed", f"was {short_digest(str(before))}, is {short_digest(after)}")]

    return _reached(thing, True, look)


def _compared(was: EvaluatedModel, now: EvaluatedModel) -> Iterator[Finding]:
    for name in ("base_digest", "adapter_digest", "tokenizer_digest", "template_digest"):
        before, after = getattr(was, name), getattr(now, name)
        thing = {"base_digest": "base model", "template_digest": "chat template"}.get(
            name, name.removesuffix("_digest")
        )
        if before == after:
            if before is not None:
                yield Finding(thing, "same", short_digest(before))
        else:
            told = ["none" if one is None else short_digest(one) for one in (before, after)]
            yield Finding(thing, "changed", f"was {told[0]}, is {told[1]}")


def _suite_findings(report: SuiteReport, frozen: Evaluation, now: Suite | None) -> list[Finding]:
    """Of a suite whose file was moved or taken away, too, the rows are looked at, as its file said where they lie."""
    if now is not None:
        return list(_suite_changes(report, frozen, now))
    thing = f"suite {report.name}"
    provenance = frozen.artifact.manifest.provenance
    config = (provenance.get("config") or {}).get(report.name)
    file = (provenance.get("suite_files") or {}).get(report.name)
    if file is not None and Path(file).exists():
        return _reached(thing, True, lambda: _of_suite_file(report, frozen, load_suite(Path(file))))
    found = [] if file is None else [Finding(f"{thing}, file", "not reached", f"nothing lies at {file}")]
    if config is None:
        return [*found, Finding(thing, "not reached", "where its rows lay was not kept")]
    return [*found, *_rows_findings(report, frozen, SuiteSection.model_validate(config))]


def _of_suite_file(report: SuiteReport, frozen: Evaluation, section: SuiteSection) -> list[Finding]:
    if section.suite != report.name:
        detail = f"{section.file} is the suite {section.suite} now"
        return [Finding(f"suite {report.name}, file", "changed", detail)]
    return _rows_findings(report, frozen, section)


def _rows_findings(report: SuiteReport, frozen: Evaluation, section: SuiteSection) -> list[Finding]:
    few = section.prompt.few_shot
    paths = [one.source.path for one in (section.items, few) if one is not None]
    return _reached(
        f"suite {report.name}",
        all(path is not None and Path(path).exists() for path in paths),
        lambda: list(_suite_changes(report, frozen, load_items(section))),
    )


def _suite_changes(report: SuiteReport, frozen: Evaluation, suite: Suite) -> Iterator[Finding]:
    thing = f"suite {report.name}"
    if suite.digest == report.digest:
        yield Finding(thing, "same", f"{report.num_items} items, {short_digest(report.digest)}")
        return
    was, now = report.how_asked, how_asked(suite.section)
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            yield Finding(f"{thing}, {key}", "changed", f"was {was.get(key)!r}, is {now.get(key)!r}")
    before = {one.item_id: one.item_digest for one in frozen.records[report.name]}
    after = {item.id: item.digest() for item in suite.items}
    told = {
        "changed": [key for key in before if key in after and before[key] != after[key]],
        "gone": [key for key in before if key not in after],
        "new": [key for key in after if key not in before],
    }
    for how, keys in told.items():
        if keys:
            more = "" if len(keys) <= 5 else ", …"
            yield Finding(f"{thing}, items", "changed", f"{len(keys)} {how}: {', '.join(keys[:5])}{more}")
    if before == after and list(before) != list(after):
        yield Finding(f"{thing}, items", "changed", "they stand in another order")


def baseline_place(storage: Location, name: str) -> Location:
    """Where a baseline of this name stands. Raises ConfigError where it cannot name a folder."""
    if not _names_a_folder(name):
        raise ConfigError(
            f"{name!r} cannot name a baseline",
            why="it is also the name of its folder",
            fix="use letters, digits and -",
        )
    return storage / "baselines" / name


def find_baseline(storage: Location, name: str) -> Location | None:
    """The baseline of this name; None where there is none."""
    if not _names_a_folder(name):
        return None
    place = baseline_place(storage, name)
    return place if (place / MANIFEST_NAME).exists() else None


def baseline_names(storage: Location) -> list[str]:
    """Of all baselines there, in order."""
    found = artifacts_in(storage / "baselines")
    of_timings = {timings_place(one) for one in found}
    return [one.name for one in found if one not in of_timings]


def _names_a_folder(name: str) -> bool:
    return bool(name) and Path(name).name == name and not name.startswith(".")
