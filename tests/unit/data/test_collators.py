from __future__ import annotations

import numpy as np
import pytest

from raytrain.data.collators import IGNORED_LABEL, Collator, PackedCollator, PaddedCollator
from raytrain.data.tokens import TokenTable

ignored = IGNORED_LABEL


@pytest.fixture
def two_rows() -> TokenTable:
    return TokenTable(
        np.array([5, 6, 7, 8, 9], np.int32),
        np.array([0, 3, 5], np.int64),
        ["a", "b"],
        np.array([0, 1, 1, 1, 1], np.uint8),
    )


def test_padding_is_on_the_right_and_carries_no_label(two_rows: TokenTable) -> None:
    micro = PaddedCollator(pad_id=99)(two_rows, np.array([1, 0]))
    assert micro.inputs["input_ids"].tolist() == [[8, 9, 99], [5, 6, 7]]
    assert micro.inputs["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert micro.labels.tolist() == [[8, 9, ignored], [ignored, 6, 7]]
    assert micro.num_tokens == 5


def test_packed_rows_begin_at_position_zero_and_their_first_token_is_no_target(two_rows: TokenTable) -> None:
    micro = PackedCollator()(two_rows, np.array([1, 0]))
    assert micro.inputs["input_ids"].tolist() == [[8, 9, 5, 6, 7]]
    assert micro.inputs["position_ids"].tolist() == [[0, 1, 0, 1, 2]]
    assert micro.inputs["document_ends"] == [2, 5]
    assert micro.labels.tolist() == [[ignored, 9, ignored, 6, 7]]
    assert micro.num_tokens == 5


@pytest.mark.parametrize("collate", [PaddedCollator(0), PackedCollator()])
def test_a_worker_without_rows_keeps_its_place_and_learns_nothing(
    collate: Collator, two_rows: TokenTable
) -> None:
    micro = collate(two_rows, np.zeros(0, np.int64))
    assert micro.inputs["input_ids"].shape == (1, 3)
    assert (micro.labels == ignored).all()
    assert micro.num_tokens == 0
