"""The first sentences of a decision, the same on the terminal, in Markdown and on the page."""

from __future__ import annotations

from dataclasses import dataclass

from raytrain.evaluation.decision.contract import ContractSection
from raytrain.evaluation.decision.decide import Comparison, Decision
from raytrain.evaluation.decision.gates import Gate
from raytrain.evaluation.decision.quantity import counted, needs, plain_points, points
from raytrain.evaluation.decision.visible import visible
from raytrain.evaluation.statistics.power import MOST_ITEMS, about


@dataclass(frozen=True)
class ItemsNeeded:
    """So many items would tell, of one suite where several were asked."""

    number: int
    suite: str | None = None

    def sentence(self) -> str:
        """The end of `cannot tell`."""
        where = f" of {self.suite}" if self.suite and self.number <= MOST_ITEMS else ""
        return needs(self.number) + where

    def what_to_do(self) -> str:
        """The fix of a refusal."""
        if self.number > MOST_ITEMS:
            return "seek a larger gain, or allow a wider margin: no number of items within reach would tell"
        return f"about {about(self.number):,} items{f' of {self.suite}' if self.suite else ''} would tell"


def items_needed(decision: Decision) -> ItemsNeeded | None:
    """The largest of the numbers that stand in the way: fewer would leave another gate open. None where none is known,
    or none would tell."""
    has_several = len(decision.suites) > 1
    wanted = [
        ItemsNeeded(gate.needs_items, visible(gate.suite) if gate.suite and has_several else None)
        for gate in decision.gates
        if gate.needs_items is not None
    ]
    if decision.verdict.needs_items is not None:
        wanted.insert(0, ItemsNeeded(decision.verdict.needs_items))
    return max(wanted, key=lambda one: one.number, default=None)


def held_by(decision: Decision) -> Gate | None:
    """The gate that stands most in the way: while nobody can tell, what takes most items, else the first that failed.
    None where all passed."""
    unsure = max(
        (gate for gate in decision.gates if gate.status == "cannot tell"),
        key=lambda gate: gate.needs_items or 0,
        default=None,
    )
    if decision.verdict.word == "cannot tell" and unsure is not None and unsure.needs_items is not None:
        return unsure
    return next((gate for gate in decision.gates if gate.status == "failed"), unsure)


def headline(decision: Decision) -> str:
    """The verdict, large."""
    verdict = decision.verdict
    if decision.nothing_can_differ:
        return "Nothing can differ: both are the same evaluation"
    if verdict.word == "equivalent":
        return f"Equivalent: surely less than {plain_points(verdict.margin)} apart"
    if verdict.word == "cannot tell":
        wanted = items_needed(decision)
        return f"Cannot tell: {wanted.sentence() if wanted else 'nothing is known of the items’ spread'}"
    return f"{verdict.word.capitalize()} by {abs(100 * verdict.gain):.1f} points"


def evidence(decision: Decision) -> str:
    """What the verdict rests on."""
    pooled = decision.pooled
    num_items = sum(len(one.comparison.pairs) for one in decision.suites)
    interval = f"{points(pooled.interval.low)} to {points(pooled.interval.high)}"
    return (
        f"{points(pooled.gain)} points over {counted(num_items, 'item')} of {counted(len(decision.suites), 'suite')}, "
        f"{100 * pooled.interval.level:g} % interval {interval}"
    )


def outcome(decision: Decision, contract: ContractSection) -> str:
    """Promoted or not, and by which gates."""
    num_gates, open_gates = len(decision.gates), [one for one in decision.gates if not one.passed]
    if open_gates:
        named = ", ".join(f"{one.name} ({one.status})" for one in open_gates[:4])
        more = f" and {len(open_gates) - 4} more" if len(open_gates) > 4 else ""
        return f"{len(open_gates)} of {counted(num_gates, 'gate')} did not pass: {named}{more}."
    told = f"All {num_gates} gates of the contract {contract.contract} passed."
    if contract.approvals:
        told += f" Waits for approval by {', '.join(contract.approvals)}."
    return told


def action(decision: Decision) -> str:
    """What to do, in a word or two."""
    if decision.promoted:
        return "Promote"
    return "Do not promote" if any(one.status == "failed" for one in decision.gates) else "Not yet"


def title(comparison: Comparison) -> str:
    """Of the page: what is compared."""
    names = [one.candidate.name for one in comparison.decisions]
    who = names[0] if len(names) == 1 else f"{len(names)} candidates"
    return f"{who} against {comparison.baseline.name}"
