from __future__ import annotations

import pytest
import torch
from torch import nn

from raytrain.models.decoding import packed_weights as module_under_test
from raytrain.models.decoding.packed_weights import WORTH_USES, can_pack, packed_bytes, packed_weights

pytestmark = pytest.mark.skipif(not can_pack(), reason="this PyTorch has no oneDNN")


class Asked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain, self.biased = nn.Linear(6, 10, bias=False), nn.Linear(10, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.biased(self.plain(inputs))


def used(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The outputs of the first use for which the weights are packed."""
    for _ in range(WORTH_USES - 1):
        model(inputs)
    return model(inputs)


@pytest.mark.parametrize("num_rows", [1, 2, 7, 16, 100])
@pytest.mark.parametrize("shape", [(-1, 6), (-1, 1, 6), (1, -1, 6)])
def test_outputs_are_the_same(num_rows: int, shape: tuple[int, ...]) -> None:
    model, inputs = Asked(), torch.randn(num_rows * 6).view(shape)
    with torch.inference_mode():
        wanted = model(inputs)
        with packed_weights(model):
            found = used(model, inputs)
        again = model(inputs)
    assert found.shape == wanted.shape and found.is_contiguous()
    assert (found - wanted).abs().max() < 1e-5
    assert torch.equal(again, wanted) and "forward" not in vars(model.plain)


def test_the_packed_form_is_what_is_multiplied_once_it_is_worth_it() -> None:
    """It is made after a few uses: a weight that is changed, as none may be, is seen until then and not after."""
    model, inputs = nn.Linear(6, 10), torch.ones(16, 6)
    with torch.inference_mode(), packed_weights(model):
        before = used(model, inputs)
        model.weight.zero_()
        assert torch.equal(model(inputs), before)
    model = nn.Linear(6, 10)
    with torch.inference_mode(), packed_weights(model):
        model(inputs)
        model.weight.zero_()
        assert torch.equal(model(inputs)[0], model.bias)


def test_a_row_s_outputs_do_not_depend_on_how_many_others_there_are() -> None:
    for num_in, num_out in ((576, 1536), (1536, 576)):
        model, inputs = nn.Linear(num_in, num_out), torch.randn(64, num_in)
        with torch.inference_mode(), packed_weights(model):
            all_of_them = used(model, inputs)
            for num_rows in (2, 3, 5, 11, 16, 33):
                assert torch.equal(model(inputs[:num_rows]), all_of_them[:num_rows])


def test_gradients_and_narrower_products_go_the_usual_way() -> None:
    model, inputs = nn.Linear(6, 10), torch.ones(2, 6)
    with packed_weights(model):
        used(model, inputs).sum().backward()
        assert model.weight.grad is not None
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert model(inputs).dtype == torch.bfloat16
        with torch.no_grad():
            assert model(inputs[:0]).shape == (0, 10)


def test_other_dtypes_and_kinds_of_modules_are_left_alone() -> None:
    class Own(nn.Linear):
        """Might keep its weight in another way."""

    model = nn.Sequential(nn.Linear(2, 2).bfloat16(), Own(2, 2), nn.Linear(2, 3))
    assert packed_bytes(model) == 2 * 3 * 4
    with packed_weights(model):
        assert ["forward" in vars(module) for module in model] == [False, False, True]


def test_where_memory_is_short_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(2, 3)
    monkeypatch.setattr(module_under_test, "_room_bytes", lambda: packed_bytes(model) - 1)
    with packed_weights(model):
        assert "forward" not in vars(model)
