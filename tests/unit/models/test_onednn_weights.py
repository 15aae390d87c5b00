from __future__ import annotations

import pytest
import torch
from torch import nn

from raytrain.models import onednn_weights as module_under_test
from raytrain.models.machine import has_bfloat16
from raytrain.models.onednn_weights import FEWEST_ROWS, can_use_onednn, onednn_bytes, onednn_weights

pytestmark = pytest.mark.skipif(not can_use_onednn(), reason="this PyTorch has no oneDNN")


class Asked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain, self.biased = nn.Linear(6, 10, bias=False), nn.Linear(10, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.biased(self.plain(inputs))


@pytest.mark.parametrize("num_rows", [1, FEWEST_ROWS - 1, FEWEST_ROWS, 7, 16, 100])
@pytest.mark.parametrize("shape", [(-1, 6), (-1, 1, 6), (1, -1, 6)])
def test_outputs_are_the_same(num_rows: int, shape: tuple[int, ...]) -> None:
    model, inputs = Asked(), torch.randn(num_rows * 6).view(shape)
    with torch.inference_mode():
        wanted = model(inputs)
        with onednn_weights(model):
            found = model(inputs)
        again = model(inputs)
    assert found.shape == wanted.shape and found.is_contiguous()
    assert (found - wanted).abs().max() < 1e-5
    assert torch.equal(again, wanted) and "forward" not in vars(model.plain)


def test_onednn_s_form_is_what_is_multiplied() -> None:
    """It was made at the beginning: a weight that is changed, as none may be, is not seen."""
    model, inputs = nn.Linear(6, 10), torch.ones(16, 6)
    with torch.inference_mode(), onednn_weights(model):
        before = model(inputs)
        model.weight.zero_()
        assert torch.equal(model(inputs), before)


def test_a_row_s_outputs_do_not_depend_on_how_many_others_there_are() -> None:
    for num_in, num_out in ((576, 1536), (1536, 576)):
        model, inputs = nn.Linear(num_in, num_out), torch.randn(64, num_in)
        with torch.inference_mode(), onednn_weights(model):
            all_of_them = model(inputs)
            for num_rows in (1, 2, 3, 5, 11, 16, 33):
                assert torch.equal(model(inputs[:num_rows]), all_of_them[:num_rows])


def test_gradients_and_narrower_products_go_the_usual_way() -> None:
    model, inputs = nn.Linear(6, 10), torch.ones(2, 6)
    with onednn_weights(model):
        model(inputs).sum().backward()
        assert model.weight.grad is not None
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert model(inputs).dtype == torch.bfloat16
        with torch.no_grad():
            assert model(inputs[:0]).shape == (0, 10)


def test_other_dtypes_and_kinds_of_modules_are_left_alone() -> None:
    class Own(nn.Linear):
        """Might keep its weight in another way."""

    model = nn.Sequential(nn.Linear(2, 2).half(), Own(2, 2), nn.Linear(2, 3))
    assert onednn_bytes(model) == 2 * 3 * 4
    with onednn_weights(model):
        assert ["forward" in vars(module) for module in model] == [False, False, True]


@pytest.mark.skipif(not has_bfloat16(), reason="this processor has no instructions for bfloat16")
@pytest.mark.parametrize("num_rows", [1, 3, 4, 11, 64])
def test_in_bfloat16_outputs_are_the_same_to_a_rounding(num_rows: int) -> None:
    model = nn.Sequential(nn.Linear(576, 1536), nn.Linear(1536, 576, bias=False)).bfloat16()
    inputs = torch.randn(num_rows, 576).bfloat16()
    with torch.inference_mode():
        wanted = model(inputs)
        with onednn_weights(model):
            assert all("forward" in vars(module) for module in model)
            torch.testing.assert_close(model(inputs), wanted, rtol=2**-7, atol=2**-7)


def test_where_the_processor_lacks_bfloat16_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_under_test, "has_bfloat16", lambda: False)
    assert onednn_bytes(nn.Linear(2, 3).bfloat16()) == 0


def test_where_memory_is_short_they_stay_as_they_are_and_it_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Linear(2, 3)
    monkeypatch.setattr(module_under_test, "free_memory_bytes", lambda: 2 * onednn_bytes(model) - 1)
    with onednn_weights(model):
        assert "forward" not in vars(model)
    assert "oneDNN's form of the weights takes" in caplog.text
