"""What a person or a program sees of a run while it goes on."""

from __future__ import annotations

from typing import Protocol


class RunObserver(Protocol):
    """Called on the driver, in one thread, in the order in which things happen."""

    def phase(self, text: str, seconds: float | None) -> None:
        """A part of the start-up begins (seconds is None) or has ended."""

    def plan(
        self, *, run_id: str, max_steps: int, global_step: int, num_rows: int, num_trainable: int
    ) -> None:
        """The first step is about to be made; `global_step` are done already. Called again after a worker died."""

    def metrics(self, global_step: int, metrics: dict[str, float]) -> None:
        """Measured at one step."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def stop_reason(self) -> str | None:
        """Why the run should save and end now; None while it should go on. Asked several times a second."""


class Silent:
    """An observer that looks away."""

    def phase(self, text: str, seconds: float | None) -> None:
        """Nothing to show."""

    def plan(
        self, *, run_id: str, max_steps: int, global_step: int, num_rows: int, num_trainable: int
    ) -> None:
        """Nothing to show."""

    def metrics(self, global_step: int, metrics: dict[str, float]) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """Nothing to show."""

    def stop_reason(self) -> str | None:
        """Nothing to ask for."""
        return None
