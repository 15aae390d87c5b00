from __future__ import annotations

import pytest
import torch
from torch import nn

from raytrain.models.decoding.few_rows import few_rows_fast
from raytrain.models.decoding.packed_weights import (
    FEWEST_ROWS,
    NUM_ROWS,
    can_pack,
    packed_bytes,
    packed_weights,
)

pytestmark = pytest.mark.skipif(not can_pack(), reason="this PyTorch has no MKL")


class Asked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain, self.biased = nn.Linear(6, 10, bias=False), nn.Linear(10, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.biased(self.plain(inputs))


@pytest.mark.parametrize("num_rows", [1, FEWEST_ROWS - 1, FEWEST_ROWS, 7, NUM_ROWS, NUM_ROWS + 1, 100])
@pytest.mark.parametrize("shape", [(-1, 6), (-1, 1, 6), (1, -1, 6)])
def test_outputs_are_the_same(num_rows: int, shape: tuple[int, ...]) -> None:
    model, inputs = Asked(), torch.randn(num_rows * 6).view(shape)
    with torch.inference_mode():
        wanted = model(inputs)
        with packed_weights(model), few_rows_fast(model):
            found = model(inputs)
        again = model(inputs)
    assert found.shape == wanted.shape and found.is_contiguous()
    assert (found - wanted).abs().max() < 1e-5
    assert torch.equal(again, wanted) and "forward" not in vars(model.plain)


def test_the_packed_form_is_what_is_multiplied() -> None:
    """It was made at the beginning: a weight that is changed, as none may be, is seen by other numbers of rows only."""
    model = nn.Linear(6, 10)
    with torch.inference_mode(), packed_weights(model):
        before = model(torch.ones(NUM_ROWS, 6))
        model.weight.zero_()
        assert torch.equal(model(torch.ones(NUM_ROWS, 6)), before)
        assert torch.equal(model(torch.ones(1, 6))[0], model.bias)


def test_a_row_s_outputs_do_not_depend_on_how_many_others_there_are() -> None:
    model, inputs = nn.Linear(576, 1536), torch.randn(NUM_ROWS, 576)
    with torch.inference_mode(), packed_weights(model):
        all_of_them = model(inputs)
        for num_rows in (FEWEST_ROWS, 5, 11):
            assert torch.equal(model(inputs[:num_rows]), all_of_them[:num_rows])


def test_other_dtypes_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2).bfloat16(), nn.Linear(2, 3))
    assert packed_bytes(model) == 2 * 3 * 4
    with packed_weights(model):
        assert ["forward" in vars(module) for module in model] == [False, True]
