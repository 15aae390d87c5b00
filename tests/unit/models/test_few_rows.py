from __future__ import annotations

import pytest
import torch
from torch import nn

from raytrain.models.decoding import few_rows
from raytrain.models.decoding.few_rows import FEWEST_ROWS, MOST_ROWS, few_rows_fast


class Asked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain, self.biased = nn.Linear(6, 10), nn.Linear(10, 4, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.biased(self.plain(inputs))


@pytest.mark.parametrize("num_rows", [1, FEWEST_ROWS - 1, FEWEST_ROWS, 16, MOST_ROWS, MOST_ROWS + 1])
@pytest.mark.parametrize("shape", [(-1, 6), (-1, 1, 6), (1, -1, 6)])
def test_outputs_are_the_same(num_rows: int, shape: tuple[int, ...]) -> None:
    model, inputs = Asked(), torch.randn(num_rows * 6).view(shape)
    with torch.inference_mode():
        wanted = model(inputs)
        with few_rows_fast(model):
            found = model(inputs)
    assert found.shape == wanted.shape and found.is_contiguous()
    assert (found - wanted).abs().max() < 1e-5


def test_only_few_rows_go_the_other_way_about_and_the_model_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turned: list[int] = []
    product = few_rows.turned_product

    def counted(module: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        turned.append(inputs.shape[1])
        return product(module, inputs)

    monkeypatch.setattr(few_rows, "turned_product", counted)
    model = Asked()
    with torch.inference_mode(), few_rows_fast(model):
        for num_rows in (1, 8, 100):
            model(torch.randn(num_rows, 6))
    model(torch.randn(8, 6))
    assert turned == [8, 8]
    assert "forward" not in vars(model.plain)


def test_other_dtypes_and_kinds_of_modules_are_left_alone() -> None:
    class Own(nn.Linear):
        """Might keep its weight in another way."""

    model = nn.Sequential(nn.Linear(2, 2).bfloat16(), Own(2, 2))
    with few_rows_fast(model):
        assert all("forward" not in vars(module) for module in model)
