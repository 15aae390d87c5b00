"""The graph that both exporters write: tokens and their mask go in, logits come out, for any number of either."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"


class Logits(nn.Module):
    """Rows may be padded on either side: positions are counted from the first token that is not masked."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.counts_positions = "position_ids" in inspect.signature(model.forward).parameters

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        more: dict[str, Any] = {}
        if self.counts_positions:
            more["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, **more}
        return self.model(**given, use_cache=False, return_dict=True).logits


def trace(model: Any) -> ExportedProgram:
    """The graph of a model, without the paths of the files that its code stands in."""
    rows = torch.ones((2, 7), dtype=torch.long)
    mask = torch.ones_like(rows)
    mask[1, :2] = 0
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    shapes = dict.fromkeys(INPUTS, dynamic)
    with torch.no_grad(), warnings.catch_warnings():
        # PyTorch warns of what PyTorch does.
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.export.export(Logits(model).eval(), (rows, mask), dynamic_shapes=shapes, strict=False)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program
