"""What each task means to transformers and to PEFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raytrain.data.tasks import TaskName


@dataclass(frozen=True)
class ModelTask:
    """`auto_class` is transformers' class that loads such a model; `peft_type` is PEFT's name of the task, None where
    PEFT knows none."""

    auto_class: str
    peft_type: str | None
    described: str

    def load_class(self) -> Any:
        """transformers' class itself; imported on the first call."""
        import transformers

        return getattr(transformers, self.auto_class)


MODEL_TASKS: dict[TaskName, ModelTask] = {
    "causal_lm": ModelTask("AutoModelForCausalLM", "CAUSAL_LM", "a causal language model"),
    "sequence_classification": ModelTask(
        "AutoModelForSequenceClassification", "SEQ_CLS", "a model that can classify texts"
    ),
    "token_classification": ModelTask(
        "AutoModelForTokenClassification", "TOKEN_CLS", "a model that can classify tokens"
    ),
    "masked_lm": ModelTask("AutoModelForMaskedLM", None, "a masked language model"),
    "seq2seq": ModelTask("AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM", "an encoder-decoder model"),
    "image_classification": ModelTask(
        "AutoModelForImageClassification", None, "a model that can classify images"
    ),
}
