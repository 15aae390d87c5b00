"""Whether a trial goes on: of one replica, by what the registry says now.

A trial needs a candidate that may be served, is loaded, and is neither in production nor what production was moved
from: whoever is promoted needs no trial any more, and whoever was rolled back gets no requests through one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from raytrain.errors import NotRegisteredError, PlatformError, StorageError
from raytrain.release.registry.state import PREVIOUS, PRODUCTION
from raytrain.serving.adapters.opening import Servable
from raytrain.serving.adapters.residents import Residents
from raytrain.serving.backend import Arm, TrialState
from raytrain.serving.routes import Routes
from raytrain.serving.table import Table
from raytrain.serving.trials.section import TrialSection

_log = logging.getLogger(__name__)
Standing = Literal["running", "waiting", "ended"]


@dataclass(frozen=True)
class Found:
    """What is known of a trial's candidate."""

    candidate: Servable | None = None
    standing: Standing = "waiting"
    why: str = "nobody has looked yet"


def standing_of(
    trial: TrialSection, candidate: Servable | str | None, table: Table, left: str | None = None
) -> Found:
    """candidate: why it may not be served where it is a text, None where there is none; left: digest that production
    was seen to leave, which the table's `previous` says a moment later. Pure."""
    production = table.aliases.get(f"{trial.name}@{PRODUCTION}")
    before = table.aliases.get(f"{trial.name}@{PREVIOUS}")
    if isinstance(candidate, str):
        return Found(None, "ended", f"{trial.reference} is refused: {candidate}")
    if candidate is None:
        return Found(None, "waiting", f"the registry has no {trial.reference} that is served here")
    called = f"{candidate.name}@{candidate.version}"
    if production is None:
        return Found(None, "waiting", f"{trial.name} has nothing in production")
    if candidate.task != production.task:
        return Found(
            None, "ended", f"{called} was trained for {candidate.task}, production for {production.task}"
        )
    if candidate.digest == production.digest:
        return Found(None, "ended", f"{called} is in production")
    if candidate.digest in (left, None if before is None else before.digest):
        return Found(None, "ended", f"production was moved away from {called}")
    return Found(candidate, "running", f"{called} beside {production.name}@{production.version}")


class Trials:
    """For any thread; one looks after them. `follow` until `stop`."""

    def __init__(self, trials: Sequence[TrialSection], routes: Routes, residents: Residents) -> None:
        self._trials = {one.name: one for one in trials}
        self._routes, self._residents = routes, residents
        self._found = {one.name: Found() for one in trials}
        self._in_production: dict[str, str] = {}
        self._left: dict[str, str] = {}
        self._stopping = threading.Event()

    def choose(self, name: str, arm: Arm | None, production: Servable) -> tuple[Servable, Arm | None]:
        """Who answers a request that takes part in the trial of `name`, and as which arm; None where it does not go on
        and production answers as ever."""
        found = self._found.get(name)
        if arm is None or found is None or found.candidate is None:
            return production, None
        # Looked at anew: the registry may have moved since the candidate was found.
        trial = self._trials[name]
        now = self._standing(trial, self._current(trial, found.candidate))
        if now.candidate is None or now.candidate.digest not in self._residents.resident():
            return production, None
        return (now.candidate if arm == "candidate" else production), arm

    def refresh(self) -> None:
        """Finds each candidate and has it loaded, so that no request waits for it; never raises."""
        for name, trial in self._trials.items():
            try:
                found = self._standing(trial, self._admitted(trial))
                if found.candidate is not None:
                    self._residents.load(found.candidate.digest, found.candidate.read)
            except Exception as error:  # noqa: BLE001 - whatever a candidate's files hold, production answers on
                why = error.why if isinstance(error, PlatformError) else type(error).__name__
                found = Found(None, "ended", f"{trial.reference} cannot be loaded: {why}")
            self._tell(trial, self._found[name], found)
            self._found[name] = found

    def states(self) -> tuple[TrialState, ...]:
        return tuple(
            TrialState(one.name, one.candidate, one.mode, one.share, found.standing, found.why)
            for one in self._trials.values()
            for found in [self._found[one.name]]
        )

    def follow(self, poll_s: float) -> None:
        """In a thread of its own."""
        while not self._stopping.wait(poll_s):
            self.refresh()

    def stop(self) -> None:
        self._stopping.set()

    @property
    def _table(self) -> Table:
        return self._routes.table

    def _standing(self, trial: TrialSection, candidate: Servable | str | None) -> Found:
        table, name = self._table, trial.name
        production = table.production.get(name)
        if production is not None:
            before = self._in_production.get(name, production.digest)
            if before != production.digest:
                self._left[name] = before
            self._in_production[name] = production.digest
        return standing_of(trial, candidate, table, self._left.get(name))

    def _admitted(self, trial: TrialSection) -> Servable | str | None:
        table = self._table
        if trial.reference in table.refused:
            return table.refused[trial.reference]
        if not trial.candidate[0].isdigit():
            return table.aliases.get(trial.reference)
        try:
            return self._routes.version(trial.reference)
        except StorageError:
            return self._found[trial.name].candidate
        except NotRegisteredError:
            return None
        except PlatformError as error:
            return error.line

    def _current(self, trial: TrialSection, known: Servable) -> Servable | str | None:
        """Without reading a file."""
        table = self._table
        if trial.candidate[0].isdigit():
            return known
        return table.refused.get(trial.reference) or table.aliases.get(trial.reference)

    def _tell(self, trial: TrialSection, before: Found, now: Found) -> None:
        if replace(now, candidate=None) == replace(before, candidate=None):
            return
        is_alarm = now.candidate is None and "refused" in now.why
        _log.log(
            logging.ERROR if is_alarm else logging.WARNING,
            "%sthe %s trial of %s is %s: %s",
            "ALARM " if is_alarm else "",
            trial.mode,
            trial.name,
            now.standing,
            now.why,
        )
