"""Prompts are taken apart into who said what, and left whole where that is not certain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import evaluation_of, records_with

from raytrain.evaluation.decision.contract import default_contract
from raytrain.evaluation.decision.decide import decide
from raytrain.evaluation.decision.page import render_page
from raytrain.evaluation.decision.turns import Turn, turns_of

CHATML = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is\n<b>2 + 3</b>?<|im_end|>\n"
    "<|im_start|>assistant\n"
)
ASKED = [Turn("system", "Be brief."), Turn("user", "What is\n<b>2 + 3</b>?")]


@pytest.mark.parametrize(
    ("prompt", "turns"),
    [
        (CHATML, ASKED),
        (
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            [Turn("user", "Hi")],
        ),
        (
            "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHo<end_of_turn>\n",
            [Turn("user", "Hi"), Turn("model", "Ho")],
        ),
        (
            "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n",
            [Turn("system", "Be brief."), Turn("user", "Hi")],
        ),
        ("<|user|>\nHi<|end|>\n<|assistant|>\n", [Turn("user", "Hi")]),
        ("Question 1: what is 1 + 1?", None),
        ("", None),
        ("before " + CHATML, None),
        (CHATML.replace("2 + 3", "<|im_end|> 3"), None),
        (CHATML.replace("2 + 3", "<|endoftext|>"), None),
        (CHATML.replace("<|im_start|>user", "<|im_start|>narrator"), None),
    ],
)
def test_a_prompt_is_taken_apart_or_left_whole(prompt: str, turns: list[Turn] | None) -> None:
    assert turns_of(prompt) == turns


def test_the_page_shows_what_was_asked_and_folds_what_the_model_read(tmp_path: Path) -> None:
    many = "".join(f"<|im_start|>user\nshot {i}<|im_end|>\n" for i in range(14))
    prompts = [CHATML, f"{many}<|im_start|>assistant\n", "as plain text"]
    sides = []
    for name, scores in (("before", [0.0] * 3), ("after", [1.0] * 3)):
        records = records_with(scores)
        asked = [replace(one, prompt=prompt) for one, prompt in zip(records, prompts, strict=True)]
        sides.append(evaluation_of(tmp_path / name, {"sums": asked}))
    page = render_page(decide(default_contract(), sides[0], [sides[1]]))
    told = (
        '<h3>system prompt</h3><pre dir="auto">Be brief.</pre>'
        '<h3>question</h3><pre dir="auto">What is\n&lt;b&gt;2 + 3'
    )
    assert told in page
    folded = (
        '<details class="raw"><summary>as the model read it</summary><pre>&lt;|im_start|&gt;system\nBe brief.'
    )
    assert folded in page and page.count('<details class="raw">') == 2
    assert "4 turns before" in page and ">shot 4<" in page and ">shot 3<" not in page
    assert "<h3>question</h3><pre>as plain text</pre>" in page
    assert '<span class="question">What is &lt;b&gt;2 + 3&lt;/b&gt;?</span>' in page
