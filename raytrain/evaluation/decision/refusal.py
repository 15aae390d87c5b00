"""Why nobody was promoted, as every command tells a refusal."""

from __future__ import annotations

from raytrain.errors import RefusedError
from raytrain.evaluation.decision.decide import Comparison
from raytrain.evaluation.decision.headline import held_by, items_needed, outcome


def refusal_of(found: Comparison) -> RefusedError | None:
    """Of the best candidate; None where one passed every gate."""
    best = found.decisions[0]
    gate = held_by(best)
    if found.chosen is not None or gate is None:
        return None
    wanted = None if gate.needs_items is None else items_needed(best)
    if best.nothing_can_differ:
        fix = "name the evaluation of another model"
    else:
        fix = "decision.html shows what was lost" if wanted is None else wanted.what_to_do()
    return RefusedError(
        f"{best.candidate.name} is not promoted: {outcome(best, found.contract)}",
        why=f"{gate.name}: {gate.why}",
        fix=fix,
    )
