"""Back to the version before: verified, held against what serves now, its weights read; then one entry of the
journal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError, IntegrityError, RefusedError
from raytrain.release.bundle.description import BundleDescription, read_description
from raytrain.release.fitting import Fit, check_weights, compatible, compatible_by_origin, refuse_unfit
from raytrain.release.fresh_load import load_in_fresh_process
from raytrain.release.gate.enforce import require_released
from raytrain.release.gate.record import PROMOTION_KIND, ROLLBACK_KIND
from raytrain.release.gate.recorded import kind_of_move
from raytrain.release.gate.succession import last_promotion
from raytrain.release.gate.turn import Follows, follows_now
from raytrain.release.keys import KeyRing, SigningKey
from raytrain.release.registry.journal import Entry
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.state import PRODUCTION
from raytrain.release.registry.versions import Version
from raytrain.release.rollback_target import Way, choose_target
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location


@dataclass(frozen=True)
class Hangar:
    """Where rollbacks find what they need."""

    registry: Registry
    ring: KeyRing
    cache: Location
    """Of base models."""
    tell: Callable[[str], None] = lambda _: None


HaveLoaded = Callable[[str, str], str]
"""Has a version (NAME@1.2.0, and its bundle's digest) loaded somewhere, and says in words where. Raises a PlatformError
where that does not load it, or loads something else."""


@dataclass(frozen=True)
class RollbackOptions:
    """How one goes back."""

    to: Version | None = None
    """None = the version before that the gate let in by itself."""
    expected: Version | None = None
    """What is thought to serve now: where another does, nobody goes back. None = whatever does."""
    rehearse: bool = False
    """Everything but the switch."""
    other_base: bool = False
    """Also to a version over another base model or tokenizer."""
    load: bool = False
    """Load it for real, in a fresh process, before the switch. That takes longer than a rollback should: most of it is
    the import of torch and transformers."""
    have_loaded: HaveLoaded | None = None
    """Who serves loads it for real before the switch, where it is going to answer: torch is there already."""
    why: str = ""


@dataclass
class Rollback:
    """How it went."""

    name: str
    before: Version
    after: Version
    moved: bool = False
    fits: list[Fit] = field(default_factory=list)
    weights: str = ""
    loaded: bool = False
    """It was loaded for real: in a fresh process, where it has answered, or by who serves."""
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each step, in their order."""
    record: Artifact | None = None

    def as_dict(self) -> dict[str, Any]:
        record = self.record
        return {
            "name": self.name,
            "before": str(self.before),
            "after": str(self.after),
            "moved": self.moved,
            "fits": [{**asdict(one), "same": one.same} for one in self.fits],
            "weights": self.weights,
            "loaded": self.loaded,
            "notes": self.notes,
            "seconds": {step: round(taken, 3) for step, taken in self.seconds.items()},
            "record": None if record is None else {"place": str(record.location), "digest": record.digest},
        }


def roll_back(hangar: Hangar, name: str, key: SigningKey, options: RollbackOptions) -> Rollback:
    """Let production name an earlier version that still verifies and fits, and whose weights can be read and are
    finite; the model is built of them, and asked, where the options say so. A rehearsal signs nothing, but that there
    is a key is part of it.

    Raises what `choose_target` raises; RefusedError or IntegrityError where that version does not verify, was never let
    in by the gate, was withdrawn, does not fit or does not load, and where somebody else moved production meanwhile.
    """
    registry = hangar.registry
    entries = registry.entries(name)
    way = _way_of(registry, name, entries, options.to)
    now, to = way.now, way.to
    if options.expected not in (None, now):
        raise RefusedError(
            f"{name}@{options.expected} does not serve any more",
            why=f"{now} does",
            fix="look again, and go back from that one if it is worse",
        )
    if to == now:
        _refuse_standing(hangar, name, now)
    done = Rollback(name, now, to)
    done.notes += [f"{one} was passed over: an override of the gate let it in" for one in way.passed_over]
    with _timed(hangar, done, "verify"):
        admitted = require_released(registry, f"{name}@{to}", hangar.ring, alias=PRODUCTION)
        folder = admitted.signed.artifact.path
        description = read_description(folder)
        if admitted.overridden:
            done.notes.append(f"{to} was let in by an override of the gate")
    with _timed(hangar, done, "compatible"):
        _compare(hangar, done, description, options)
    with _timed(hangar, done, "weights"):
        done.weights = check_weights(folder, description, hangar.cache)
    if options.have_loaded is not None:
        with _timed(hangar, done, "load where it is served"):
            done.notes.append(options.have_loaded(f"{name}@{to}", admitted.about.bundle))
            done.loaded = True
    if options.load:
        with _timed(hangar, done, "load"):
            done.notes.append(load_in_fresh_process(folder, description, hangar.cache))
            done.loaded = True
    if options.rehearse:
        return done
    why = options.why or f"rolled back from {now}"
    with _timed(hangar, done, "record"):
        follows = follows_now(entries, PRODUCTION)
        done.record = _write_record(hangar, done, (admitted.about.bundle, follows), key, why)
    with _timed(hangar, done, "switch"):
        registry.move(
            name, PRODUCTION, to, expected=now, decision=done.record.digest, why=why, follows=follows.entry
        )
    done.moved = True
    return done


def _way_of(registry: Registry, name: str, entries: list[Entry], to: Version | None) -> Way:
    def is_promotion(move: Entry) -> bool:
        return kind_of_move(registry, name, move) == PROMOTION_KIND

    def is_overridden(version: Version) -> bool:
        let_in = last_promotion(registry, name, PRODUCTION, entries, version=str(version))
        return let_in is not None and let_in.override is not None

    return choose_target(entries, name, to, is_promotion, is_overridden)


def _refuse_standing(hangar: Hangar, name: str, now: Version) -> None:
    """What serves now is gone back to only where the record by which it came does not count any more: whoever signs
    now says that it stays."""
    try:
        require_released(hangar.registry, f"{name}@{PRODUCTION}", hangar.ring)
    except (RefusedError, IntegrityError):
        return
    raise ConfigError(
        f"{name} cannot go back to {now}",
        why="it serves that version, by a record that counts",
        fix=f"name another that was in production: raytrain registry log {name}",
    )


def _compare(hangar: Hangar, done: Rollback, wanted: BundleDescription, options: RollbackOptions) -> None:
    """With what serves now; that it is damaged, or its signature counts no more, is no reason to stay with it.

    Raises StorageError where it cannot be read for the moment: then nobody knows what it is.
    """
    registry = hangar.registry
    try:
        serving = registry.verified(f"{done.name}@{done.before}", hangar.ring).artifact
        done.fits = compatible(read_description(serving.path), wanted)
    except (IntegrityError, RefusedError) as error:
        versions = registry.state(done.name).versions
        done.fits = compatible_by_origin(versions[done.before].made_from, versions[done.after].made_from)
        how = "not compared with it"
        if done.fits:
            things = " and ".join(one.thing for one in done.fits)
            how = f"compared by what the journal says they were made from: {things}"
        done.notes.append(f"{done.before}, which serves now, cannot be read ({error.what}): {how}")
    if not options.other_base:
        refuse_unfit(done.fits, str(done.after))


def _write_record(
    hangar: Hangar, done: Rollback, about: tuple[str, Follows], key: SigningKey, why: str
) -> Artifact:
    """about: the bundle, and the entry after which it was decided."""
    bundle, follows = about
    content = {
        "name": done.name,
        "before": str(done.before),
        "after": str(done.after),
        "bundle": bundle,
        "follows": asdict(follows),
        "fits": [asdict(one) for one in done.fits],
        "weights": done.weights,
        "loaded": done.loaded,
        "notes": done.notes,
        "why": why,
        "who": key.public.name,
    }

    def write(place: Path) -> None:
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True)
        (place / "record.json").write_text(text + "\n", encoding="utf-8")

    shelf = shelf_of(hangar.registry, done.name, "records")
    return shelf.put(ROLLBACK_KIND, write, key, hangar.ring, parents={"bundle": bundle})


@contextmanager
def _timed(hangar: Hangar, done: Rollback, step: str) -> Iterator[None]:
    hangar.tell(step)
    began = time.perf_counter()
    yield
    done.seconds[step] = time.perf_counter() - began
