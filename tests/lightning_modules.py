"""LightningModules as users write them, around a model that they are given."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch.nn import functional


class Chat(lightning.LightningModule):
    """The mean over targets that transformers gives."""

    def __init__(self, model: torch.nn.Module, lr: float = 1e-2, eps: float = 1e-8) -> None:
        super().__init__()
        self.model = model
        self.lr = lr
        self.eps = eps

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.model(**batch).loss
        self.log("own_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        loss: torch.Tensor = self.model(**batch).loss
        self.log_dict({"own_loss": loss, "always_two": 2.0})
        return {"loss": loss}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(parameters, lr=self.lr, eps=self.eps, weight_decay=0.0)


class ByRow(Chat):
    """The mean over rows of each row's mean, by a step without `batch_idx`."""

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
        losses = _token_losses(self.model, batch)
        counts = (batch["labels"][:, 1:] != -100).sum(dim=1)
        return (losses.sum(dim=1) / counts.clamp(min=1)).sum() / (counts > 0).sum()

    def validation_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
        return self.training_step(batch)


class Summed(Chat):
    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return _token_losses(self.model, batch).sum()


class Mixed(ByRow):
    """Trains by the mean over rows, and is evaluated by the mean over targets."""

    def validation_step(self, batch: dict[str, torch.Tensor]) -> Any:  # type: ignore[override]
        return Chat.validation_step(self, batch, 0)


class Worst(Chat):
    """The largest loss of a token: nothing that could be added up."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return _token_losses(self.model, batch).max()


class AllPositions(Chat):
    """The commonest mistake: the mean counts prompt and padding."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return _token_losses(self.model, batch).mean()


class Breaks(Chat):
    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.model(**batch).loss * batch["weights"]


class NotANumber(Chat):
    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.model(**batch).loss * float("nan")


class Follows(Chat):
    """Notes where each step believes the run to be."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model)
        self.register_buffer("seen", torch.zeros(1))
        self.places: list[tuple[str, int, int, int]] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.places.append(("train", self.global_step, self.current_epoch, batch_idx))
        self.log("half", 0.5)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        self.places.append(("eval", self.global_step, self.current_epoch, batch_idx))
        return super().validation_step(batch, batch_idx)


class Distils(Chat):
    """A frozen teacher beside the model is no weight of the module's own."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model)
        self.teacher = torch.nn.Linear(2, 2).requires_grad_(False)


class Nothing(Chat):
    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:  # type: ignore[override]
        self.model(**batch)


class Vector(Chat):
    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return _token_losses(self.model, batch)


class Manual(Chat):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model)
        self.automatic_optimization = False


class Accumulates(Chat):
    def __init__(self, model: torch.nn.Module, accumulate_grad_batches: int = 4) -> None:
        super().__init__(model)
        self.save_hyperparameters("accumulate_grad_batches")


class Schedules(Chat):
    def configure_callbacks(self) -> list[Any]:
        from lightning.pytorch.callbacks import GradientAccumulationScheduler

        return [GradientAccumulationScheduler({0: 4})]


class Clips(Chat):
    def configure_gradient_clipping(self, *arguments: Any, **options: Any) -> None:
        raise AssertionError("would clip by itself")


class OwnHead(Chat):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model)
        self.head = torch.nn.Linear(2, 2)


class Forgets(Chat):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(torch.nn.Identity())


class NoLightning:
    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model


def _token_losses(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(rows, length - 1): cross-entropy of each next token, 0 where there is no label."""
    labels = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs).logits[:, :-1]
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100, reduction="none"
    ).view(len(labels), -1)
