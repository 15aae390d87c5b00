"""Before the first trial: what a person is told, and a wish to stop that reaches the probe."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from raytrain.errors import PlatformError
from raytrain.runs.records import Records
from raytrain.tuning.placement import Placement
from raytrain.tuning.population import num_generations
from raytrain.tuning.schedulers import told_of_scheduler
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.study import TrialView

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
