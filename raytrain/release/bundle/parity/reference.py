"""What the trained model answers: the measure of every exported one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.errors import DataError, IntegrityError
from raytrain.models.inference import LoadedModel
from raytrain.models.text_generation import encode_prompt, end_tokens_of
from raytrain.release.bundle.parity.prompts import Prompt
from raytrain.release.bundle.parity.section import ExportCheckSection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Answer:
    """`logits` are of the prompt's tokens and of those that follow it; a classifier's are one row, of its classes."""

    prompt: Prompt
    ids: list[int]
    tokens: list[int]
    """What the trained model goes on with, always the likeliest; an end token is the last."""
    most_tokens: int
    """Where the prompt was cut, if it was that long."""
    logits_file: Path

    def logits(self) -> NDArray[np.float32]:
        import numpy as np

        found: NDArray[np.float32] = np.load(self.logits_file, allow_pickle=False)
        return found


def answers_of(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    section: ExportCheckSection,
    scratch: Path,
    tell: Callable[[str], None],
) -> list[Answer]:
    """One answer a prompt; its logits go to a file in `scratch`.

    Raises IntegrityError where the trained model answers with what is no number, DataError where a prompt is empty.
    """
    import numpy as np
    import torch

    model: Any = loaded.model
    tell(f"asking the trained model {len(prompts)} prompts")
    room = getattr(model.config, "max_position_embeddings", None) or section.max_prompt_tokens * 2
    most = max(1, min(section.max_prompt_tokens, room - section.max_new_tokens))
    writes = loaded.task == "causal_lm"
    more = {"use_cache": False} if writes else {}
    answers = []
    with torch.inference_mode():
        for number, prompt in enumerate(prompts):
            ids = encode_prompt(loaded.tokenizer, prompt.asked)[:most]
            if not ids:
                raise DataError(
                    f"the prompt `{prompt.id}` is empty", why="it has no tokens", fix="leave it out"
                )
            tokens = _continued(model, loaded.tokenizer, ids, section.max_new_tokens) if writes else []
            row = torch.tensor([[*ids, *tokens]], device=model.device)
            found = model(input_ids=row, **more).logits
            logits = found.reshape(-1, found.shape[-1]).float().cpu().numpy()
            _check_finite(logits, prompt)
            file = scratch / f"reference-{number}.npy"
            np.save(file, logits)
            answers.append(Answer(prompt, ids, tokens, most, file))
    return answers


def _continued(model: Any, tokenizer: Any, ids: list[int], most: int) -> list[int]:
    import torch
    from transformers import GenerationConfig

    own = model.generation_config
    ends = end_tokens_of(model, tokenizer)
    row = torch.tensor([ids], device=model.device)
    try:
        # Penalties and the like that a base model asks for are no part of what is compared.
        model.generation_config = GenerationConfig()
        settings = GenerationConfig(
            max_new_tokens=most,
            do_sample=False,
            eos_token_id=ends or None,
            pad_token_id=tokenizer.pad_token_id,
        )
        output = model.generate(
            input_ids=row, attention_mask=torch.ones_like(row), generation_config=settings
        )
    finally:
        model.generation_config = own
    return list(output[0, len(ids) :].tolist())


def _check_finite(logits: NDArray[np.float32], prompt: Prompt) -> None:
    import numpy as np

    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise IntegrityError(
            "the trained model answers with what is no number",
            why=f"prompt `{prompt.id}`, position {int(bad[0])}",
            fix="do not release it; look at its training, or take an earlier checkpoint",
        )
