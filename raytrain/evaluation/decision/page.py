"""The decision as one page that needs nothing else: no request leaves it, and no text of a model can run in it."""

from __future__ import annotations

from collections.abc import Container, Iterator

from raytrain.evaluation.decision.decide import Comparison, Decision, SuiteResult
from raytrain.evaluation.decision.gates import Gate, Status
from raytrain.evaluation.decision.headline import action, evidence, headline, outcome, title
from raytrain.evaluation.decision.lengths import Lengths, score_by_length
from raytrain.evaluation.decision.marked_text import as_html
from raytrain.evaluation.decision.page_flips import flips_section
from raytrain.evaluation.decision.plots import GainRow, forest, length_and_score
from raytrain.evaluation.decision.quantity import needs, points, tell
from raytrain.evaluation.decision.standalone import StandalonePage
from raytrain.evaluation.decision.visible import visible
from raytrain.evaluation.records import storable
from raytrain.storage.manifest import short_digest

_CLASSES = {"passed": "passed", "failed": "failed", "cannot tell": "unknown"}
_WORDS = {"better": "better", "worse": "worse", "equivalent": "", "cannot tell": "unknown"}
_ACTIONS = {"Promote": "promote", "Do not promote": "stop", "Not yet": "wait"}
_STATUSES: tuple[Status, ...] = ("failed", "cannot tell", "passed")


def render_page(comparison: Comparison) -> str:
    """The whole page."""
    title, body = visible(_tab_title(comparison)), "\n".join(_body(comparison))
    return storable(StandalonePage(__package__, title, body).html())


def _tab_title(comparison: Comparison) -> str:
    first = comparison.chosen or comparison.decisions[0]
    return f"{headline(first)} · {title(comparison)}"


def _body(comparison: Comparison) -> Iterator[str]:
    contract, decisions = comparison.contract, comparison.decisions
    yield "<main>"
    if comparison.ranking:
        yield f'<p class="eyebrow">{as_html(title(comparison))} · contract {as_html(contract.contract)}</p>'
        chosen = comparison.chosen
        told = "No candidate passed every gate" if chosen is None else f"Promote {chosen.candidate.name}"
        yield f"<h1>{as_html(told)}</h1>"
        yield from _ranking(comparison)
    for one in decisions:
        yield '<section class="candidate">' if comparison.ranking else "<section>"
        yield from _decision(one, comparison)
        yield "</section>"
    yield from _conditions(comparison)
    yield "</main>"


def _ranking(comparison: Comparison) -> Iterator[str]:
    by_name = {one.candidate.name: one for one in comparison.decisions}
    rows = []
    for one in comparison.ranking:
        decision = by_name[one.name]
        like = ", ".join(one.like) or "–"
        rows.append(
            f'<tr><td class="number">{one.place}</td><td><b>{as_html(one.name)}</b></td>'
            f'<td data-label="gain">{points(decision.pooled.gain)} '
            f"({_interval(decision)})</td><td>{_word_badge(decision.verdict.word)}</td>"
            f"<td>{_action_badge(decision)}</td>"
            f'<td data-label="cannot be told apart from">{as_html(like)}</td></tr>'
        )
    head = _head("", "candidate", "gain in points", "verdict", "outcome", "cannot be told apart from")
    yield f'<div class="scroll"><table class="stacked">{head}<tbody>{"".join(rows)}</tbody></table></div>'
    contract = comparison.contract.overall
    yield (
        f'<p class="quiet">Each candidate is held against the baseline, and each two against each other; '
        f"correction for several: {as_html(contract.correction.replace('_', '-'))}.</p>"
    )


def _decision(decision: Decision, comparison: Comparison) -> Iterator[str]:
    contract = comparison.contract
    name, baseline = decision.candidate.name, comparison.baseline.name
    yield f'<p class="eyebrow">{as_html(name)} against {as_html(baseline)}</p>'
    yield f"<h1>{as_html(headline(decision))}</h1>"
    yield f'<p>{_action_badge(decision, large=True)}</p><p class="lead">{_told(outcome(decision, contract))}</p>'
    yield f'<p class="quiet">{_told(evidence(decision))}.</p>'
    yield from _tiles(decision)
    yield from _gates(decision)
    yield from _plots(decision, comparison)
    yield "<h2>Suites</h2>"
    yield from _suites(decision)
    if decision.notes:
        yield f'<ul class="notes">{"".join(f"<li>{as_html(one)}</li>" for one in decision.notes)}</ul>'
    yield from flips_section(decision, len(comparison.decisions))


def _tiles(decision: Decision) -> Iterator[str]:
    suites = [one.comparison for one in decision.suites]
    num_passed = sum(one.passed for one in decision.gates)
    interval = decision.pooled.interval
    tiles = {
        "gain over all suites, points": points(decision.pooled.gain),
        f"{100 * interval.level:g} % interval": f"{points(interval.low)} … {points(interval.high)}",
        "items compared": f"{sum(len(one.pairs) for one in suites):,}",
        "items won / lost": f"{sum(one.pairs.num_won for one in suites):,} / "
        f"{sum(one.pairs.num_lost for one in suites):,}",
        "gates passed": f"{num_passed} of {len(decision.gates)}",
    }
    told = "".join(
        f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in tiles.items()
    )
    yield f'<div class="tiles">{told}</div>'


def _interval(decision: Decision) -> str:
    interval = decision.pooled.interval
    return f"{points(interval.low)} to {points(interval.high)}"


def _gates(decision: Decision) -> Iterator[str]:
    """What did not pass stands open; what passed is folded where something else asks for attention."""
    ordered = sorted(decision.gates, key=lambda one: _STATUSES.index(one.status))
    passed = [one for one in ordered if one.passed]
    held = [one for one in ordered if not one.passed]
    if held:
        yield f"<h2>Gates that did not pass</h2>{_gates_table(held)}"
    if passed:
        word = "gate" if len(passed) == 1 else "gates"
        yield f"<details{'' if held else ' open'}><summary><b>{len(passed)} {word} passed</b></summary>"
        yield f'<div class="flip">{_gates_table(passed)}</div></details>'


def _gates_table(gates: list[Gate]) -> str:
    head = _head("", "gate", "found", "why", numbers=("found",))
    return f'<table class="stacked">{head}<tbody>{"".join(map(_gate, gates))}</tbody></table>'


def _gate(gate: Gate) -> str:
    return (
        f'<tr><td><span class="badge {_CLASSES[gate.status]}">{gate.status}</span></td>'
        f"<td><b>{as_html(gate.name)}</b><small>{_told(gate.rule)}</small></td>"
        f'<td class="number">{_told(gate.number)}</td><td>{_told(gate.why)}</td></tr>'
    )


def _suites(decision: Decision) -> Iterator[str]:
    rows = "".join(_suite(one) for one in decision.suites)
    numbers = ("gain", "baseline", "candidate", "won / lost", "items", "weight")
    head = _head("suite", "verdict", *numbers, numbers=numbers)
    yield f'<div class="scroll"><table class="stacked suites">{head}<tbody>{rows}</tbody></table></div>'


def _suite(result: SuiteResult) -> str:
    one, verdict = result.comparison, result.verdict
    needed = "" if verdict.needs_items is None else f"<small>{needs(verdict.needs_items)}</small>"
    failed = ""
    if any(one.num_failed):
        failed = f"<small>without a score: {one.num_failed[0]:,} / {one.num_failed[1]:,}</small>"
    interval = f"{points(verdict.interval.low)} to {points(verdict.interval.high)}"
    cells = {
        "baseline": f"{100 * one.pairs.baseline.mean():.1f} %",
        "candidate": f"{100 * one.pairs.candidate.mean():.1f} %",
        "won / lost": f"{one.pairs.num_won:,} / {one.pairs.num_lost:,}",
        "items": f"{len(one.pairs):,}{failed}",
        "weight": tell(result.weight, "share"),
    }
    told = "".join(f'<td class="number" data-label="{name}">{value}</td>' for name, value in cells.items())
    return (
        f"<tr><td><b>{as_html(one.name)}</b><small>{as_html(one.metric)}</small></td>"
        f"<td>{_word_badge(verdict.word)}{needed}</td>"
        f'<td class="number" data-label="gain">{points(verdict.gain)}<small>{interval}</small></td>{told}</tr>'
    )


def _plots(decision: Decision, comparison: Comparison) -> Iterator[str]:
    overall, interval = decision.verdict, decision.pooled.interval
    rows = [
        GainRow(one.comparison.name, one.verdict.gain, found.low, found.high, one.verdict.word)
        for one in decision.suites
        if (found := one.verdict.interval)
    ]
    rows.append(GainRow("all suites", overall.gain, interval.low, interval.high, overall.word, True))
    losses = {one.comparison.rules.max_loss for one in decision.suites}
    max_loss = losses.pop() if len(losses) == 1 else None
    yield '<h2>Gains, and how sure they are</h2><div class="plots"><figure>'
    yield forest(rows, comparison.contract.overall.min_gain, max_loss)
    told = "Dashed green: the gain asked for overall."
    if max_loss is not None:
        told += " Dashed red: the loss that must be ruled out on each suite."
    yield f"<figcaption>Points are hundredths of the score. {told}</figcaption></figure>"
    lengths = score_by_length(one.comparison for one in decision.suites)
    if lengths is not None:
        yield f"<figure>{length_and_score(lengths)}<figcaption>{_on_lengths(lengths)}</figcaption></figure>"
    yield "</div>"


def _on_lengths(lengths: Lengths) -> str:
    return (
        f"Mean score of answers of about the same length. The baseline writes {lengths.baseline_mean:.0f} tokens on "
        f"average, the candidate {lengths.candidate_mean:.0f}."
    )


def _conditions(comparison: Comparison) -> Iterator[str]:
    contract = comparison.contract
    facts = [
        ("contract", f"{contract.contract} {contract.version}", contract.digest),
        *(
            (role, side.name, side.evaluation.artifact.digest)
            for role, side in (
                ("baseline", comparison.baseline),
                *(("candidate", one.candidate) for one in comparison.decisions),
            )
        ),
        *(
            (f"suite {one.comparison.name}", f"version {report.version}", report.digest)
            for one in comparison.decisions[0].suites
            if (report := comparison.baseline.evaluation.report.suites[one.comparison.name])
        ),
    ]
    rows = "".join(
        f'<tr><td>{as_html(role)}</td><td>{as_html(name)}</td><td><code title="{as_html(digest)}">'
        f"{short_digest(as_html(digest))}</code></td></tr>"
        for role, name, digest in facts
    )
    settings = comparison.baseline.evaluation.report.settings
    alike = ", ".join(f"{key} {value}" for key, value in sorted(settings.items())) or "none were recorded"
    yield "<h2>Conditions</h2>"
    yield (
        f"<p>Settings: {as_html(alike)}. Suites, items, template and settings are the same on both sides unless a note "
        "says otherwise.</p>"
    )
    if comparison.not_judged:
        yield f"<p>Evaluated, and not judged by this contract: {as_html(', '.join(comparison.not_judged))}.</p>"
    if contract.approvals:
        told = "".join(
            f'<li>{as_html(one)} <span class="badge wait">pending</span></li>' for one in contract.approvals
        )
        yield f'<p>Approvals:</p><ul class="notes">{told}</ul>'
    head = _head("", "", "digest")
    yield f"<table>{head}<tbody>{rows}</tbody></table>"


def _head(*names: str, numbers: Container[str] = ()) -> str:
    """`numbers` are the columns whose figures stand right."""
    cells = "".join(
        f'<th scope="col"{" class=number" if name in numbers else ""}>{name}</th>' for name in names
    )
    return f"<thead><tr>{cells}</tr></thead>"


def _told(text: str) -> str:
    """A sentence of our own, whose per cent signs stay on the line of their numbers."""
    return as_html(text).replace(" %", "&nbsp;%")


def _word_badge(word: str) -> str:
    return f'<span class="badge {_WORDS[word]}">{word}</span>'


def _action_badge(decision: Decision, *, large: bool = False) -> str:
    told = action(decision)
    return f'<span class="badge {_ACTIONS[told]}{" action" if large else ""}">{told}</span>'
