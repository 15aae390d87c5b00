"""A prompt as a model read it, taken apart into what each side said; the usual chat templates' marks are known."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ROLES = r"(?P<role>system|user|assistant|model|tool)"
_FORMS = tuple(
    re.compile(rf"{begin}(?P<text>.*?)(?:{end}|\Z)", re.DOTALL)
    for begin, end in (
        (rf"<\|im_start\|>{_ROLES}\n", r"<\|im_end\|>"),  # ChatML
        (rf"<\|start_header_id\|>{_ROLES}<\|end_header_id\|>\s*", r"<\|eot_id\|>"),  # Llama 3
        (rf"<start_of_turn>{_ROLES}\n", r"<end_of_turn>"),  # Gemma
        (
            rf"<\|{_ROLES}\|>\n",
            r"<\|end\|>|<\|endoftext\|>|</s>|(?=<\|(?:system|user|assistant)\|>)",
        ),  # Phi, Zephyr
    )
)
_BETWEEN = re.compile(r"(?:\s|<bos>|<s>|<\|begin_of_text\|>|<\|endoftext\|>)*")
"""What may stand around turns and says nothing."""
_MARK = re.compile(r"<\|[a-z_]+\|>|</?s>|<(?:start|end)_of_turn>|<bos>")


@dataclass(frozen=True)
class Turn:
    role: str
    text: str


def turns_of(prompt: str) -> list[Turn] | None:
    """Who said what; None where any of it is not of one known form, or a mark would be left in a text.

    The empty turn that asks for the answer is left out.
    """
    for form in _FORMS:
        turns, at = [], _after(prompt, 0)
        while found := form.match(prompt, at):
            turns.append(Turn(found["role"], found["text"].strip("\n")))
            at = _after(prompt, found.end())
        said = [one for one in turns if one.text.strip()]
        if said and at == len(prompt) and not any(_MARK.search(one.text) for one in said):
            return said
    return None


def _after(prompt: str, at: int) -> int:
    found = _BETWEEN.match(prompt, at)
    return at if found is None else found.end()
