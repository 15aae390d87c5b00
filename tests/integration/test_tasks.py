"""A text classifier on two workers, by the command, from rows to a model that transformers loads."""

from __future__ import annotations

from pathlib import Path

from bench import Bench, run_id_of, write_recipe, write_rows
from tiny_task_models import save_tiny_bert


def test_a_classifier_is_trained_by_the_command_on_two_workers(local: Bench, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    kinds = {"good": "positive", "great": "positive", "bad": "negative", "awful": "negative"}
    rows = [
        {"text": f"the {thing} is {word} {number}", "label": kinds[word]}
        for number, (thing, word) in enumerate(
            (thing, word) for thing in ("cat", "dog", "bird", "fish", "sun", "moon") * 6 for word in kinds
        )
    ]
    model = save_tiny_bert(tmp_path / "tiny-bert")
    recipe = write_recipe(
        tmp_path / "reviews.yaml",
        model=model,
        rows=write_rows(tmp_path / "reviews.jsonl", rows),
        adapter={"method": "full"},
        train={
            "num_epochs": 8,
            "learning_rate": 2e-3,
            "warmup_steps": 10,
            "save_every": 20,
            "eval_every": 20,
            "monitor": "eval/accuracy",
            "mode": "max",
            "loss": {"class_weights": "balanced", "label_smoothing": 0.05},
        },
    )
    task = "model.task=sequence_classification"
    outcome = local.train(recipe, task)
    assert outcome.code == 0, outcome.told()
    assert outcome.object["metrics"]["eval/accuracy"] >= 0.95, outcome.told()
    run_id = run_id_of(recipe, task)
    assert len({line["pid"] for line in local.seen()}) == 2
    assert len(local.checkpoints(run_id)) >= 1

    place = outcome.object["artifact"]
    trained = AutoModelForSequenceClassification.from_pretrained(place).eval()
    assert trained.config.label2id == {"negative": 0, "positive": 1}
    batch = AutoTokenizer.from_pretrained(place)(
        ["the dog is great", "the dog is awful"], return_tensors="pt"
    )
    assert trained(**batch).logits.argmax(dim=-1).tolist() == [1, 0]

    refused = local.run("ask", place, "the dog is great", "--json")
    assert refused.code == 2, refused.told()
    assert "sequence_classification" in refused.error["why"]
