"""What a check says: findings, one a line, and a verdict over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from raytrain.errors import IntegrityError

Status = Literal["passed", "failed", "skipped"]
Figure = float | int | str | bool | None

Tell = Callable[[str], None]
"""Takes a line of progress for a person; called in the process of the command."""


@dataclass(frozen=True)
class Finding:
    """One thing that was compared. `what` is for a person; `figures` are what the decision was made from."""

    name: str
    status: Status
    what: str
    figures: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """All findings of one check over one recipe.

    `notes` say what the check changed in the recipe, or could not do here. `files` are what it left for a person.
    """

    check: str
    recipe: str
    findings: tuple[Finding, ...]
    fix: str
    """What a person does where it fails."""
    notes: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Nothing failed, and something was compared: a check that skipped everything has shown nothing."""
        statuses = {finding.status for finding in self.findings}
        return "failed" not in statuses and "passed" in statuses

    @property
    def line(self) -> str:
        """The verdict in one line."""
        counts = {status: sum(one.status == status for one in self.findings) for status in _ORDER}
        told = (
            ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing compared"
        )
        return f"check {self.check} {'PASSED' if self.passed else 'FAILED'}: {told}"

    def error(self) -> IntegrityError | None:
        """The failure as every command gives one; None where the check passed."""
        if self.passed:
            return None
        failed = [finding for finding in self.findings if finding.status == "failed"]
        why = "; ".join(f"{one.name}: {one.what}" for one in failed) or "everything was skipped"
        return IntegrityError(f"check {self.check} failed for {self.recipe}", why=why, fix=self.fix)

    def as_dict(self) -> dict[str, Any]:
        error = self.error()
        return {
            "check": self.check,
            "recipe": self.recipe,
            "passed": self.passed,
            "verdict": self.line,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": list(self.notes),
            "files": dict(self.files),
            "seconds": round(self.seconds, 1),
            **({"error": error.as_dict()} if error is not None else {}),
        }


_ORDER: tuple[Status, ...] = ("passed", "failed", "skipped")
