"""What formats are made from: a trained model in memory, and the same with its adapter merged."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.models.inference import LoadedModel
from raytrain.models.quiet import quiet_loading, quiet_saving
from raytrain.models.text_generation import end_tokens_of
from raytrain.release.bundle.subject import Subject

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Material:
    """One trained model. Merging changes the model in place: what needs it as it was trained comes first."""

    def __init__(
        self, subject: Subject, loaded: LoadedModel, torchserve: dict[str, Any] | None = None
    ) -> None:
        self.subject = subject
        self.loaded = loaded
        self.torchserve = torchserve or {}
        """Keys of an archive's model-config.yaml, in place of the usual ones."""

    @cached_property
    def merged(self) -> PreTrainedModel:
        """Without a trace of PEFT."""
        model: Any = self.loaded.model
        if self.loaded.adapted:
            with quiet_loading():
                model = model.merge_and_unload(safe_merge=True)
        result: PreTrainedModel = model.eval()
        return result

    def write_description(self, folder: Path) -> None:
        """Tokenizer with chat template, config and generation settings."""
        model: Any = self.loaded.model
        with quiet_saving():
            self.loaded.tokenizer.save_pretrained(folder)
            model.config.save_pretrained(folder)
            if self.subject.writes:
                self._generation_settings(model).save_pretrained(folder)

    def _generation_settings(self, model: Any) -> Any:
        """The base model's own, with every token that ends an answer."""
        from transformers import GenerationConfig

        settings = GenerationConfig.from_dict(model.generation_config.to_dict())
        settings.eos_token_id = end_tokens_of(model, self.loaded.tokenizer) or None
        settings.pad_token_id = self.loaded.tokenizer.pad_token_id
        return settings
