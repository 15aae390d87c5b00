"""What was asked and what was found, as a list for a pull request."""

from __future__ import annotations

from collections.abc import Mapping

from raytrain.evaluation.decision.visible import visible
from raytrain.release.gate.rules import Facts, Outcome, Rule
from raytrain.storage.manifest import short_digest

_BOX = {"passed": "[x]", "failed": "[ ]", "pending": "[ ]"}
_SIGN = {"passed": "", "failed": " **failed**", "pending": " **pending**"}


def render_checklist(facts: Facts, outcome: Outcome, policy: str, loud: Mapping[str, str]) -> str:
    """Each rule with its number, its evidence, and what would change it. Boxes are ticked by the gate, not by hand.

    loud: what somebody took upon himself, by its word.
    """
    lines = [f"# {outcome.verdict}: {facts.name} {facts.version} to {facts.target}", ""]
    lines += [f"- bundle `{facts.bundle}`", f"- of `{facts.subject}`", f"- policy {_text(policy)}"]
    lines += [f"- **{word}** {_text(told)}" for word, told in loud.items()]
    lines.append("")
    groups = {
        "Bundle": ("signature", "one subject", "export check", "scan", "sbom", "provenance"),
        "Reports": None,
        "People": ("approval: ",),
    }
    left = list(outcome.rules)
    for title in ("Bundle", "People", "Reports"):
        prefixes = groups[title]
        chosen = [one for one in left if prefixes is None or one.name.startswith(prefixes)]
        left = [one for one in left if one not in chosen]
        if chosen:
            lines += [f"## {title}", "", *(line for one in chosen for line in _item(one)), ""]
    if facts.strays:
        lines += ["## Left out", "", *(f"- `{one.digest}`: {_text(one.why)}" for one in facts.strays), ""]
    if outcome.held_by:
        lines += [
            "## What would change it",
            "",
            *(f"- {one.name}: {_text(one.change)}" for one in outcome.held_by),
            "",
        ]
    return "\n".join(lines)


def _item(rule: Rule) -> list[str]:
    found = f"{rule.value} (asked: {rule.limit})"
    lines = [f"- {_BOX[rule.status]} {rule.name}{_SIGN[rule.status]}: {_text(found)}; {_text(rule.why)}"]
    if rule.evidence:
        lines.append(f"  <br>evidence {', '.join(f'`{short_digest(one)}`' for one in rule.evidence)}")
    return lines


def _text(text: str) -> str:
    """On one line, and none of it read as Markdown or as a mention."""
    plain = visible(text).replace("\n", " ")
    return "".join(f"\\{one}" if one in "\\`*_<>[]|" else one for one in plain).replace("@", "@\u200b")
