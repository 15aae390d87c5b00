"""`raytrain variants`: questions asked otherwise, as rows for a suite, and the drop to them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from raytrain.cli.code import WeakerOption
from raytrain.cli.output import JsonOption, emit
from raytrain.cli.variant_rows import choices_of, files_of, read_rows, text_of, texts_of
from raytrain.cli.written_files import ReplaceOption, check_outputs, write_files
from raytrain.errors import ConfigError, DataError

if TYPE_CHECKING:
    from raytrain.evaluation.records import ItemRecord

app = typer.Typer(
    help="Make variants of questions: the same asked with other names, numbers, order or letters.",
    no_args_is_help=True,
)

_Name = TypeVar("_Name", bound=str)

OutputOption = Annotated[Path, typer.Option("--output", help="JSONL file that gets the variants.")]
SeedOption = Annotated[int, typer.Option(help="Another seed, other variants.")]
CountOption = Annotated[int, typer.Option(min=1, help="How many problems.")]
SourceArgument = Annotated[Path, typer.Argument(metavar="ROWS", help="JSONL file of the originals.")]
IdOption = Annotated[str | None, typer.Option("--id", help="Column that names a row; else the row's number.")]


@app.command("word-problems")
def word_problems(
    output: OutputOption,
    originals: Annotated[Path, typer.Option(help="JSONL file that gets the originals.")],
    count: CountOption = 100,
    per_original: Annotated[int, typer.Option(min=1, help="Variants of each.")] = 1,
    changes: Annotated[
        str, typer.Option(help="Of names, numbers, order, distractor.")
    ] = "names,numbers,order,distractor",
    seed: SeedOption = 0,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Problems from templates of our own, and the same with other names, numbers and order, or a clause more."""
    from raytrain.evaluation.variants import word_problems as problems

    chosen = _chosen(changes, problems.CHANGES)
    check_outputs([originals, output], replace=replace)
    made = problems.variants(seed, count, changes=chosen, per_original=per_original)
    _write_and_tell(made, Counter(), output, as_json, {originals: problems.originals(seed, count)})


@app.command("annotated")
def annotated(
    rows: SourceArgument,
    output: OutputOption,
    changes: Annotated[str, typer.Option(help="Of names, numbers, distractor.")] = "names,numbers",
    id_column: IdOption = None,
    seed: SeedOption = 0,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rows in GSM8K's form with other numbers: the answer is computed again along its <<annotations>>."""
    from raytrain.evaluation.variants.annotated import ANNOTATED_CHANGES, Reason, perturbed_rows

    chosen = _chosen(changes, ANNOTATED_CHANGES)
    check_outputs([output], inputs=files_of(rows), replace=replace)
    left_out: Counter[Reason] = Counter()
    read = texts_of(rows, id_column, "question", "answer")
    made = perturbed_rows(read, seed, changes=chosen, left_out=left_out)
    _write_and_tell(made, left_out, output, as_json)


@app.command("choices")
def choices(
    rows: SourceArgument,
    output: OutputOption,
    changes: Annotated[str, typer.Option(help="Of shuffle, letters, stem.")] = "shuffle,letters,stem",
    id_column: IdOption = None,
    seed: SeedOption = 0,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rows with question, choices and answer (a number from 0): shuffled, re-lettered, put otherwise by rule."""
    from raytrain.evaluation.variants.choices import CHOICE_CHANGES, Reason, choice_rows

    chosen = _chosen(changes, CHOICE_CHANGES)
    check_outputs([output], inputs=files_of(rows), replace=replace)
    left_out: Counter[Reason] = Counter()
    read = (
        (name, text_of(row, "question", name), *choices_of(row, name))
        for name, row in read_rows(rows, id_column)
    )
    made = choice_rows(read, seed, changes=chosen, left_out=left_out)
    _write_and_tell(made, left_out, output, as_json)


@app.command("code")
def code(
    rows: SourceArgument,
    output: OutputOption,
    changes: Annotated[str, typer.Option(help="Of rename, reorder, dead_code.")] = "rename,reorder,dead_code",
    id_column: IdOption = None,
    limit_s: Annotated[float, typer.Option(min=0.1, help="Longest run of one program's tests.")] = 10.0,
    allow_weaker: WeakerOption = False,
    seed: SeedOption = 0,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rows with code and tests: the same programs written otherwise, each run before and after, in the sandbox."""
    from functools import partial

    from raytrain.evaluation.variants.code import CODE_CHANGES, Reason, code_rows
    from raytrain.evaluation.variants.code_tests import run_in_sandbox

    chosen = _chosen(changes, CODE_CHANGES)
    check_outputs([output], inputs=files_of(rows), replace=replace)
    left_out: Counter[Reason] = Counter()
    read = texts_of(rows, id_column, "code", "tests")
    run = partial(run_in_sandbox, limit_s=limit_s, allow_weaker=allow_weaker)
    made = code_rows(read, seed, run, changes=chosen, left_out=left_out)
    _write_and_tell(made, left_out, output, as_json)


@app.command("fresh")
def fresh(
    output: OutputOption,
    date: Annotated[str, typer.Option(help="ISO date that decides the problems.")],
    count: CountOption = 100,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Word problems of a date: nobody was trained on them before it."""
    from raytrain.evaluation.variants.fresh import fresh_problems

    check_outputs([output], replace=replace)
    _write_and_tell(fresh_problems(date, count), Counter(), output, as_json)


@app.command("drop")
def drop(
    originals: Annotated[
        str, typer.Argument(help="Evaluation of the originals: as for `raytrain compare`, or a Parquet file.")
    ],
    variants: Annotated[
        str, typer.Argument(help="The same of the variants, evaluated with group: original_id.")
    ],
    originals_suite: Annotated[
        str | None, typer.Option(help="Suite of the originals, where their evaluation has several.")
    ] = None,
    variants_suite: Annotated[
        str | None, typer.Option(help="Suite of the variants, where their evaluation has several.")
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Share of the score within which nothing has changed.")
    ] = 0.02,
    as_json: JsonOption = False,
) -> None:
    """The drop from originals to variants with its interval, paired."""
    from dataclasses import asdict

    from raytrain.evaluation.variants.robustness import robustness_of_records

    before = _records_of(originals, originals_suite, "--originals-suite")
    after = _records_of(variants, variants_suite, "--variants-suite")
    found = robustness_of_records(before, after, margin=margin)
    result = {"drop": found.drop, **asdict(found)}
    emit(result, as_json, lambda console: console.print(found.sentence(), highlight=False, soft_wrap=True))


def _records_of(reference: str, suite: str | None, option: str) -> list[ItemRecord]:
    """Of one suite of an evaluation, or of a Parquet file. Raises ConfigError where the suite is not decided."""
    from raytrain.cli.compare import find_evaluation
    from raytrain.evaluation.records import read_records

    file = Path(reference).expanduser()
    if file.is_file():
        if suite is None:
            return read_records(file)
        raise ConfigError(
            f"{option} {suite} has nothing to choose from",
            why=f"{file} is a file of the records of one suite",
            fix=f"leave {option} out, or give the evaluation's folder or the id of its run",
        )
    records = find_evaluation(reference).records
    if suite is None and len(records) == 1:
        return next(iter(records.values()))
    if suite is None or suite not in records:
        raise ConfigError(
            f"{reference} has no suite `{suite}`" if suite else f"{reference} has several suites",
            why=f"it has {', '.join(records)}",
            fix=f"name one of these with {option}",
        )
    return records[suite]


def _chosen(text: str, known: tuple[_Name, ...]) -> list[_Name]:
    from raytrain.config.recipe import nearest

    wanted = [one.strip() for one in text.split(",")]
    for one in wanted:
        if one not in known:
            near = nearest(one, list(known))
            raise ConfigError(
                f"--changes knows no {one!r}",
                why=f"it takes {', '.join(known)}",
                fix=f"did you mean `{near}`?" if near else "name some of these, with commas between",
            )
    return [one for one in known if one in wanted]


def _write_and_tell(
    made: Iterable[dict[str, Any]],
    left_out: Counter[Any],
    output: Path,
    as_json: bool,
    others: Mapping[Path, Iterable[dict[str, Any]]] | None = None,
) -> None:
    """`left_out` is filled while the variants are made: what became none, by reason. `others` are written too."""
    files = {output: _at_least_one(made, left_out), **(others or {})}
    number, *_ = write_files({path: _lines(rows) for path, rows in files.items()})
    result = {"variants": number, "left_out": dict(left_out), "output": str(output)}
    lines = [
        f"{number:,} variants in {output}",
        *(f"left out: {count:,}, {why}" for why, count in left_out.items()),
    ]
    emit(result, as_json, lambda console: console.print("\n".join(lines), highlight=False, soft_wrap=True))


def _at_least_one(made: Iterable[dict[str, Any]], left_out: Counter[Any]) -> Iterator[dict[str, Any]]:
    """What is made, one by one. Raises DataError where it comes to an end before the first."""
    is_any = False
    for row in made:
        is_any = True
        yield row
    if not is_any:
        reasons = ", ".join(f"{count:,} {why}" for why, count in left_out.items())
        raise DataError(
            "no row became a variant",
            why=f"left out: {reasons}" if reasons else "there are no rows",
            fix="see what the kind of variant asks of a row: docs/contamination.md",
        )


def _lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
