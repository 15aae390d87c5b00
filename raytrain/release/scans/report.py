"""What a scan found, and of which files it can speak."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raytrain.errors import RefusedError
from raytrain.storage.manifest import MANIFEST_NAME, Manifest

SCAN_REPORT = "reports/scan.json"
"""Where a bundle keeps it; the one file beside the manifest that a scan cannot have read."""

_TOLD = 3

SCANNERS = ("formats", "secrets", "picklescan", "modelscan")
"""formats: raytrain's own readers. secrets: raytrain's detector and detect-secrets."""


@dataclass(frozen=True)
class ScanFinding:
    """One reason to refuse the folder."""

    scanner: str
    file: str
    """In the folder; what lies in an archive is named after it and a `!`."""
    kind: str
    what: str
    """For a person; a secret only redacted."""
    line: int | None = None
    key: str = ""


@dataclass(frozen=True)
class ScannedFile:
    """A file as it was when it was read."""

    sha256: str
    size_bytes: int
    format: str
    read_by: tuple[str, ...]
    """The scanners that really read it."""
    skipped_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScanReport:
    """The same folder gives the same report."""

    subject: str
    """Digest of the trained artifact that the folder is of."""
    findings: tuple[ScanFinding, ...]
    files: Mapping[str, ScannedFile]
    documents: tuple[str, ...]
    """What was read beside the files, because it is written after them."""
    admitted: tuple[str, ...]
    """Pickles that were let through: in a graph archive, rebuilding tensors and naming nothing else."""
    scanned_with: tuple[str, ...]
    """Packages and their versions."""

    @property
    def passed(self) -> bool:
        return not self.findings and bool(self.files)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """By scanner: files that it read, that it skipped, and its findings."""
        found = Counter(one.scanner for one in self.findings)
        return {
            name: {
                "files": sum(name in one.read_by for one in self.files.values()),
                "skipped": sum(name in one.skipped_by for one in self.files.values()),
                "findings": found[name],
            }
            for name in SCANNERS
        }

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": 1,
            "subject": self.subject,
            "passed": self.passed,
            "findings": [asdict(one) for one in self.findings],
            "counts": self.counts,
            "files": {name: asdict(one) for name, one in sorted(self.files.items())},
            "documents": list(self.documents),
            "admitted": list(self.admitted),
            "scanned_with": list(self.scanned_with),
        }

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1, sort_keys=True) + "\n"

    def write(self, bundle: Path) -> None:
        place = bundle / SCAN_REPORT
        place.parent.mkdir(exist_ok=True)
        place.write_text(self.to_json(), encoding="utf-8")

    def raise_if_failed(self) -> None:
        """RefusedError that names the first files and why."""
        if self.passed:
            return
        told = [f"{one.file}{f':{one.line}' if one.line else ''}: {one.what}" for one in self.findings]
        more = f", and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
        raise RefusedError(
            "the scan refuses what would be sealed",
            why=("; ".join(told[:_TOLD]) or "there is no file in it") + more,
            fix="take out what was found, where it comes from; a key that was written down is a key that is known",
        )


def not_as_scanned(report: Mapping[str, Any], manifest: Manifest) -> list[str]:
    """Files of a sealed artifact that a report cannot speak for: not scanned, scanned with another content, or gone.

    For gates: a report that passed says nothing of another folder.
    """
    scanned = report.get("files")
    scanned = scanned if isinstance(scanned, dict) else {}
    sealed = {name: entry.sha256 for name, entry in manifest.files.items() if name != SCAN_REPORT}
    digests = {
        name: one.get("sha256")
        for name, one in scanned.items()
        if isinstance(one, dict) and name not in (SCAN_REPORT, MANIFEST_NAME)
    }
    return sorted(name for name in sealed.keys() | digests.keys() if sealed.get(name) != digests.get(name))
