"""What the demo says of its steps."""

from __future__ import annotations

import openai
from rich.console import Console

from raytrain.errors import RefusedError
from raytrain.evaluation.decision.decide import Comparison
from raytrain.evaluation.decision.headline import action, evidence, headline, outcome
from raytrain.evaluation.decision.turns import turns_of
from raytrain.release.gate.promote import Promotion

QUESTION = "Wake me at 6:45, please."


def show_answers(url: str) -> None:
    """Production and the base model, asked by OpenAI's client."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none needed", max_retries=0)
    print(QUESTION)
    for model in (one.id for one in client.models.list() if "@" not in one.id):
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": QUESTION}], max_tokens=48, temperature=0
        )
        by = (answer.model_extra or {})["raytrain"]
        text = answer.choices[0].message.content or ""
        print(f"  {by['model']} ({by['digest'].removeprefix('sha256:')[:12]}): {text[:120]!r}")


def show_comparison(comparison: Comparison) -> None:
    """Scores, the verdict, and a few answers to look at."""
    from rich.table import Table

    console = Console()
    both = {
        "base model": comparison.baseline.evaluation,
        "with the adapter": comparison.decisions[0].candidate.evaluation,
    }
    table = Table(title="JSON tool calls for requests that were never seen", title_justify="left")
    for column in ("", "right", "95 % interval"):
        table.add_column(column)
    records = []
    for name, evaluation in both.items():
        ((suite, report),) = evaluation.report.suites.items()
        records.append(evaluation.records[suite])
        interval = report.intervals["score"]
        count = f"{report.score * report.num_items:.0f} of {report.num_items}"
        table.add_row(name, count, f"{interval.low:.0%} to {interval.high:.0%}")
    console.print(table)
    (decision,) = comparison.decisions
    console.print(f"\n{headline(decision)}: {action(decision).lower()}", style="bold", highlight=False)
    console.print(f"{evidence(decision)}. {outcome(decision, comparison.contract)}\n", highlight=False)
    pairs = sorted(zip(*records, strict=True), key=lambda pair: -(pair[1].score or 0.0))
    for before, after in pairs[:1] + pairs[-1:]:
        turns = turns_of(before.prompt)
        request = before.prompt if turns is None else turns[-1].text
        lines = [request, f"  base:    {before.output[:90]!r}", f"  adapter: {after.output[:120]}"]
        if not after.score:
            lines.append(f"           expected {after.references[0]}")
        for number, line in enumerate(lines):
            style = None if number else "bold"
            console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
        console.print()


def show_promotion(done: Promotion, *, is_let_in: bool) -> None:
    """What each rule said, and what became of it. Raises RefusedError where that is not what the story goes on with."""
    facts, outcome_ = done.judged.facts, done.judged.outcome
    override = done.judged.override
    for rule in outcome_.held_by if override else outcome_.rules:
        sign = {"passed": "✓", "failed": "✗", "pending": "?"}[rule.status]
        print(f"  {sign} {rule.name}: {rule.value}{'' if rule.status == 'passed' else f'; {rule.why}'}")
    if override is not None:
        print(f"  ! OVERRIDE by {override.who} as {override.role}: {override.why}")
    version = f"{facts.name}@{facts.version}"
    now = f"{version} is in production" if done.judged.released else f"{version} stays out of production"
    print(f"{outcome_.verdict}{', set aside' if override else ''}: {now}")
    if done.judged.released is not is_let_in:
        raise RefusedError(
            f"the demo ends here: {now}, and it was to {'go there' if is_let_in else 'be held'}",
            why="; ".join(f"{one.name}: {one.value}" for one in outcome_.held_by) or "every rule passed",
            fix="leave its recipe as it is: other rows, fewer steps or another model tell another story",
        )
