"""modelscan over a file: what it finds, and whether it read the file at all."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.release.scans.pickles import scanner_missing


@dataclass(frozen=True)
class SecondOpinion:
    issues: tuple[str, ...]
    skipped: bool
    """It knows formats by their names, and says nothing against a file that it passes over."""


class Modelscan:
    """Raises ConfigError where modelscan is not installed, or some of its own scanners do not start."""

    def __init__(self) -> None:
        try:
            from modelscan.modelscan import ModelScan
        except ImportError as error:
            raise scanner_missing("modelscan", error) from error
        self._build = ModelScan

    def __call__(self, path: Path, name: str) -> SecondOpinion:
        """Over one file. What it could not read counts as skipped."""
        scanner: Any = self._build()
        try:
            scanner.scan(path)
        except Exception:  # noqa: BLE001 - it raises whatever the libraries behind it raise
            return SecondOpinion((), True)
        issues = []
        for one in scanner.issues.all_issues:
            details = one.details.output_json()
            inside = str(details["source"]).partition(":")[2]
            where = f"{name}!{inside}: " if inside else ""
            issues.append(f"{where}{details['description']}")
        return SecondOpinion(tuple(sorted(set(issues))), not scanner.scanned)


def scanner_versions() -> tuple[str, ...]:
    """Packages that scanned, each with its version."""
    names = ("raytrain", "detect-secrets", "picklescan", "modelscan")
    return tuple(f"{name} {importlib.metadata.version(name)}" for name in names)
