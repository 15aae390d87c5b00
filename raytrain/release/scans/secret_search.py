"""Secrets in a file: raytrain's detector and detect-secrets, over text, JSON by its keys, and texts in a format."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError
from raytrain.evaluation.safety.file_scan import scan_file
from raytrain.evaluation.safety.findings import Detector, Finding, build_detectors, redacted, scan
from raytrain.release.scans.pickles import scanner_missing
from raytrain.release.scans.raw_bytes import texts_of
from raytrain.release.scans.report import ScanFinding

_DETECTORS = ("secrets", "detect_secrets")
_LINES = (".jsonl", ".ndjson")
_SHORTEST_KEY = 16
"""In characters, of what could be a key without a name before it."""
_LARGEST_BY_KEY = 1 << 20
_LONGEST_KEY = 2_500
"""In characters, as an encoded file of credentials has; what is longer is data, such as the state of a generator."""
_MANY_TOKENS = 1_000
_DIGEST = re.compile(
    r"(?:[0-9a-f]{12}|[0-9a-f]{16}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{56}|[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})"
    r"|sha(?:256|384|512)-[\w+/-]{43,86}={0,2}"
)
"""Hexadecimal as long as a digest or its beginning, or as pages have it. With a name before it, such a key is found."""


class TwiceError(ValueError):
    """A key that stands twice in one JSON object: readers differ in which they see."""


class SecretSearch:
    """Holds the detectors, which take a moment to build. Raises ConfigError where detect-secrets is not installed."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        try:
            import detect_secrets  # noqa: F401
        except ImportError as error:
            raise scanner_missing("detect-secrets", error) from error
        found = build_detectors(_DETECTORS)
        self._detectors: dict[str, Detector] = {name: _WithoutDigests(one) for name, one in found.items()}

    def of_name(self, name: str) -> list[ScanFinding]:
        """A file's name is handed on as well."""
        found = scan(name, self._detectors).findings
        return [
            _finding("(name of a file)", one.kind, one.text) for one in found if one.kind != "high_entropy"
        ]

    def of_text_file(self, path: Path, name: str) -> list[ScanFinding]:
        """Over a file of text, by its suffix."""
        suffix = Path(name).suffix.lower()
        if suffix in _LINES:
            return _ambiguous_lines(path, name) + self._scanned(path, name, suffix)
        if suffix in (".json", ".ipynb", ".map") or path.suffix == ".json":
            try:
                content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=without_doubles)
            except TwiceError as error:
                return [ScanFinding("secrets", name, "ambiguous_json", str(error))]
            except RecursionError:
                return [_too_deep(name)]
            except ValueError:
                return self._scanned(path, name, ".txt")
            return self.of_document(content, name)
        return self._scanned(path, name, ".txt")

    def of_document(self, content: Any, name: str) -> list[ScanFinding]:
        """Over a JSON value: by its keys, and as text, which knows what is quoted; of a large one each text once."""
        try:
            reduced = _reduced(content)
            told = json.dumps(reduced)
            if len(told) > _LARGEST_BY_KEY:
                return self.of_texts(_named_strings(reduced, ""), name)
        except RecursionError:
            return [_too_deep(name)]
        found = self._written(told, name, ".json")
        known = {(one.kind, one.what) for one in found}
        text = json.dumps(reduced, indent=1, ensure_ascii=False)
        again = self._written(text.encode("utf-8", "backslashreplace").decode(), name, ".txt")
        return found + [one for one in again if (one.kind, one.what) not in known]

    def of_texts(self, texts: Iterable[str], name: str) -> list[ScanFinding]:
        """Over what a format's reader found of text in it."""
        place = self._scratch / "texts.txt"
        seen: set[int] = set()
        with place.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            for text in texts:
                # Graphs say the same of many nodes; a text of several lines may be one key, and stays whole.
                if hash(text) not in seen:
                    seen.add(hash(text))
                    stream.write(text + "\n")
        return self._scanned(place, name, ".txt", has_lines=False)

    def _written(self, text: str, name: str, suffix: str) -> list[ScanFinding]:
        place = self._scratch / f"written{suffix}"
        place.write_text(text, encoding="utf-8")
        return self._scanned(place, name, suffix, has_lines=False)

    def _scanned(self, path: Path, name: str, suffix: str, *, has_lines: bool = True) -> list[ScanFinding]:
        place = path
        if path.suffix != suffix:
            place = self._scratch / f"linked{suffix}"
            place.unlink(missing_ok=True)
            place.symlink_to(path.absolute())
        try:
            result = scan_file(place, self._detectors)
        except ConfigError as error:
            return [ScanFinding("secrets", name, "unreadable", error.why)]
        found = [ScanFinding("secrets", name, "not_searched", one) for one in result.failures]
        for one in result.findings:
            line = one.line if has_lines else None
            found.append(_finding(name, one.finding.kind, one.finding.text, line, one.key))
        return found


class _WithoutDigests:
    """A detector that passes over digests and long data among what it takes for random."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def __call__(self, text: str) -> list[Finding]:
        return [one for one in self._detector(text) if not _is_digest(one, text)]


def _is_digest(found: Finding, text: str) -> bool:
    if found.kind != "high_entropy":
        return False
    return found.end - found.start > _LONGEST_KEY or bool(_DIGEST.fullmatch(text[found.start : found.end]))


def _finding(name: str, kind: str, shown: str, line: int | None = None, key: str = "") -> ScanFinding:
    return ScanFinding("secrets", name, kind, shown, line, "" if key == "$" else key)


def _too_deep(name: str, line: int | None = None) -> ScanFinding:
    return ScanFinding("secrets", name, "too_deep", "JSON that is nested deeper than it can be read", line)


def _ambiguous_lines(path: Path, name: str) -> list[ScanFinding]:
    """Of JSON lines: those that readers differ in."""
    found = []
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                json.loads(line, object_pairs_hook=without_doubles)
            except TwiceError as error:
                found.append(ScanFinding("secrets", name, "ambiguous_json", str(error), number))
            except RecursionError:
                found.append(_too_deep(name, number))
            except ValueError:
                continue  # It is read as text.
    return found


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook`. Raises TwiceError."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise TwiceError(f"the key {redacted(twice)} stands twice in one object")
    return found


def _reduced(content: Any) -> Any:
    """Without what is long and cannot be a secret: short tokens of a vocabulary. An envelope's payload is unpacked."""
    if isinstance(content, list):
        if len(content) > _MANY_TOKENS and all(isinstance(one, (str, list)) for one in content):
            return [_reduced(one) for one in content if not _is_short(one)]
        return [_reduced(one) for one in content]
    if not isinstance(content, dict):
        return content
    if len(content) > _MANY_TOKENS and all(isinstance(one, int) for one in content.values()):
        return [key for key in content if len(key) >= _SHORTEST_KEY]
    if {"payload", "payloadType", "signatures"} <= content.keys():
        return dict(_envelope(content))
    return {key: _reduced(value) for key, value in content.items()}


def _named_strings(content: Any, label: str) -> Iterator[str]:
    if isinstance(content, str):
        yield f'{label}: "{content}"' if label else content
    elif isinstance(content, dict):
        for key, inner in content.items():
            if not isinstance(inner, str):
                yield key
            yield from _named_strings(inner, key)
    elif isinstance(content, list):
        for inner in content:
            yield from _named_strings(inner, label)


def _is_short(one: Any) -> bool:
    texts = one if isinstance(one, list) else [one]
    if any(isinstance(text, (list, dict)) for text in texts):
        return False
    return sum(len(text) for text in texts if isinstance(text, str)) < _SHORTEST_KEY


def _envelope(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A signed envelope (DSSE) with its payload in clear, and without the signatures, which are random by nature."""
    for key, value in content.items():
        if key == "payload" and isinstance(value, str):
            yield key, _reduced(_payload(value))
        elif key == "signatures" and isinstance(value, list):
            yield (
                key,
                [{k: v for k, v in one.items() if k != "sig"} for one in value if isinstance(one, dict)],
            )
        else:
            yield key, _reduced(value)


def _payload(value: str) -> Any:
    """In clear, as far as it can be read. Raises RecursionError where it is nested too deeply."""
    try:
        content = base64.b64decode(value, validate=True)
    except binascii.Error:
        return value
    try:
        return json.loads(content, object_pairs_hook=without_doubles)
    except ValueError:
        return list(texts_of([content]))
