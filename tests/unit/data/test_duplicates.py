from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from raytrain.data.duplicates import Duplicates, FingerprintFiles, _follow_to_the_first, find_duplicates
from raytrain.data.fingerprints import choose_bands, content_hash, shingle_hashes, signatures

WORDS = [
    f"{first}{second}" for first in ("ba", "ke", "li", "mo", "nu", "ra") for second in "abcdefghijklmnop"
]


def sentence(generator: random.Random, length: int) -> list[str]:
    return [generator.choice(WORDS) for _ in range(length)]


def search(folder: Path, texts: list[str], threshold: float | None = 0.8, batch: int = 7) -> Duplicates:
    with FingerprintFiles(folder, threshold) as files:
        for begin in range(0, len(texts), batch):
            part = texts[begin : begin + batch]
            files.add([content_hash(text) for text in part], [text.encode() for text in part])
    return find_duplicates(files)


def jaccard(left: str, right: str) -> float:
    hashes, offsets = shingle_hashes([left.encode(), right.encode()])
    one, two = set(hashes[: offsets[1]].tolist()), set(hashes[offsets[1] :].tolist())
    return len(one & two) / len(one | two)


def test_planted_near_duplicates_are_found_and_nothing_else(tmp_path: Path) -> None:
    generator = random.Random(3)
    originals = [sentence(generator, 60) for _ in range(200)]
    copies = []
    for place in range(0, 200, 10):
        changed = list(originals[place])
        changed[30] = "otherword"
        copies.append(changed)
    texts = [" ".join(words) for words in (*originals, *copies)]
    found = search(tmp_path / "scratch", texts)
    assert found.duplicate_of[:200].tolist() == [-1] * 200
    assert found.duplicate_of[200:].tolist() == list(range(0, 200, 10))
    assert not found.is_exact.any()
    assert not found.search_was_cut


def test_exact_duplicates_point_to_the_first(tmp_path: Path) -> None:
    found = search(tmp_path / "scratch", ["a", "b", "a", "c", "b", "a"], threshold=None, batch=2)
    assert found.duplicate_of.tolist() == [-1, -1, 0, -1, 1, 0]
    assert found.is_exact.tolist() == [False, False, True, False, True, True]


def test_a_group_keeps_its_first_row(tmp_path: Path) -> None:
    base = sentence(random.Random(5), 100)
    variants = [
        " ".join([*base[:place], f"variant{place}", *base[place + 1 :]]) for place in (10, 40, 70, 99)
    ]
    found = search(tmp_path / "scratch", [" ".join(base), *variants])
    assert found.duplicate_of.tolist() == [-1, 0, 0, 0, 0]


def test_rows_without_words_and_short_rows_are_not_alike(tmp_path: Path) -> None:
    texts = ["", "!!!", "???", "one", "two words", "2 + 2 is 4", "2 - 2 is 0", "2 + 3 is 5"]
    assert search(tmp_path / "scratch", texts).duplicate_of.tolist() == [-1] * len(texts)


def test_the_result_does_not_depend_on_batches(tmp_path: Path) -> None:
    generator = random.Random(11)
    texts = [" ".join(sentence(generator, 12) * 2) for _ in range(60)]
    texts += [text + " end" for text in texts[::3]] + texts[:5]
    one = search(tmp_path / "one", texts, batch=1)
    all_at_once = search(tmp_path / "all", texts, batch=1000)
    assert one.duplicate_of.tolist() == all_at_once.duplicate_of.tolist()
    assert (one.duplicate_of >= 0).sum() >= 5


def test_too_many_look_alikes_end_the_search_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raytrain.data.duplicates._MOST_COMPARISONS_PER_ROW", 0)
    base = " ".join(sentence(random.Random(5), 40))
    assert search(tmp_path / "scratch", [base + " x", base + " y", base + " z"]).search_was_cut


def test_estimate_is_near_the_true_similarity() -> None:
    generator = random.Random(2)
    base = sentence(generator, 80)
    other = [*base[:60], *sentence(generator, 20)]
    left, right = " ".join(base), " ".join(other)
    matrix, comparable = signatures([left.encode(), right.encode()])
    assert comparable.all()
    assert abs(float((matrix[0] == matrix[1]).mean()) - jaccard(left, right)) < 0.15


def test_shingles_ignore_case_and_punctuation_but_not_operators() -> None:
    assert jaccard("Hello, big world! Yes", "hello big world yes") == 1.0
    assert jaccard("is 2 + 3 so", "is 2 - 3 so") == 0.0
    assert jaccard("\u4eca\u65e5\u306f\u6674\u308c\u3067\u3059", "\u4eca\u65e5\u306f\u96e8\u3067\u3059") > 0.1


def test_shingles_do_not_depend_on_neighbours() -> None:
    texts = [b"one two three four", b"", b"five six", b"seven eight nine"]
    together, offsets = shingle_hashes(texts)
    assert np.diff(offsets.astype(int)).tolist() == [2, 0, 0, 1]
    alone = np.concatenate([shingle_hashes([text])[0] for text in texts])
    assert together.tolist() == alone.tolist()


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_99_percent_at_the_threshold(threshold: float) -> None:
    bands, width = choose_bands(threshold)
    assert bands * width <= 128
    assert 1 - (1 - threshold**width) ** bands >= 0.99


def test_chains_lead_to_the_row_that_stays() -> None:
    duplicate_of = np.array([-1, 0, 1, 2, -1, 3], np.int32)
    _follow_to_the_first(duplicate_of)
    assert duplicate_of.tolist() == [-1, 0, 0, 0, -1, 0]
