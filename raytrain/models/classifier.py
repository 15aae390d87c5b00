"""Classifiers over one base model: the body that all of them share, and the head that each has of its own."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raytrain.errors import ConfigError
from raytrain.models.base import load_base_model
from raytrain.models.heads import ClassHead
from raytrain.models.inference import InferenceModel, LoadedModel
from raytrain.models.model_files import first_line
from raytrain.models.packing_proof import stretches_positions


def writes_text(folder: Path) -> bool:
    """Whether a base model's files are of a causal language model, as far as its config.json tells: transformers would
    load BERT as one, with layers that are not in the files."""
    from transformers.models.auto import modeling_auto

    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    written = config.get("architectures") or []
    others = (
        modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_MAPPING_NAMES,
    )
    writing = set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    reading = {one for names in others for one in names.values()} - writing
    return not (written and written[0] in reading)


def load_body(found: InferenceModel, device: str | torch.device = "cpu") -> LoadedModel:
    """A base model that does not write, such as BERT; the head on it is none that anybody trained. Raises as
    `InferenceModel.load`."""
    section = found.section.model_copy(update={"task": "sequence_classification"})
    model = load_base_model(found.base, section, device=device, head=ClassHead(("0", "1")))
    return LoadedModel(model.eval(), found.load_tokenizer(), found.base, adapted=False)


class _Given(nn.Module):
    """In place of the body in a classifier of transformers: it gives what the body that all share has read."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler
        self.hidden: Tensor

    def forward(self, *_: Any, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

        pooled = None if self.pooler is None else self.pooler(self.hidden)
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=self.hidden,
            pooler_output=pooled,
        )


class Head:
    """What one classifier has besides its adapter: transformers' own, whatever it is made of."""

    def __init__(self, model: Any, given: _Given, num_bytes: int) -> None:
        self._model, self._given = model, given
        self.num_bytes = num_bytes

    def logits(self, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """(rows, classes), float32, of what the body has read of these rows."""
        self._given.hidden = hidden.float()
        try:
            found: Tensor = self._model(input_ids=ids, attention_mask=mask).logits
            return found.float()
        finally:
            del self._given.hidden


class ClassifierTrunk:
    """The body of a base model, its modules under the names that they have in a classifier. For one thread."""

    def __init__(self, model: Any, pad_id: int) -> None:
        """model: a transformers model with the body in it, as it was loaded. Its weights are shared, and nothing else:
        what is put around the modules of the one does not touch the other."""
        self._prefix = str(model.base_model_prefix) or "model"
        body = getattr(model, self._prefix, model)
        shared = {id(one): one for one in body.parameters()}
        self._body: Any = copy.deepcopy(body, shared).eval()
        self.module = nn.Module()
        self.module.add_module(self._prefix, self._body)
        self._config = copy.deepcopy(model.config)
        self._config.get_text_config().pad_token_id = pad_id
        self.pad_id = pad_id
        self.is_alone = stretches_positions(body)
        """Whether no row may be read beside another."""
        self.max_positions = _positions_of(self._body, self._config)
        takes = inspect.signature(self._body.forward).parameters
        self._more = {"use_cache": False} if "use_cache" in takes else {}

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(rows, tokens, hidden size); padding stands right of a row."""
        hidden: Tensor = self._body(input_ids=ids, attention_mask=mask, **self._more)[0]
        return hidden

    def build_head(self, num_classes: int, tensors: Mapping[str, Tensor]) -> Head:
        """tensors: by their names in transformers' classifier. Raises ConfigError where they are not the whole head of
        one over this body."""
        from transformers import AutoModelForSequenceClassification

        config = copy.deepcopy(self._config)
        config.num_labels = num_classes
        try:
            with torch.device("meta"):
                # Any other dtype would meanwhile be the default of all threads, of those that compute as well.
                model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        except ValueError as error:
            raise _misfit(first_line(error)) from error
        if not hasattr(model, self._prefix):
            raise _misfit(f"{type(model).__name__} has no {self._prefix}")
        given = _Given(getattr(getattr(model, self._prefix), "pooler", None))
        setattr(model, self._prefix, given)
        _check_names(model.state_dict().keys(), tensors.keys())
        on_device = {name: one.to(self.device, torch.float32) for name, one in tensors.items()}
        try:
            model.load_state_dict(on_device, assign=True)
        except RuntimeError as error:
            raise _misfit(" ".join(str(error).split())[:300]) from error
        size = sum(one.nbytes for one in on_device.values())
        return Head(model.requires_grad_(requires_grad=False).eval(), given, size)


def _positions_of(body: Any, config: Any) -> int | None:
    """Tokens that fit; RoBERTa and its like count positions from behind the padding's number."""
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    if most is None:
        return None
    embedded = getattr(getattr(body, "embeddings", None), "position_embeddings", None)
    skipped = getattr(embedded, "padding_idx", None)
    return int(most) - (0 if skipped is None else int(skipped) + 1)


def _check_names(wanted: Any, given: Any) -> None:
    missing, foreign = sorted(wanted - given), sorted(given - wanted)
    if missing:
        raise _misfit(f"the head's {missing[0]} is not in it")
    if foreign:
        raise _misfit(f"{foreign[0]} is no part of the head")


def _misfit(why: str) -> ConfigError:
    return ConfigError(
        "the classifier does not fit the base model",
        why=why,
        fix="serve it over the model it was trained on; with an adapter the head is trained whole and nothing else is",
    )
