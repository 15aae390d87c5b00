"""Rows of the tasks beside causal language modelling: layouts, cleaning, splits, duplicates, classes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raytrain.data.class_names import class_names, sorted_names
from raytrain.data.dataset import read_split, row_as_canonical
from raytrain.data.layouts import canonicalise, detect_layout
from raytrain.data.prepare import prepare_dataset
from raytrain.data.rows import CanonicalRow, RowFault
from raytrain.data.section import DataSection
from raytrain.errors import DataError
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location


def png(shade: int = 0, size: int = 4) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), shade, np.uint8)).save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("row", "layout", "expected"),
    [
        ({"text": "Fine. ", "label": "good"}, "classification", CanonicalRow(text="Fine.", label="good")),
        ({"text": "Fine.", "label": 1}, "classification", CanonicalRow(text="Fine.", label="1")),
        ({"text": "Fine.", "label": True}, "classification", CanonicalRow(text="Fine.", label="true")),
        ({"text": "Fine.", "label": None}, "text", CanonicalRow(text="Fine.")),
        (
            {"tokens": ["Anna", "sings"], "tags": ["PER", 0]},
            "token_classification",
            CanonicalRow(tokens=("Anna", "sings"), tags=("PER", "0")),
        ),
        ({"image": png(), "label": "dark"}, "image_classification", CanonicalRow(image=png(), label="dark")),
        (
            {"image": {"bytes": png(), "path": "a.png"}, "label": 3},
            "image_classification",
            CanonicalRow(image=png(), label="3"),
        ),
    ],
)
def test_each_layout_is_told_from_its_columns(
    row: dict[str, Any], layout: str, expected: CanonicalRow
) -> None:
    assert detect_layout(row) == layout
    assert canonicalise(row, "auto", {}) == expected


@pytest.mark.parametrize(
    ("row", "layout", "reason", "told"),
    [
        ({"text": "Fine.", "label": None}, "classification", "missing_column", "`label` is null"),
        ({"text": "Fine."}, "classification", "missing_column", "no `label`"),
        ({"text": " ", "label": "a"}, "classification", "empty_prompt", "`text` is empty"),
        ({"text": "Fine.", "label": " "}, "classification", "empty_completion", "`label` is empty"),
        ({"text": "Fine.", "label": ["a"]}, "classification", "wrong_type", "a list"),
        ({"tokens": ["a", "b"], "tags": ["x"]}, "auto", "bad_tags", "2 tokens have 1 tags"),
        ({"tokens": "a b", "tags": ["x"]}, "auto", "bad_tags", "not a list"),
        ({"tokens": ["a", " "], "tags": ["x", "y"]}, "auto", "bad_tags", "empty"),
        ({"tokens": [], "tags": []}, "auto", "empty_prompt", "`tokens` is empty"),
        ({"tokens": ["a"], "tags": None}, "auto", "missing_column", "no `tags`"),
        ({"image": b"not an image", "label": "a"}, "auto", "bad_image", "Pillow"),
        ({"image": png()[:45], "label": "a"}, "auto", "bad_image", "Pillow"),
        ({"image": "a.png", "label": "a"}, "auto", "bad_image", "layout: image_classification"),
        ({"image": 3, "label": "a"}, "auto", "bad_image", "neither a path nor bytes"),
        ({"image": png()}, "auto", "missing_column", "no `label`"),
        ({"image": None, "label": "a"}, "auto", "missing_column", "no `image`"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row: dict[str, Any], layout: Any, reason: str, told: str) -> None:
    found = canonicalise(row, layout, {})
    assert isinstance(found, RowFault), found
    assert found.reason == reason
    assert told in found.detail


def test_columns_are_mapped() -> None:
    row = {"sentence": "Fine.", "kind": "good", "text": "not this one"}
    found = canonicalise(row, "auto", {"text": "sentence", "label": "kind"})
    assert found == CanonicalRow(text="Fine.", label="good")


def test_rows_that_differ_in_anything_have_different_identities() -> None:
    rows = [
        CanonicalRow(text="a b"),
        CanonicalRow(text="a b", label="x"),
        CanonicalRow(text="a b", label="y"),
        CanonicalRow(tokens=("a", "b"), tags=("x", "y")),
        CanonicalRow(tokens=("a", "b"), tags=("y", "x")),
        CanonicalRow(tokens=("a b",), tags=("x",)),
        CanonicalRow(image=png(1), label="x"),
        CanonicalRow(image=png(2), label="x"),
        CanonicalRow(image=png(1), label="y"),
        CanonicalRow(prompt="a", completion="b"),
    ]
    assert len({row.identity() for row in rows}) == len(rows)


def prepared(folder: Path, rows: list[dict[str, Any]], layout: str = "auto", **values: Any) -> Artifact:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = DataSection.model_validate(
        {"sources": {"path": str(file), "layout": layout}, "val_fraction": 0.3, **values}
    )
    return prepare_dataset(section, Location(str(folder / "storage")))


def all_rows(dataset: Artifact) -> list[dict[str, Any]]:
    return [row for split in ("train", "val") for row in read_split(dataset, split).to_pylist()]  # type: ignore[arg-type]


def test_labelled_texts_go_through_preparation(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"Case {i} of many.", "label": "ab"[i % 2]} for i in range(30)]
    dataset = prepared(tmp_path, [*rows, rows[0]], near_duplicate_threshold=None)
    found = sorted(map(str, map(row_as_canonical, all_rows(dataset))))
    assert found == sorted(map(str, rows)), "the repeated row is kept once"
    assert read_split(dataset, "val").num_rows > 0
    assert '"label": "a"' in (dataset.path / "data_card.md").read_text()


def test_images_by_path_go_through_preparation(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    rows: list[dict[str, Any]] = []
    for i in range(12):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(png(i * 20))
        rows.append({"image": f"pictures/{i}.png", "label": "dark" if i < 6 else "bright"})
    dataset = prepared(tmp_path, rows, "image_classification")
    found = {row["image"]: row["label"] for row in all_rows(dataset)}
    assert found == {png(i * 20): row["label"] for i, row in enumerate(rows)}
    assert f"{len(png())} bytes" in (dataset.path / "data_card.md").read_text()

    (tmp_path / "pictures" / "0.png").write_bytes(png(255))
    again = prepared(tmp_path, rows, "image_classification")
    assert again.digest != dataset.digest, "another picture under an old name is another dataset"


def test_images_that_are_not_there_are_rejected_with_their_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row of") as caught:
        prepared(tmp_path, [{"image": "nowhere.png", "label": "a"}], "image_classification")
    assert "nowhere.png" in caught.value.why
    assert str(tmp_path) in caught.value.why


def test_classes_are_sorted_names() -> None:
    assert sorted_names(["b", "a", "c"]) == ["a", "b", "c"]
    assert sorted_names(["10", "9", "-1"]) == ["-1", "9", "10"], "numbers by value"
    assert sorted_names(["10", "9", "x"]) == ["10", "9", "x"]


def test_classes_come_from_rows_or_recipe(tmp_path: Path) -> None:
    rows = [{"text": f"Case {i}.", "label": "cab"[i % 3]} for i in range(12)]
    dataset = prepared(tmp_path, rows, near_duplicate_threshold=None)
    section = DataSection(sources=["rows.jsonl"])  # type: ignore[list-item]
    assert class_names(dataset, section, "label") == ["a", "b", "c"]
    assert class_names(dataset, section.model_copy(update={"labels": ["c", "a"]}), "label") == ["c", "a"]


def test_one_class_is_no_classification(tmp_path: Path) -> None:
    dataset = prepared(
        tmp_path, [{"text": f"Case {i}.", "label": "a"} for i in range(6)], near_duplicate_threshold=None
    )
    with pytest.raises(DataError, match="1 classes") as caught:
        class_names(dataset, DataSection(sources=["rows.jsonl"]), "label")  # type: ignore[list-item]
    assert "'a'" in caught.value.why
    with pytest.raises(DataError, match="0 classes") as caught:
        class_names(dataset, DataSection(sources=["rows.jsonl"]), "tags")  # type: ignore[list-item]
    assert "data.sources.0.columns" in caught.value.fix


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"labels": ["a"]}, "at least two classes"),
        ({"labels": ["a", "a"]}, "each once"),
        ({"mask_fraction": 0}, "greater than 0"),
        ({"images": {"normalisation": "custom"}}, "needs `mean` and `std`"),
        ({"images": {"mean": [0, 0, 0], "std": [1, 1, 1]}}, "normalisation: custom only"),
        ({"images": {"normalisation": "custom", "mean": [0, 0, 0], "std": [1, 1, 0]}}, "greater than 0"),
    ],
)
def test_the_section_refuses(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DataSection.model_validate({"sources": "rows.jsonl", **values})
