"""Which precision a processor is slow at."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from raytrain.models.machine import has_bfloat16
from raytrain.training.precision import note_on

XEON_OF_2019 = {
    "avx512_f": True,
    "avx512_bw": True,
    "avx512_bf16": False,
    "amx_bf16": False,
    "cpu_name": "Xeon",
}
XEON_OF_2023 = XEON_OF_2019 | {"avx512_bf16": True, "amx_bf16": True}
ARM_WITH = {"neon": True, "bf16": True, "architecture": "aarch64"}
ARM_WITHOUT = {"neon": True, "bf16": False, "architecture": "aarch64"}
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "has_it"),
    [(XEON_OF_2019, False), (XEON_OF_2023, True), (ARM_WITH, True), (ARM_WITHOUT, False), ({}, False)],
)
def test_the_processor_s_instructions_tell(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any], has_it: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_bfloat16() is has_it
    assert (note_on(CPU, "bfloat16") is None) is has_it
    assert note_on(GPU, "bfloat16") is None and note_on(CPU, "float32") is None


def test_this_processor_is_asked_what_torch_says_of_it() -> None:
    told = torch.cpu.get_capabilities()
    if told["architecture"] == "x86_64":
        assert {"avx512_bf16", "amx_bf16"} <= told.keys(), "or every processor would be taken for one without"
    assert has_bfloat16() in (True, False)


def test_who_is_slow_is_told_what_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: XEON_OF_2019)
    assert "train.precision=float32" in str(note_on(CPU, "bfloat16"))
