"""Evidence: gathered from where it lies, verified, and matched to a bundle by the digests that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raytrain.errors import ConfigError, IntegrityError
from raytrain.evaluation.decision.record import KIND as DECISION_KIND
from raytrain.evaluation.results import KINDS as EVALUATION_KINDS
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.release.gate.about import About
from raytrain.release.gate.approvals import APPROVAL_KIND
from raytrain.release.gate.evaluations import Asked, decide_anew, read_decision, trained_digest
from raytrain.release.gate.policy import Policy, TargetSection
from raytrain.release.gate.reports import READERS
from raytrain.release.gate.rules import Reading, Stray
from raytrain.release.keys import KeyRing
from raytrain.release.signing import signature_place, verify
from raytrain.runs.records import Records
from raytrain.storage.artifact import Artifact, artifacts_in, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, read_manifest


@dataclass(frozen=True)
class Found:
    """An artifact that somebody gave."""

    artifact: Artifact
    by_name: bool
    """Named itself; else one of a folder that was named, where what is about others may lie, too."""
    signed_by: str | None


@dataclass(frozen=True)
class Shelves:
    """Where evaluations lie that a decision names."""

    storage: Location
    """Of which baselines/ is looked through."""
    records: Records | None = None
    arrived: Callable[[str], Path] | None = None
    """Of a bundle, the folder of the evidence that came along from another registry."""

    def places(self, given: Sequence[str], bundle: str) -> Sequence[str]:
        """Those that somebody names; where nobody does, what came along with the bundle."""
        if given or self.arrived is None or not self.arrived(bundle).is_dir():
            return given
        return [str(self.arrived(bundle))]

    def place_of(self, digest: str) -> Location | None:
        """Of a baseline in the storage, or where the records say that it lies; None where it is not there. The same
        evaluation may have been frozen under several names: one that has a signature comes first."""
        found = [one for one in artifacts_in(self.storage / "baselines") if _digest_at(str(one)) == digest]
        record = self.records.find_artifact(digest) if self.records else None
        if record is not None and record.uri is not None and (Location(record.uri) / MANIFEST_NAME).exists():
            found.append(Location(record.uri))
        return min(found, key=lambda one: not _has_signature(one), default=None)

    def note(self, evidence: Iterable[Artifact]) -> None:
        """Let the records know where this lies: whoever exports the version takes it along from there."""
        if self.records is not None:
            for one in evidence:
                self.records.know_artifact(one.kind, one.digest, str(one.location), one.manifest.parents)


@dataclass(frozen=True)
class Gathered:
    """What the evidence comes to, and statements of approval, which are read elsewhere."""

    readings: tuple[Reading, ...]
    strays: tuple[Stray, ...]
    approvals: tuple[Artifact, ...]
    digests: tuple[str, ...]
    """Of all that was read."""


def open_evidence(places: Sequence[str], ring: KeyRing) -> list[Found]:
    """Every artifact at these places or, where a place is a folder of artifacts, in it; its files and, where it has
    one, its signature are verified.

    Of copies of one, which differ in what no digest is over, as their time, the signed one is taken whole, of several
    the first. Raises ConfigError where a place holds none, IntegrityError or RefusedError where one is damaged or its
    signature does not count.
    """
    found = []
    for text in dict.fromkeys(places):
        place = Location.parse(text)
        inside = artifacts_in(place) if place.exists() else []
        whole = (place / MANIFEST_NAME).exists()
        if not whole and not inside:
            raise ConfigError(
                f"{text} is no evidence",
                why="it is no artifact, nor a folder of artifacts" if place.exists() else "nothing is there",
                fix="give the place that the command printed which made the report",
            )
        found += [_opened(one, ring, by_name=whole) for one in ([place] if whole else inside)]
    taken: dict[str, Found] = {}
    for one in found:
        other = taken.get(one.artifact.digest, one)
        better = one if one.signed_by and not other.signed_by else other
        taken[one.artifact.digest] = replace(better, by_name=one.by_name or other.by_name)
    return list(taken.values())


def _has_signature(place: Location) -> bool:
    return place.is_local and signature_place(place.path).is_file()


def _opened(place: Location, ring: KeyRing, *, by_name: bool) -> Found:
    if _has_signature(place):
        signed = verify(place.path, ring)
        return Found(signed.artifact, by_name, signed.key.name)
    return Found(open_artifact(place), by_name, None)


def gather(
    found: Sequence[Found], about: About, policy: Policy, target: TargetSection, finder: Finder
) -> Gathered:
    """Hold each against the bundle. What was named itself and is about another is a stray; in a folder it is passed
    over. Raises ConfigError where an artifact that was named is no evidence."""
    finder.take(one for one in found if _is_evaluation(one))
    readings: list[Reading] = []
    strays: list[Stray] = []
    for one in found:
        told = _read(one, about, policy, target, finder)
        if isinstance(told, Reading):
            readings.append(_with_signers(told, one, finder))
        elif told is not None and one.by_name:
            strays.append(Stray(str(one.artifact.location), one.artifact.digest, told))
    if "evaluation" in target.reports and not any(one.thing == "evaluation" for one in readings):
        asked = Asked(policy.contract, target.baseline)
        readings += _decided_here(found, finder, about, asked)
    readings.sort(key=lambda one: (one.thing, one.digest))
    approvals = tuple(one.artifact for one in found if one.artifact.kind == APPROVAL_KIND)
    digests = tuple(sorted(one.digest for one in readings))
    return Gathered(tuple(readings), tuple(strays), approvals, digests)


def _with_signers(reading: Reading, one: Found, finder: Finder) -> Reading:
    rests_on = tuple((digest, finder.signed_by(digest)) for digest, _ in reading.rests_on)
    return replace(reading, signed_by=one.signed_by, rests_on=rests_on)


def _is_evaluation(one: Found) -> bool:
    return one.artifact.kind in EVALUATION_KINDS


def _read(
    one: Found, about: About, policy: Policy, target: TargetSection, finder: Finder
) -> Reading | str | None:
    """None where it is not read by itself."""
    artifact = one.artifact
    try:
        if artifact.kind == DECISION_KIND:
            return read_decision(artifact, about, Asked(policy.contract, target.baseline), finder.evaluation)
        if artifact.kind in READERS:
            return READERS[artifact.kind](artifact, about, target)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"{artifact.location} cannot be read as a {artifact.kind}",
            why=f"{type(error).__name__}: {error}",
            fix="make it again with this version of raytrain",
        ) from error
    if _is_evaluation(one) and artifact.kind != "baseline" and one.by_name:
        # It counts through a decision; about another model it is a comparison's other side at best.
        return None
    if one.by_name and artifact.kind not in (*EVALUATION_KINDS, APPROVAL_KIND):
        raise ConfigError(
            f"{artifact.location} is no evidence",
            why=f"it is a {artifact.kind}; a gate reads {', '.join(sorted([DECISION_KIND, *READERS, APPROVAL_KIND]))}",
            fix="leave it out",
        )
    return None


def _decided_here(found: Sequence[Found], finder: Finder, about: About, asked: Asked) -> Iterator[Reading]:
    """Where no decision is brought: the subject's evaluations against each baseline that was named."""
    opened = {one.artifact.digest: finder.evaluation(one.artifact.digest) for one in found}
    named = (opened[one.artifact.digest] for one in found if one.artifact.kind == "baseline" and one.by_name)
    baselines = [one for one in named if one is not None]
    for one in found:
        own = opened[one.artifact.digest]
        if own is None or own in baselines or trained_digest(own.report.model) != about.subject:
            continue
        for baseline in baselines:
            yield _with_signers(decide_anew(asked, baseline, [own], about), one, finder)


class Finder:
    """Evaluations by digest: those given, then baselines in the storage, then what runs have recorded."""

    def __init__(self, shelves: Shelves, ring: KeyRing) -> None:
        self._shelves = shelves
        self._ring = ring
        self._known: dict[str, tuple[Evaluation, str | None]] = {}

    def take(self, given: Iterable[Found]) -> None:
        """Those that somebody gave."""
        for one in given:
            self._known[one.artifact.digest] = open_evaluation(one.artifact.location), one.signed_by

    def evaluation(self, digest: str) -> Evaluation | None:
        """Raises RefusedError or IntegrityError where it has a signature that does not count."""
        if digest not in self._known:
            place = self._shelves.place_of(digest)
            found = None if place is None else open_evaluation(place)
            if place is None or found is None or found.artifact.digest != digest:
                return None
            self._known[digest] = found, _opened(place, self._ring, by_name=True).signed_by
        return self._known[digest][0]

    def signed_by(self, digest: str) -> str | None:
        """Name of the key that signed one which was found; None where it has no signature on this disk."""
        return self._known[digest][1] if digest in self._known else None


def _digest_at(place: str) -> str | None:
    try:
        return read_manifest(Location(place)).digest
    except IntegrityError:
        return None
