"""Every format of a bundle against the trained model: what it says of itself, its weights, and what it answers."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raytrain.errors import IntegrityError
from raytrain.release.bundle.description import BundleDescription, describe, read_description
from raytrain.release.bundle.formats.material import Material
from raytrain.release.bundle.formats.torchserve import archive_faults, unpacked
from raytrain.release.bundle.parity.compare import Differences, differences, first_other_token, lead
from raytrain.release.bundle.parity.facts import description_faults, folder_faults, weight_faults
from raytrain.release.bundle.parity.fresh import FreshAnswer, FreshProcessFailed, fresh_answers
from raytrain.release.bundle.parity.prompts import Prompt
from raytrain.release.bundle.parity.reference import Answer, answers_of
from raytrain.release.bundle.parity.section import ExportCheckSection, LimitsSection
from raytrain.release.bundle.subject import Subject

REPORT_FILE = "reports/export_check.json"
_MOST_FAULTS = 10

Tell = Callable[[str], None]


@dataclass
class FormatResult:
    """How one format compares. Numbers are the worst of all prompts."""

    max_difference: float = 0.0
    mean_difference: float = 0.0
    max_kl: float = 0.0
    num_positions: int = 0
    num_tokens: int = 0
    """That the trained model wrote by itself."""
    num_matched: int = 0
    """Of them, those that the format wrote as well."""
    num_near_ties: int = 0
    """Answers that part where two tokens are about as likely."""
    faults: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.faults

    def as_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}


@dataclass(frozen=True)
class ExportCheck:
    """The result, for a report, a gate and a person."""

    subject: str
    dtype: str
    limits: LimitsSection
    prompts: list[Prompt]
    notes: list[str]
    bundle: list[str]
    """Faults of the bundle as a whole."""
    formats: dict[str, FormatResult]

    @property
    def passed(self) -> bool:
        return not self.bundle and bool(self.formats) and all(one.passed for one in self.formats.values())

    def as_dict(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "passed": self.passed,
            "dtype": self.dtype,
            "limits": self.limits.model_dump(),
            "faults": self.bundle,
            "formats": {name: one.as_dict() for name, one in self.formats.items()},
            "prompts": [{"id": one.id, "digest": one.digest} for one in self.prompts],
            "notes": self.notes,
        }

    def write(self, bundle: Path) -> None:
        place = bundle / REPORT_FILE
        place.parent.mkdir(exist_ok=True)
        text = json.dumps(self.as_dict(), indent=1, sort_keys=True, ensure_ascii=False)
        place.write_text(text + "\n", encoding="utf-8")

    def raise_if_failed(self) -> None:
        """Raises IntegrityError that names the first format, prompt and position, and the numbers."""
        if self.passed:
            return
        named = [(name, fault) for name, one in self.formats.items() for fault in one.faults]
        name, fault = ("the bundle", self.bundle[0]) if self.bundle else named[0]
        more = len(self.bundle) + len(named) - 1
        raise IntegrityError(
            f"{name} is not the model that was trained",
            why=fault + (f"; and {more} more" if more else ""),
            fix=f"leave {name} out, or export again; the limits are export_check.{self.dtype}.*",
        )


@dataclass(frozen=True)
class Trained:
    """The trained model's answers, taken before anything is merged, and what it is made of."""

    material: Material
    answers: list[Answer]
    notes: list[str]
    section: ExportCheckSection


def ask_trained(
    material: Material,
    prompts: Sequence[Prompt],
    notes: list[str],
    section: ExportCheckSection,
    scratch: Path,
    tell: Tell,
) -> Trained:
    answers = answers_of(material.loaded, prompts, section, scratch, tell)
    return Trained(material, answers, notes, section)


def check_folder(bundle: Path, trained: Trained, tell: Tell) -> ExportCheck:
    """Check a bundle's folder, staged or committed, each format in a process of its own."""
    subject, section = trained.material.subject, trained.section
    stated = read_description(bundle)
    limits = section.limits(subject.model.section.dtype)
    results = {}
    for form in stated.formats:
        tell(f"checking {form} in a fresh process")
        results[form] = _check_format(bundle, form, trained, stated, limits)
    expected = describe(subject, stated.formats)
    prompts = [one.prompt for one in trained.answers]
    faults = description_faults(stated, expected)
    dtype = subject.model.section.dtype
    return ExportCheck(subject.digest, dtype, limits, prompts, trained.notes, faults, results)


def check_bundle(
    bundle: Path,
    subject: Subject,
    prompts: Sequence[Prompt],
    notes: list[str],
    section: ExportCheckSection,
    tell: Tell,
) -> ExportCheck:
    """The same from the start: the trained model is loaded for it."""
    tell("loading the trained model")
    material = Material(subject, subject.model.load())
    with tempfile.TemporaryDirectory(prefix="raytrain-export-") as scratch:
        trained = ask_trained(material, prompts, notes, section, Path(scratch), tell)
        return check_folder(bundle, trained, tell)


def _check_format(
    bundle: Path, form: str, trained: Trained, stated: BundleDescription, limits: LimitsSection
) -> FormatResult:
    subject, result = trained.material.subject, FormatResult()
    if not (bundle / form).is_dir():
        result.faults.append("bundle.json names it, and its folder is not there")
        return result
    if form == "torchserve":
        return _check_archive(bundle / form, trained, limits)
    result.faults += folder_faults(bundle / form, form, subject, stated)
    if form == "merged":
        result.faults += weight_faults(bundle / form, trained.material.merged)
    base = subject.base_folder if form == "adapter" else None
    num_answered = 0
    try:
        found = fresh_answers(bundle, form, base, trained.answers, trained.section)
        for answer, fresh in zip(trained.answers, found, strict=False):
            judge(answer, fresh, limits, result)
            num_answered += 1
        for _ in found:
            pass
    except FreshProcessFailed as error:
        result.faults.insert(0, f"it cannot be loaded and asked in a fresh process: {error}")
    else:
        if num_answered < len(trained.answers):
            result.faults.append(f"it answered {num_answered} of {len(trained.answers)} prompts")
    del result.faults[_MOST_FAULTS:]
    return result


def _check_archive(folder: Path, trained: Trained, limits: LimitsSection) -> FormatResult:
    """A TorchServe archive: what TorchServe asks of it, and the model in it as any merged one."""
    try:
        with unpacked(folder) as room:
            faults = list(archive_faults(room))
            if not faults:
                stated = read_description(room)
                faults = description_faults(stated, describe(trained.material.subject, ("merged",)))
            if not faults:
                return _check_format(room, "merged", trained, stated, limits)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        faults = [f"its archive cannot be unpacked: {error}"]
    return FormatResult(faults=faults)


def judge(answer: Answer, fresh: FreshAnswer, limits: LimitsSection, result: FormatResult) -> None:
    """Add to `result` what one prompt shows."""
    name = f"prompt `{answer.prompt.id}`"
    expected = answer.logits()
    if fresh.logits is None:
        place = first_other_token(answer.ids, fresh.ids)
        result.faults.append(
            f"{name}: read as other tokens, first at position {place}: {fresh.ids[:8]}, not {answer.ids[:8]}"
        )
        return
    if fresh.logits.shape != expected.shape:
        result.faults.append(f"{name}: logits of shape {fresh.logits.shape}, not {expected.shape}")
        return
    apart = differences(expected, fresh.logits)
    result.max_difference = max(result.max_difference, apart.largest.value)
    result.mean_difference = max(result.mean_difference, apart.mean.value)
    result.max_kl = max(result.max_kl, apart.kl.value)
    result.num_positions += len(expected)
    result.faults += _too_far(name, apart, limits)
    place = first_other_token(answer.tokens, fresh.tokens)
    result.num_tokens += len(answer.tokens)
    result.num_matched += len(answer.tokens) if place is None else place
    if place is None:
        return
    ahead = lead(expected[len(answer.ids) - 1 + place])
    if ahead <= limits.near_tie:
        result.num_near_ties += 1
        return
    result.faults.append(
        f"{name}: new token {place} is {fresh.tokens[place : place + 1]}, of the trained model "
        f"{answer.tokens[place : place + 1]}, which leads by {ahead:.3g}"
    )


def _too_far(name: str, apart: Differences, limits: LimitsSection) -> list[str]:
    looked_at = (
        ("the largest difference of a logit", apart.largest, limits.max_difference),
        ("the mean difference of the logits", apart.mean, limits.mean_difference),
        ("the KL divergence", apart.kl, limits.max_kl),
    )
    return [
        f"{name}, position {gap.position}: {what} is {gap.value:.3g}, allowed is {limit:.3g}"
        for what, gap, limit in looked_at
        if not gap.value <= limit
    ]
