"""Each task trained for real by the real loop, on a tiny model of its kind and rows that can be learnt."""

from __future__ import annotations

import io
import json
import math
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest_tasks import Trained, task_spec, train_task, write_jsonl
from tiny_task_models import save_tiny_bert, save_tiny_gpt2, save_tiny_t5, save_tiny_vit
from transformers import AutoTokenizer

from raytrain.data.batches import BatchPlanner, Position, deal_padded
from raytrain.data.dataset import read_split
from raytrain.data.encoders import load_task_examples, prepare_task_examples
from raytrain.data.image_collators import ImageCollator, MultimodalCollator
from raytrain.data.image_examples import ImageTable, JointTable
from raytrain.data.images import NORMALISATIONS
from raytrain.data.prepare import prepare_dataset
from raytrain.data.section import DataSection
from raytrain.data.text_collators import ClassCollator
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.training.batching import tensors_of
from raytrain.training.checks.loss import check_loss
from raytrain.training.checks.variants import Variant
from raytrain.training.losses.base import LossSetup, Objective
from raytrain.training.losses.classification import ClassificationLoss
from raytrain.training.losses.section import LossSection

GOOD, BAD = ("good", "great", "fine", "happy"), ("bad", "awful", "poor", "sad")
THINGS = ("cat", "dog", "bird", "fish", "sun", "moon", "stone", "river")
NAMES, PLACES = ("anna", "peter", "maria", "john"), ("paris", "london", "rome", "tokyo")

pytestmark = pytest.mark.slow


def reviews(num_rows: int = 120) -> list[dict[str, str]]:
    """A text is positive where its third word is a good one; the thing says nothing."""
    draw = random.Random(5)
    rows = []
    for number in range(num_rows):
        label = ("negative", "positive")[number % 2]
        word = draw.choice(GOOD if label == "positive" else BAD)
        rest = " ".join(draw.choices(THINGS, k=draw.randint(1, 6)))
        rows.append({"text": f"the {draw.choice(THINGS)} is {word} and sees {rest} {number}", "label": label})
    return rows


def tagged(num_rows: int = 120) -> list[dict[str, list[str]]]:
    draw = random.Random(6)
    rows = []
    for number in range(num_rows):
        words = [
            draw.choice(NAMES),
            "lives",
            "in",
            draw.choice(PLACES),
            "and",
            "sees",
            draw.choice(THINGS),
            str(number),
        ]
        kinds = {**dict.fromkeys(NAMES, "PER"), **dict.fromkeys(PLACES, "LOC")}
        rows.append({"tokens": words, "tags": [kinds.get(word, "O") for word in words]})
    return rows


def translations(num_rows: int = 120) -> list[dict[str, str]]:
    """The target says the words of the source in their order, each in its other form."""
    numbers = {"one": "red", "two": "green", "three": "blue", "four": "moon"}
    draw = random.Random(8)
    rows = []
    for number in range(num_rows):
        words = draw.choices(list(numbers), k=2)
        rows.append(
            {"prompt": f"{' '.join(words)} {number}", "completion": " ".join(numbers[word] for word in words)}
        )
    return rows


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vit(tmp_path_factory.mktemp("models") / "tiny-vit")


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_t5(tmp_path_factory.mktemp("models") / "tiny-t5")


def tell(run: Trained) -> str:
    return f"losses {[round(loss, 3) for loss in run.losses[::5]]}, last evaluation {run.last_eval}"


@pytest.mark.parametrize(
    "adapter", [{"method": "full"}, {"method": "lora", "lora_rank": 8}], ids=["full", "lora"]
)
def test_bert_learns_to_classify_texts(tiny_bert: Path, tmp_path: Path, adapter: dict[str, Any]) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", reviews())
    spec = task_spec(
        "sequence_classification", tiny_bert, rows, tmp_path / "storage", adapter=adapter,
        train={"learning_rate": 3e-3 if adapter["method"] == "full" else 1e-2, "max_steps": 60},
    )  # fmt: skip
    run = train_task(spec)
    assert run.losses[0] == pytest.approx(math.log(2), abs=0.1), "a new head guesses at chance level"
    assert np.mean(run.losses[-5:]) < 0.2, tell(run)
    assert run.last_eval["eval/accuracy"] >= 0.95, tell(run)
    assert "eval/perplexity" not in run.last_eval


def test_a_language_model_learns_to_classify_texts(tiny_llama: Path, tmp_path: Path) -> None:
    """It classifies by the last token that is no padding, so rows of any length must give what they give alone."""
    rows = write_jsonl(tmp_path / "rows.jsonl", reviews())
    run = train_task(
        task_spec(
            "sequence_classification",
            tiny_llama,
            rows,
            tmp_path / "storage",
            adapter={"method": "lora", "lora_rank": 8},
            train={"learning_rate": 1e-2, "max_steps": 80},
        )
    )
    assert np.mean(run.losses[-5:]) < 0.3, tell(run)
    model, table = run.job.model.eval(), run.job.validation.table
    together = run.job.validation.collate(table, np.arange(8)).inputs
    assert (together["attention_mask"] == 0).any(), "some rows are padded"
    with torch.no_grad():
        padded = model(**{name: torch.from_numpy(value) for name, value in together.items()}).logits
        for row in range(8):
            alone = run.job.validation.collate(table, np.array([row])).inputs
            found = model(**{name: torch.from_numpy(value) for name, value in alone.items()}).logits
            torch.testing.assert_close(found[0], padded[row], atol=1e-5, rtol=1e-4)


def test_bert_learns_to_classify_tokens(tiny_bert: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", tagged())
    run = train_task(task_spec("token_classification", tiny_bert, rows, tmp_path / "storage"))
    assert run.losses[0] == pytest.approx(math.log(3), abs=0.2)
    assert run.losses[-1] < 0.2, tell(run)
    assert run.last_eval["eval/accuracy"] >= 0.97, tell(run)


def test_bert_learns_masked_tokens(tiny_bert: Path, tmp_path: Path) -> None:
    texts = [{"text": f"{row['text']} and is {row['label']}"} for row in reviews(160)]
    rows = write_jsonl(tmp_path / "rows.jsonl", texts)
    run = train_task(task_spec("masked_lm", tiny_bert, rows, tmp_path / "storage", train={"max_steps": 80}))
    assert np.mean(run.losses[-10:]) < 0.65 * run.losses[0], tell(run)
    assert run.last_eval["eval/perplexity"] == pytest.approx(math.exp(run.last_eval["eval/loss"]))


def test_t5_learns_to_translate(tiny_t5: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", translations())
    run = train_task(
        task_spec(
            "seq2seq",
            tiny_t5,
            rows,
            tmp_path / "storage",
            train={"max_steps": 120, "learning_rate": 1e-2},
        )
    )
    assert run.losses[-1] < 0.5, tell(run)


def test_gpt2_learns_the_next_token(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    model = save_tiny_gpt2(tmp_path / "tiny-gpt2")
    file = write_jsonl(tmp_path / "rows.jsonl", [{"text": row["answer"]} for row in rows])
    run = train_task(
        task_spec(
            "causal_lm", model, file, tmp_path / "storage", train={"learning_rate": 1e-2, "max_steps": 60}
        )
    )
    assert run.losses[0] == pytest.approx(math.log(384), rel=0.1)
    assert run.losses[-1] < 2.5, tell(run)


def save_pictures(folder: Path, num_rows: int = 96) -> Path:
    """Pictures of horizontal, vertical and no stripes, in random colours, each a file of its own."""
    from PIL import Image

    draw = np.random.default_rng(4)
    rows = []
    for number in range(num_rows):
        kind = ("across", "down", "plain")[number % 3]
        pixels = np.full((20, 20, 3), draw.integers(0, 120, 3), np.uint8)
        bright = draw.integers(150, 255, 3)
        if kind == "across":
            pixels[number % 2 :: 4] = bright
        elif kind == "down":
            pixels[:, number % 2 :: 4] = bright
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
        rows.append({"image": f"pictures/{number}.png", "label": kind})
    return write_jsonl(folder / "rows.jsonl", rows)


def test_vit_learns_to_classify_images(tiny_vit: Path, tmp_path: Path) -> None:
    rows = save_pictures(tmp_path)
    run = train_task(
        task_spec(
            "image_classification",
            tiny_vit,
            rows,
            tmp_path / "storage",
            data={
                "sources": {"path": str(rows), "layout": "image_classification"},
                "images": {"random_flip": True, "random_crop": 1},
            },
            train={"max_steps": 80},
        )
    )
    assert run.losses[0] == pytest.approx(math.log(3), abs=0.3)
    assert np.mean(run.losses[-10:]) < 0.3, tell(run)
    assert run.last_eval["eval/accuracy"] >= 0.9, tell(run)


def test_check_loss_of_an_image_classifier(tiny_vit: Path, tmp_path: Path) -> None:
    rows = save_pictures(tmp_path, 24)
    spec = task_spec(
        "image_classification", tiny_vit, rows, tmp_path / "storage",
        data={"sources": {"path": str(rows), "layout": "image_classification"}},
    )  # fmt: skip
    verdict = check_loss(spec, lambda _: None, variants=[Variant("padded", 8), Variant("padded", 1)])
    assert [one.status for one in verdict.findings] == ["passed", "passed"], verdict.findings


def test_transformers_alone_loads_a_trained_classifier(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    rows = write_jsonl(tmp_path / "rows.jsonl", reviews())
    run = train_task(task_spec("sequence_classification", tiny_bert, rows, tmp_path / "storage"))
    place = run.result().path
    model = AutoModelForSequenceClassification.from_pretrained(place).eval()
    assert model.config.id2label == {0: "negative", 1: "positive"}
    batch = AutoTokenizer.from_pretrained(place)(
        ["the cat is great", "the cat is awful"], return_tensors="pt"
    )
    assert model(**batch).logits.argmax(dim=-1).tolist() == [1, 0]
    live = run.job.model.eval()
    torch.testing.assert_close(model(**batch).logits, live(**batch).logits, rtol=0, atol=0)


def test_peft_alone_loads_an_adapter_with_its_head(tiny_bert: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    rows = write_jsonl(tmp_path / "rows.jsonl", reviews())
    run = train_task(
        task_spec(
            "sequence_classification",
            tiny_bert,
            rows,
            tmp_path / "storage",
            adapter={"method": "lora", "lora_rank": 4},
            train={"learning_rate": 2e-2},
        )
    )
    place = run.result().path
    assert json.loads((place / "training.json").read_text())["labels"] == ["negative", "positive"]
    torch.manual_seed(99)  # the head and the pooler of the base begin with other numbers
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    model = PeftModel.from_pretrained(base, place).eval()
    batch = AutoTokenizer.from_pretrained(place)(
        ["the cat is great", "the cat is awful"], return_tensors="pt"
    )
    live = run.job.model.eval()
    torch.testing.assert_close(model(**batch).logits, live(**batch).logits)
    assert model(**batch).logits.argmax(dim=-1).tolist() == [1, 0]


def test_transformers_alone_loads_images_as_they_were_trained(tiny_vit: Path, tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    rows = save_pictures(tmp_path, num_rows=24)
    run = train_task(
        task_spec(
            "image_classification",
            tiny_vit,
            rows,
            tmp_path / "storage",
            data={
                "sources": {"path": str(rows), "layout": "image_classification"},
                "images": {"normalisation": "cifar10"},
            },
            train={"max_steps": 2},
        )
    )
    place = run.result().path
    model = AutoModelForImageClassification.from_pretrained(place)
    assert model.config.id2label == {0: "across", 1: "down", 2: "plain"}
    table = run.job.validation.table
    ours = run.job.validation.collate(table, np.arange(1)).inputs["pixel_values"]
    dataset = open_artifact(run.assignment.dataset, kind="dataset")
    content = read_split(dataset, "val").to_pylist()[0]["image"]
    picture = Image.open(io.BytesIO(content))
    theirs = AutoImageProcessor.from_pretrained(place)(picture, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_peft_alone_loads_a_seq2seq_adapter(tiny_t5: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForSeq2SeqLM

    rows = write_jsonl(tmp_path / "rows.jsonl", translations())
    run = train_task(
        task_spec(
            "seq2seq",
            tiny_t5,
            rows,
            tmp_path / "storage",
            adapter={"method": "lora", "lora_rank": 4},
            train={"learning_rate": 2e-2, "max_steps": 10},
        )
    )
    model = AutoPeftModelForSeq2SeqLM.from_pretrained(run.result().path).eval()
    ids = torch.tensor([[5, 6, 7, 1]])
    start = torch.tensor([[0, 9]])
    live = run.job.model.eval()
    torch.testing.assert_close(
        model(input_ids=ids, decoder_input_ids=start).logits,
        live(input_ids=ids, decoder_input_ids=start).logits,
    )


class SeesAndReads(torch.nn.Module):
    """A BERT and a ViT side by side under one head."""

    def __init__(self, bert: Path, vit: Path) -> None:
        super().__init__()
        from transformers import BertModel, ViTModel

        self.reads = BertModel.from_pretrained(bert)
        self.sees = ViTModel.from_pretrained(vit)
        self.hidden, self.head = torch.nn.Linear(64, 32), torch.nn.Linear(32, 2)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, pixel_values: torch.Tensor
    ) -> tuple[torch.Tensor]:
        said = self.reads(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]
        seen = self.sees(pixel_values=pixel_values).last_hidden_state[:, 0]
        return (self.head(torch.nn.functional.gelu(self.hidden(torch.cat([said, seen], dim=-1)))),)


def test_a_model_of_text_and_image_learns_whether_they_agree(
    tiny_bert: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    """Neither the text nor the image alone says anything about the label."""
    torch.manual_seed(0)
    colours, draw = {"red": (200, 30, 30), "green": (30, 200, 30)}, random.Random(3)
    picked = [(draw.choice(list(colours)), draw.choice(list(colours))) for _ in range(160)]
    texts = [
        {"text": f"the {draw.choice(THINGS)} is {said} {i}", "label": "yes" if said == seen else "no"}
        for i, (said, seen) in enumerate(picked)
    ]
    section = DataSection.model_validate(
        {
            "sources": str(write_jsonl(tmp_path / "rows.jsonl", texts)),
            "val_fraction": 0,
            "near_duplicate_threshold": None,
        }
    )
    storage = Location(str(tmp_path / "storage"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokens = prepare_task_examples(
        "sequence_classification", prepare_dataset(section, storage), tokenizer, section, storage
    )
    table = load_task_examples("sequence_classification", tokens, "train")
    pixels = np.stack([np.full((16, 16, 3), colours[seen], np.uint8) for _, seen in picked])
    joint = JointTable(table, ImageTable(pixels, np.zeros(160, np.int32), [""] * 160))
    collate = MultimodalCollator(
        ClassCollator(tokenizer.pad_token_id), ImageCollator(*NORMALISATIONS["half"])
    )
    planner = BatchPlanner(
        joint, seed=0, global_batch_size=16, world_size=1, deal=partial(deal_padded, micro_batch_size=8)
    )

    model = SeesAndReads(tiny_bert, tiny_vit)
    setup = LossSetup("sequence_classification", LossSection(), model, labels=("no", "yes"))
    objective = Objective(model, ClassificationLoss(setup))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    position, losses = Position(), []
    for _ in range(100):
        batch = planner.batch_at(position)
        total = torch.zeros(())
        for (rows,) in batch.slots:
            inputs, labels = tensors_of(collate(joint, rows, position.epoch), torch.device("cpu"))
            total = total + objective(inputs, labels)
        loss = total / batch.loss_weight
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        position = batch.after
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(2), abs=0.1)
    assert np.mean(losses[-10:]) < 0.15, losses[::10]
