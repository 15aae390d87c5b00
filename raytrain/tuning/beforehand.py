"""Before the first trial: what a person is told, the forecast among it, from a short run that hears a wish to stop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from raytrain.errors import PlatformError
from raytrain.runs.records import Records
from raytrain.runs.signals import SignalWatch
from raytrain.tuning.chooser import num_trials
from raytrain.tuning.forecast import Forecast, Probe, forecast, probe, told_forecast
from raytrain.tuning.outcome import TuneObserver
from raytrain.tuning.placement import Placement
from raytrain.tuning.population import num_generations
from raytrain.tuning.schedulers import told_of_scheduler
from raytrain.tuning.searched_workers import searched_workers
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.study import StudyMemory, TrialView
from raytrain.tuning.task import probe_run_id

_LOOK_EVERY_S = 1.0


def told_beforehand(recipe: TuneRecipe, placement: Placement, trials: Sequence[TrialView]) -> Iterator[str]:
    """What a person should know of the trials that will be made, a sentence each."""
    yield placement.told
    told = told_of_scheduler(recipe)
    if told is not None:
        yield told
    if recipe.scheduler == "pbt":
        size, count = recipe.search.population.size, num_generations(recipe)
        yield f"a population of {size}, {count} stretches each: {size * count} trials; num_trials is not used"
    if trials:
        left = sum(one.state == "running" for one in trials)
        yield f"goes on: {len(trials)} trials are known, {left} of them were left running and are taken up"


@dataclass(frozen=True)
class LookAhead:
    """The forecast of a search, made once and kept in its memory. Used by the driver's main thread."""

    recipe: TuneRecipe
    run_id: str
    records: Records
    memory: StudyMemory
    note: Callable[[str], None]
    observer: TuneObserver

    def look(self, at_once: int, watch: SignalWatch, *, verbose: bool) -> str | None:
        """What stopped it, where something did. Raises what training raises, and the observer."""
        known = self.memory.kept("probe")
        probed = self._probe(watch, verbose=verbose) if known is None else Probe(**known)
        if isinstance(probed, str):
            return probed
        found = self._forecast(probed, at_once)
        self.memory.keep("forecast", found.as_dict())
        self.note(told_forecast(found))
        self.observer.forecast(found)
        return None

    def _probe(self, watch: SignalWatch, *, verbose: bool) -> Probe | str:
        num_steps = self.recipe.search.probe_steps
        self.note(f"a run of {num_steps} steps, for the forecast")
        probe_id = probe_run_id(self.run_id)
        with stop_handed_on(self.records, self.run_id, probe_id):
            probed = probe(self.recipe.spec, probe_id, num_steps, verbose=verbose)
        watch.listen()
        if not isinstance(probed, str):
            self.memory.keep("probe", vars(probed))
        elif probed.startswith("SIG"):
            watch.signal_name = watch.signal_name or probed
        return probed

    def _forecast(self, probed: Probe, at_once: int) -> Forecast:
        recipe = self.recipe
        return forecast(
            probed, recipe.spec, recipe.search.budget, num_trials=num_trials(recipe), at_once=at_once,
            searched=searched_workers(recipe.space, recipe.document),
        )  # fmt: skip


@contextlib.contextmanager
def stop_handed_on(records: Records, from_run: str, to_run: str) -> Iterator[None]:
    """Whoever stops the one run stops the other too, while the block carries that one in this thread."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_EVERY_S):
            # The other may not have begun yet, and the database may come back.
            with contextlib.suppress(PlatformError):
                if records.stop_requested(from_run) and not records.stop_requested(to_run):
                    records.request_stop(to_run)

    thread = threading.Thread(target=look, name="stop-handed-on", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
