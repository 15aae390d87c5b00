"""`raytrain code`: patches for bugs of real repositories, judged by their tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from raytrain.cli.code_tables import show_controls, show_grades, show_places
from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.cli.recorded_runs import wide

if TYPE_CHECKING:
    from raytrain.evaluation.code.controls import Control
    from raytrain.evaluation.code.suite import Verdict
    from raytrain.evaluation.code.testing import TestSettings

app = typer.Typer(
    help="Apply patches to repositories and run their tests in a sandbox, in SWE-bench's format.",
    no_args_is_help=True,
)
Found = TypeVar("Found")

InstancesArgument = Annotated[
    Path, typer.Argument(help="Instances in SWE-bench's format: JSON or JSON lines.")
]
RepositoriesOption = Annotated[
    Path, typer.Option("--repositories", help="Folder of git repositories: owner/name, owner__name or name.")
]
WorkersOption = Annotated[int, typer.Option(min=1, help="Instances that are run at a time.")]
PythonOption = Annotated[
    str | None, typer.Option("--python", help="Python that runs the tests, with pytest; else raytrain's own.")
]
TimeoutOption = Annotated[
    float, typer.Option(min=1.0, help="Seconds that the tests of an instance may take.")
]
PytestOption = Annotated[
    list[str] | None, typer.Option("--pytest", help="One more argument for pytest, such as --pytest=-pNAME.")
]
WeakerOption = Annotated[
    bool, typer.Option("--allow-weaker", help="Go on where this kernel gives no namespaces.")
]


@app.command("check")
def check(
    instances: InstancesArgument,
    repositories: RepositoriesOption,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each control is run.")] = 3,
    workers: WorkersOption = 1,
    python: PythonOption = None,
    timeout: TimeoutOption = 300.0,
    pytest: PytestOption = None,
    allow_weaker: WeakerOption = False,
    as_json: JsonOption = False,
) -> int:
    """Do people's fixes resolve every instance, no patch none, and each time the same? Exit code 5 where not."""
    from raytrain.errors import IntegrityError
    from raytrain.evaluation.code.instances import load_instances

    settings = _settings(python, timeout, pytest, allow_weaker)
    controls = _controls(load_instances(instances), repositories, settings, (repeats, workers), as_json)
    failed = [one for one in controls if not one.passed]
    result: dict[str, Any] = {
        "passed": not failed,
        "isolation": _isolation(),
        "gold_resolved": sum(one.num_gold == one.num_repeats for one in controls),
        "empty_resolved": sum(one.num_empty > 0 for one in controls),
        "instances": [_control_row(one) for one in controls],
    }
    if failed:
        result["error"] = _failed(failed, len(controls)).as_dict()
    emit(result, as_json, lambda console: show_controls(wide(console), result))
    return IntegrityError.exit_code if failed else 0


@app.command("grade")
def grade(
    instances: InstancesArgument,
    predictions: Annotated[
        Path, typer.Argument(help="instance_id, model_patch, model_name_or_path: JSON or JSON lines.")
    ],
    repositories: RepositoriesOption,
    controls: Annotated[
        bool,
        typer.Option(
            "--controls", help="First run the controls, once each, and leave out instances that fail them."
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option("--output", help="Folder or URI for an evaluation, which `raytrain compare` takes."),
    ] = None,
    workers: WorkersOption = 1,
    python: PythonOption = None,
    timeout: TimeoutOption = 300.0,
    pytest: PytestOption = None,
    allow_weaker: WeakerOption = False,
    as_json: JsonOption = False,
) -> None:
    """How many bugs do these patches fix? Each is applied to a fresh copy, and its tests are run in the sandbox."""
    from raytrain.evaluation.code.instances import load_instances, load_predictions, predictions_for
    from raytrain.evaluation.code.suite import judge_predictions
    from raytrain.storage.named_places import place_for_artifact

    settings = _settings(python, timeout, pytest, allow_weaker)
    destination = None if output is None else place_for_artifact(output)
    asked = load_instances(instances)
    given = predictions_for(asked, load_predictions(predictions))
    checked = _controls(asked, repositories, settings, (1, workers), as_json) if controls else []
    excluded = {one.instance.instance_id: one for one in checked if not one.passed}
    if asked and len(excluded) == len(asked):
        raise _failed(list(excluded.values()), len(asked))
    kept = [one for one in asked if one.instance_id not in excluded]
    judged = judge_predictions(kept, given, repositories, settings, workers)
    verdicts = list(_told(judged, len(kept), lambda one: (one.instance.instance_id, one.status), as_json))
    result = _grade_result(verdicts, checked, sorted({one.model_name_or_path for one in given.values()}))
    if destination is not None:
        from raytrain.evaluation.code.results import write_grades

        told = {"timeout_s": timeout, "isolation": result["isolation"]["level"], "pytest": list(pytest or ())}
        told["python"] = settings.python
        written = write_grades(destination, _suite_name(instances), verdicts, given, told)
        result |= {"artifact": str(written.location), "digest": written.digest}
    emit(result, as_json, lambda console: show_grades(wide(console), result))


@app.command("example")
def example(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")], as_json: JsonOption = False
) -> None:
    """Write a small suite to try things with: three repositories with a bug each, instances, and people's fixes."""
    from raytrain.errors import ConfigError
    from raytrain.evaluation.code.examples import write_examples

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is no empty folder",
            why="nothing is overwritten",
            fix="name a new folder, or empty this one",
        )
    found = write_examples(folder)
    result = {name: str(found.with_name(file)) for name, file in _EXAMPLE_FILES.items()}
    emit(result, as_json, lambda console: show_places(console, result))


_EXAMPLE_FILES = {"instances": "instances.jsonl", "predictions": "gold.jsonl", "repositories": "repositories"}


def _settings(
    python: str | None, timeout: float, pytest: list[str] | None, allow_weaker: bool
) -> TestSettings:
    from dataclasses import replace

    from raytrain.evaluation.code.testing import LIMITS, TestSettings

    limits = replace(LIMITS, timeout_s=timeout, cpu_s=int(timeout) + 1)
    settings = TestSettings(limits=limits, arguments=tuple(pytest or ()), allow_weaker=allow_weaker)
    return settings if python is None else replace(settings, python=python)


def _controls(
    instances: Sequence[Any],
    repositories: Path,
    settings: TestSettings,
    times: tuple[int, int],
    as_json: bool,
) -> list[Control]:
    from raytrain.evaluation.code.controls import check_controls

    repeats, workers = times
    found = check_controls(instances, repositories, settings, num_repeats=repeats, num_workers=workers)
    name = "controls passed", "controls FAILED"
    return list(
        _told(found, len(instances), lambda one: (one.instance.instance_id, name[not one.passed]), as_json)
    )


def _told(
    found: Iterable[Found], total: int, tell: Callable[[Found], tuple[str, str]], as_json: bool
) -> Iterator[Found]:
    """Each with a line on stderr as it comes."""
    console = stderr_console()
    for number, one in enumerate(found, start=1):
        if not as_json:
            text = f"  {number}/{total} {': '.join(tell(one))}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        yield one


def _isolation() -> dict[str, Any]:
    from dataclasses import asdict

    from raytrain.evaluation.sandbox.run import probe_isolation

    found = probe_isolation()
    return {**asdict(found), "sentence": found.sentence()}


def _failed(controls: Sequence[Control], total: int) -> Any:
    from raytrain.errors import IntegrityError

    first = controls[0]
    return IntegrityError(
        f"{len(controls)} of {total} instances fail their controls",
        why=f"{first.instance.instance_id}: {first.faults[0]}",
        fix="check that this Python has what the repositories need (--python), mend the instances or leave them out",
    )


def _control_row(control: Control) -> dict[str, Any]:
    return {
        "instance_id": control.instance.instance_id,
        "passed": control.passed,
        "gold": control.num_gold,
        "empty": control.num_empty,
        "repeats": control.num_repeats,
        "faults": list(control.faults),
    }


def _suite_name(instances: Path) -> str:
    """As a suite's name may be written."""
    return re.sub(r"[^a-z0-9_.-]+", "-", instances.stem.lower()).strip("-._") or "code"


def _grade_result(
    verdicts: Sequence[Verdict], checked: Sequence[Control], models: list[str]
) -> dict[str, Any]:
    from raytrain.evaluation.statistics.proportions import wilson_interval

    num_resolved = sum(one.is_resolved for one in verdicts)
    interval = wilson_interval(num_resolved, len(verdicts))
    golden = {one.instance.instance_id: one.gold_run for one in checked}
    return {
        "models": models,
        "resolved": num_resolved,
        "instances": len(verdicts),
        "share": num_resolved / len(verdicts),
        "interval": {
            "low": interval.low,
            "high": interval.high,
            "level": interval.level,
            "method": interval.method,
        },
        "isolation": _isolation(),
        "excluded": [_control_row(one) for one in checked if not one.passed],
        "items": [_grade_row(one, golden.get(one.instance.instance_id)) for one in verdicts],
    }


def _grade_row(verdict: Verdict, gold: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from raytrain.evaluation.code.equivalence import behave_alike

    grade, measure = verdict.grade, verdict.measure
    return {
        "instance_id": verdict.instance.instance_id,
        "resolved": verdict.is_resolved,
        "status": verdict.status,
        "note": verdict.note,
        "not_fixed": list(grade.not_fixed) if grade else [],
        "broken": list(grade.broken) if grade else [],
        "applied": verdict.applied,
        "restored": list(verdict.restored),
        "diff": None if measure is None else {**asdict(measure), "ratio": measure.ratio},
        "equivalence": verdict.equivalence,
        "behaves_as_gold": None if gold is None or verdict.run is None else behave_alike(gold, verdict.run),
    }
