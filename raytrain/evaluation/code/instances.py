"""Instances and predictions as SWE-bench writes them (Jimenez et al. 2024, "SWE-bench"), from JSON or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.errors import DataError
from raytrain.evaluation.code.patches import facts_of
from raytrain.storage.manifest import digest_of


@dataclass(frozen=True)
class Instance:
    """One bug: a repository before its fix, and the tests that tell."""

    instance_id: str
    repo: str
    """As owner/name."""
    base_commit: str
    problem_statement: str
    patch: str
    """The fix that people made: gold."""
    test_patch: str
    """What it changed in the tests."""
    fail_to_pass: tuple[str, ...]
    """Node ids of tests that fail before the fix and pass after it."""
    pass_to_pass: tuple[str, ...]
    """Node ids of tests that pass before and after."""
    repo_path: str | None = None
    """Where the repository lies, if not below the folder of all repositories."""

    @property
    def tests(self) -> tuple[str, ...]:
        return (*self.fail_to_pass, *self.pass_to_pass)

    def digest(self) -> str:
        """Over what is asked and how it is judged, not over where the repository lies."""
        return digest_of(
            [
                *(
                    self.instance_id,
                    self.repo,
                    self.base_commit,
                    self.problem_statement,
                    self.patch,
                    self.test_patch,
                ),
                *(sorted(self.fail_to_pass), sorted(self.pass_to_pass)),
            ]
        )


@dataclass(frozen=True)
class Prediction:
    """A model's patch for one instance."""

    instance_id: str
    model_patch: str
    """Empty where it gave none."""
    model_name_or_path: str


def load_instances(path: Path) -> list[Instance]:
    """All of a file. Raises DataError with the place of each fault."""
    found = [_instance(row, place) for row, place in _rows(path)]
    if not found:
        raise DataError(
            f"{path} holds no instances", why="it is empty", fix="give a file in SWE-bench's format"
        )
    _refuse_twice(path, [one.instance_id for one in found])
    return found


def load_predictions(path: Path) -> list[Prediction]:
    """All of a file: a list, lines, or one object with a prediction for each instance id."""
    found = [
        Prediction(
            _text(row, "instance_id", place),
            _text(row, "model_patch", place) if row.get("model_patch") is not None else "",
            str(row.get("model_name_or_path", "")),
        )
        for row, place in _rows(path)
    ]
    if not found:
        raise DataError(
            f"{path} holds no predictions",
            why="it is empty",
            fix='give one for each instance: {"instance_id": …, "model_patch": …, "model_name_or_path": …}',
        )
    _refuse_twice(path, [one.instance_id for one in found])
    return found


def predictions_for(
    instances: Sequence[Instance], predictions: Sequence[Prediction]
) -> dict[str, Prediction]:
    """By instance id. Raises DataError where a prediction is for none of the instances; an instance may lack one."""
    known = {one.instance_id for one in instances}
    strange = [one.instance_id for one in predictions if one.instance_id not in known]
    if strange:
        raise DataError(
            f"{len(strange)} predictions are for no instance: {', '.join(strange[:3])}",
            why="their instance_id is in none of the instances",
            fix="give the instances that the predictions were made for",
        )
    return {one.instance_id: one for one in predictions}


def locate_repository(instance: Instance, repositories: Path) -> Path:
    """Its git repository on this disk: nothing is fetched. Raises DataError with where it was looked for."""
    name = instance.repo
    places = [
        *([Path(instance.repo_path)] if instance.repo_path else []),
        *(repositories / one for one in (name, name.replace("/", "__"), name.rpartition("/")[2])),
    ]
    for place in places:
        for one in (place, place.with_name(f"{place.name}.git")):
            if (one / ".git").exists() or (one / "HEAD").is_file():
                return one
    raise DataError(
        f"{instance.instance_id}: there is no repository {name}",
        why=f"there is none at {', '.join(str(one) for one in places)}",
        fix=f"clone it there, with its history: git clone URL {repositories / name}",
    )


def _rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}", why="nothing is there", fix="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read", why=str(error), fix="give a JSON file in UTF-8") from error
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if (
        isinstance(whole, dict)
        and whole
        and "instance_id" not in whole
        and all(isinstance(one, dict) for one in whole.values())
    ):
        whole = [{"instance_id": name, **one} for name, one in whole.items()]
    if isinstance(whole, dict):
        whole = [whole]
    if isinstance(whole, list):
        for number, row in enumerate(whole, start=1):
            yield _object(row, f"{path}, entry {number}"), f"{path}, entry {number}"
        return
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _fault(place, f"it is no JSON: {error}") from error
        yield _object(row, place), place


def _object(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise _fault(place, f"it is no object but {str(row)[:60]!r}")
    return row


def _instance(row: dict[str, Any], place: str) -> Instance:
    for key in ("patch", "test_patch"):
        try:
            facts_of(str(row.get(key) or ""))
        except ValueError as error:
            raise _fault(place, f"`{key}` cannot be read: {error}") from error
    fail_to_pass = _tests(row, "FAIL_TO_PASS", place)
    if not fail_to_pass:
        raise _fault(place, "FAIL_TO_PASS names no test, so nothing would tell that the bug is fixed")
    return Instance(
        _text(row, "instance_id", place),
        _text(row, "repo", place),
        _text(row, "base_commit", place),
        str(row.get("problem_statement") or ""),
        _text(row, "patch", place),
        str(row.get("test_patch") or ""),
        fail_to_pass,
        _tests(row, "PASS_TO_PASS", place),
        str(row["repo_path"]) if row.get("repo_path") else None,
    )


def _text(row: dict[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise _fault(
            place, f"`{key}` is missing" if value is None else f"`{key}` is no text but {str(value)[:60]!r}"
        )
    return value


def _tests(row: dict[str, Any], key: str, place: str) -> tuple[str, ...]:
    """A list, or a text that holds one as JSON: SWE-bench has both."""
    value = row.get(key, [])
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _fault(place, f"`{key}` is no list of tests: {error}") from error
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _fault(place, f"`{key}` is no list of tests but {str(value)[:60]!r}")
    strange = [one for one in value if "::" not in one]
    if strange:
        why = f"`{key}` names {strange[0][:120]!r}, which is no test as pytest names them: FILE::TEST"
        raise _fault(place, why)
    return tuple(dict.fromkeys(value))


def _fault(place: str, why: str) -> DataError:
    return DataError(
        f"{place} cannot be used",
        why=why,
        fix="instances: instance_id, repo, base_commit, patch, test_patch, FAIL_TO_PASS, PASS_TO_PASS; "
        "predictions: instance_id, model_patch, model_name_or_path",
    )


def _refuse_twice(path: Path, ids: list[str]) -> None:
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise DataError(
            f"{path}: {twice[0]} stands twice",
            why="each instance counts once",
            fix="leave one of the two out",
        )
