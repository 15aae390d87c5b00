"""Rows to the tables that the tasks learn from, and tables to micro-batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_task_models import save_tiny_bert, save_tiny_t5
from transformers import AutoTokenizer

from raytrain.data.collators import IGNORED_LABEL, MicroBatch, PaddedCollator
from raytrain.data.draws import uniform
from raytrain.data.encoders import load_task_examples, prepare_task_examples
from raytrain.data.examples import read_labels
from raytrain.data.image_collators import ImageCollator, MultimodalCollator
from raytrain.data.image_examples import ImageTable, JointTable
from raytrain.data.images import NORMALISATIONS, decode_image, normalisation_of
from raytrain.data.prepare import prepare_dataset
from raytrain.data.section import DataSection, ImageSection
from raytrain.data.text_collators import ClassCollator, MaskingCollator, PairCollator, TagCollator
from raytrain.data.text_examples import ClassTable, MaskableTable, PairTable, TagTable
from raytrain.errors import DataError
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location

NONE = np.zeros(0, np.int64)


@pytest.fixture(scope="module")
def bert_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(save_tiny_bert(tmp_path_factory.mktemp("models") / "bert"))


@pytest.fixture(scope="module")
def t5_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(save_tiny_t5(tmp_path_factory.mktemp("models") / "t5"))


def encoded(
    task: Any, tokenizer: Any, folder: Path, rows: list[dict[str, Any]], **values: Any
) -> tuple[Any, Artifact]:
    """The training table of some rows, in the order of the rows."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = DataSection.model_validate(
        {"sources": str(file), "val_fraction": 0.0, "near_duplicate_threshold": None, **values}
    )
    storage = Location(str(folder / "storage"))
    artifact = prepare_task_examples(task, prepare_dataset(section, storage), tokenizer, section, storage)
    return load_task_examples(task, artifact, "train"), artifact


def words(tokenizer: Any, ids: Any) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens([int(one) for one in ids]))


def test_texts_with_classes(bert_tokenizer: Any, tmp_path: Path) -> None:
    rows = [
        {"text": "the cat is good", "label": "yes"},
        {"text": "bad dog", "label": "no"},
        {"text": "a", "label": "yes"},
    ]
    table, artifact = encoded("sequence_classification", bert_tokenizer, tmp_path, rows)
    assert isinstance(table, ClassTable)
    assert read_labels(artifact) == ["no", "yes"]
    assert table.class_ids.tolist() == [1, 0, 1]
    assert words(bert_tokenizer, table.ids(1)) == ["[CLS]", "bad", "dog", "[SEP]"]
    assert table.lengths.tolist() == [6, 4, 3]
    assert table.num_loss_tokens.tolist() == [1, 1, 1]
    batch = ClassCollator(pad_id=0)(table, np.array([1, 0]))
    assert batch.labels.tolist() == [0, 1]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert batch.num_tokens == 10


def test_rows_that_a_task_cannot_use_are_counted(bert_tokenizer: Any, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "the cat", "label": "yes"},
        {"text": "the dog", "label": "no"},
        {"text": "the fish"},
        {"text": "the bird", "label": "maybe"},
        {"text": "the sun " * 20, "label": "no"},
    ]
    table, artifact = encoded(
        "sequence_classification", bert_tokenizer, tmp_path, rows, labels=["yes", "no"], max_seq_len=8
    )
    assert table.class_ids.tolist() == [0, 1]
    counts = json.loads((artifact.path / "statistics.json").read_text())["splits"]["train"]
    assert counts == {"rows": 2, "tokens": 8, "no_label": 1, "unknown_label": 1, "too_long": 1}


def test_truncation_keeps_the_special_tokens(bert_tokenizer: Any, tmp_path: Path) -> None:
    rows = [
        {"text": "the cat is good and the dog is bad and one two", "label": label} for label in ("a", "b")
    ]
    table, _ = encoded(
        "sequence_classification", bert_tokenizer, tmp_path, rows, max_seq_len=8, overlong="truncate"
    )
    assert words(bert_tokenizer, table.ids(0)) == ["[CLS]", "the", "cat", "is", "good", "and", "the", "[SEP]"]


def test_no_row_left_says_what_rows_need(bert_tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"text": f"case {i}"} for i in range(3)]
    with pytest.raises(DataError, match="no training row is left") as caught:
        encoded("sequence_classification", bert_tokenizer, tmp_path, rows, labels=["a", "b"])
    assert "`text` and `label`" in caught.value.fix
    assert "'no_label': 3" in caught.value.why


def test_a_tag_goes_to_the_first_piece_of_its_word(bert_tokenizer: Any, tmp_path: Path) -> None:
    rows = [
        {"tokens": ["anna", "xyz", "is"], "tags": ["PER", "MISC", "O"]},
        {"tokens": ["the"], "tags": ["O"]},
    ]
    table, artifact = encoded("token_classification", bert_tokenizer, tmp_path, rows)
    assert isinstance(table, TagTable)
    assert read_labels(artifact) == ["MISC", "O", "PER"]
    assert words(bert_tokenizer, table.ids(0)) == ["[CLS]", "anna", "x", "##y", "##z", "is", "[SEP]"]
    none = IGNORED_LABEL
    assert table.tags(0).tolist() == [none, 2, 0, none, none, 1, none]
    assert table.num_loss_tokens.tolist() == [3, 1]
    batch = TagCollator(pad_id=0)(table, np.array([0, 1]))
    assert batch.labels.tolist() == [
        [none, 2, 0, none, none, 1, none],
        [none, 1, none, none, none, none, none],
    ]


def test_pairs_become_source_and_target(t5_tokenizer: Any, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "one two", "completion": "red"},
        {"question": "the cat", "answer": "good dog"},
        {"text": "alone"},
    ]
    table, artifact = encoded("seq2seq", t5_tokenizer, tmp_path, rows)
    assert isinstance(table, PairTable)
    assert words(t5_tokenizer, table.ids(0)) == ["one", "two", "</s>"]
    assert words(t5_tokenizer, table.target(1)) == ["good", "dog", "</s>"]
    assert table.lengths.tolist() == [5, 6]
    assert table.num_loss_tokens.tolist() == [2, 3]
    assert json.loads((artifact.path / "statistics.json").read_text())["splits"]["train"]["not_a_pair"] == 1
    batch = PairCollator(pad_id=0)(table, np.array([0, 1]))
    assert batch.labels.shape == (2, 3)
    assert batch.labels[0, 2] == IGNORED_LABEL
    assert batch.num_tokens == 11


@pytest.fixture
def maskable(bert_tokenizer: Any, tmp_path: Path) -> MaskableTable:
    rows = [{"text": "the cat is good and the dog is bad " * 5 + str(i)} for i in range(40)]
    table, _ = encoded("masked_lm", bert_tokenizer, tmp_path, rows, mask_fraction=0.2)
    assert isinstance(table, MaskableTable)
    return table


def test_masking_is_that_of_bert(bert_tokenizer: Any, maskable: MaskableTable) -> None:
    collate = MaskingCollator(0, bert_tokenizer.mask_token_id, len(bert_tokenizer), seed=1)
    hidden = replaced = kept = 0
    for epoch in range(5):
        batch = collate(maskable, np.arange(40), epoch)
        true_ids = ClassCollator(0)(
            ClassTable(maskable.input_ids, maskable.offsets, maskable.row_ids, np.zeros(40, np.int32)),
            np.arange(40),
        ).inputs["input_ids"]
        is_target = batch.labels != IGNORED_LABEL
        assert (is_target.sum(axis=1) == maskable.num_masked).all(), "a batch knows its targets beforehand"
        assert (batch.labels[is_target] == true_ids[is_target]).all()
        assert (batch.inputs["input_ids"][~is_target] == true_ids[~is_target]).all()
        special = np.isin(true_ids, bert_tokenizer.all_special_ids)
        assert not (is_target & special).any(), "special tokens are never guessed"
        given = batch.inputs["input_ids"][is_target]
        hidden += int((given == bert_tokenizer.mask_token_id).sum())
        kept += int((given == true_ids[is_target]).sum())
        replaced += int(((given != bert_tokenizer.mask_token_id) & (given != true_ids[is_target])).sum())
    total = hidden + replaced + kept
    assert total == 5 * maskable.num_masked.sum()
    # Four standard deviations of so many draws.
    for count, share in ((hidden, 0.8), (replaced, 0.1), (kept, 0.1)):
        assert abs(count / total - share) < 4 * np.sqrt(share * (1 - share) / total) + 0.003, (
            hidden,
            replaced,
            kept,
        )


def as_rows(batches: list[tuple[MicroBatch, list[int]]]) -> dict[int, tuple[list[int], list[int]]]:
    """Input ids and labels of each row without padding, however rows were batched."""
    found = {}
    for batch, rows in batches:
        for place, row in enumerate(rows):
            length = int(batch.inputs["attention_mask"][place].sum())
            found[row] = (
                batch.inputs["input_ids"][place, :length].tolist(), batch.labels[place, :length].tolist(),
            )  # fmt: skip
    return found


def test_what_is_drawn_depends_on_seed_epoch_and_row_alone(
    bert_tokenizer: Any, maskable: MaskableTable
) -> None:
    def collated(groups: list[list[int]], *, seed: int = 1, epoch: int = 0) -> dict[int, Any]:
        collate = MaskingCollator(0, bert_tokenizer.mask_token_id, len(bert_tokenizer), seed=seed)
        return as_rows([(collate(maskable, np.array(rows), epoch), rows) for rows in groups])

    alone = collated([[row] for row in range(40)])
    two_workers = collated([list(range(0, 40, 2)), list(range(1, 40, 2))][::-1])
    assert alone == two_workers
    np.random.default_rng(3).random(100)
    assert collated([list(range(40))]) == alone, "no generator is asked"
    for other in (collated([list(range(40))], epoch=1), collated([list(range(40))], seed=2)):
        assert sum(other[row] != alone[row] for row in alone) > 30
    masks = {tuple(np.array(labels) == IGNORED_LABEL) for _, labels in alone.values()}
    assert len(masks) > 30, "rows draw apart"


def test_draws_are_uniform_and_fixed_for_ever() -> None:
    drawn = uniform("flip", seed=0, epoch=0, row=0, count=20_000)
    assert abs(drawn.mean() - 0.5) < 0.01
    assert drawn.min() >= 0
    assert drawn.max() < 1
    apart = uniform("crop", seed=0, epoch=0, row=0, count=20_000)
    assert abs(np.corrcoef(drawn, apart)[0, 1]) < 0.03
    # A resume with another release must go on with the same numbers.
    np.testing.assert_allclose(
        uniform("mask_where", seed=7, epoch=2, row=11, count=3),
        [0.6170299266866255, 0.8847307316872355, 0.8239083802383816],
        rtol=0,
    )


# Images


def pictures(num_rows: int = 6, size: int = 8) -> ImageTable:
    pixels = np.random.default_rng(0).integers(0, 256, (num_rows, size, size, 3)).astype(np.uint8)
    return ImageTable(pixels, np.arange(num_rows, dtype=np.int32) % 2, [str(i) for i in range(num_rows)])


@pytest.mark.parametrize("name", ["imagenet", "cifar10", "half"])
def test_pixels_are_normalised(name: str) -> None:
    table = pictures()
    mean, std = NORMALISATIONS[name]
    batch = ImageCollator(mean, std)(table, np.array([2, 0]))
    values = batch.inputs["pixel_values"]
    assert values.shape == (2, 3, 8, 8)
    assert values.dtype == np.float32
    expected = (table.pixels[2, 3, 5] / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(values[0, :, 3, 5], expected, atol=1e-5)
    assert batch.labels.tolist() == [0, 0]
    assert batch.num_tokens == 2


def test_where_the_normalisation_comes_from() -> None:
    own = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 2]}
    assert normalisation_of(ImageSection(), own) == ((0.1, 0.2, 0.3), (1.0, 1.0, 2.0))
    assert normalisation_of(ImageSection(), None) == NORMALISATIONS["imagenet"]
    assert normalisation_of(ImageSection(normalisation="cifar10"), own) == NORMALISATIONS["cifar10"]
    custom = ImageSection(normalisation="custom", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert normalisation_of(custom, own) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_images_vary_by_seed_epoch_and_row_alone() -> None:
    table = pictures(40)
    mean, std = NORMALISATIONS["half"]
    collate = ImageCollator(mean, std, seed=5, random_flip=True, random_crop=2)

    def seen(rows: list[int], epoch: int) -> list[bytes]:
        return [one.tobytes() for one in collate(table, np.array(rows), epoch).inputs["pixel_values"]]

    together = seen(list(range(40)), 0)
    assert [seen([row], 0)[0] for row in range(40)] == together
    assert seen(list(range(1, 40, 2)), 0) == together[1::2]
    later = seen(list(range(40)), 1)
    assert sum(a != b for a, b in zip(together, later, strict=True)) > 30
    flipped = ImageCollator(mean, std, seed=5, random_flip=True)
    plain = ImageCollator(mean, std)(table, np.arange(40)).inputs["pixel_values"]
    varied = flipped(table, np.arange(40)).inputs["pixel_values"]
    is_flipped = [(a == b[:, :, ::-1]).all() for a, b in zip(varied, plain, strict=True)]
    is_plain = [(a == b).all() for a, b in zip(varied, plain, strict=True)]
    assert all(a != b for a, b in zip(is_flipped, is_plain, strict=True))
    assert 8 < sum(is_flipped) < 32


def test_decoding_gives_rgb_of_one_size() -> None:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.full((4, 6), 200, np.uint8)).save(stream, "png")
    pixels = decode_image(stream.getvalue(), 8)
    assert pixels.shape == (8, 8, 3)
    assert (pixels == 200).all()


def test_text_and_image_side_by_side(bert_tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"text": f"the cat is good {i}", "label": "ab"[i % 2]} for i in range(6)]
    texts, _ = encoded("sequence_classification", bert_tokenizer, tmp_path, rows)
    table = JointTable(texts, pictures())
    mean, std = NORMALISATIONS["imagenet"]
    collate = MultimodalCollator(ClassCollator(0), ImageCollator(mean, std))
    batch = collate(table, np.array([1, 4]))
    assert batch.inputs.keys() == {"input_ids", "attention_mask", "pixel_values"}
    assert batch.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(
        batch.inputs["pixel_values"],
        ImageCollator(mean, std)(table.images, np.array([1, 4])).inputs["pixel_values"],
    )
    assert table.lengths.tolist() == (texts.lengths + 1).tolist()
    with pytest.raises(ValueError, match="both make `attention_mask`"):
        MultimodalCollator(ClassCollator(0), ClassCollator(0))(JointTable(texts, texts), np.array([0]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="6 texts cannot be joined with 5 images"):
        JointTable(texts, pictures(5))


def test_without_rows_every_collator_makes_a_stand_in(
    bert_tokenizer: Any, t5_tokenizer: Any, maskable: MaskableTable, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    labelled = [{"text": "the cat", "label": "a"}, {"text": "the dog", "label": "b"}]
    classes, _ = encoded("sequence_classification", bert_tokenizer, tmp_path / "a", labelled)
    tagged = [{"tokens": ["the", "cat"], "tags": ["a", "b"]}]
    tags, _ = encoded("token_classification", bert_tokenizer, tmp_path / "b", tagged)
    pairs, _ = encoded("seq2seq", t5_tokenizer, tmp_path / "c", [{"prompt": "one", "completion": "two"}])
    mean, std = NORMALISATIONS["half"]
    both = MultimodalCollator(ClassCollator(0), ImageCollator(mean, std))
    for collate, table in (
        (ClassCollator(0), classes),
        (TagCollator(0), tags),
        (PairCollator(0), pairs),
        (MaskingCollator(0, 4, 90, 0), maskable),
        (ImageCollator(mean, std), pictures()),
        (both, JointTable(classes, pictures(2))),
    ):
        batch = collate(table, NONE)  # type: ignore[operator]
        assert (batch.labels == IGNORED_LABEL).all(), collate
        assert batch.num_tokens == 0
        assert all(len(value) == 1 for value in batch.inputs.values()), collate


def test_causal_rows_are_as_before(bert_tokenizer: Any, tmp_path: Path) -> None:
    table, artifact = encoded("causal_lm", bert_tokenizer, tmp_path, [{"text": "the cat"}, {"text": "a dog"}])
    assert read_labels(artifact) is None
    assert PaddedCollator(0)(table, np.array([0])).labels.shape == (1, 4)
