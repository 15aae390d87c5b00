"""Every error raised on purpose, named by who is at fault.

Each carries three sentences for the person who reads it: what happened, why, and what to do. The command line prints
them, `--json` prints them as an object, and the process ends with `exit_code`.
"""

from __future__ import annotations

from typing import ClassVar


class PlatformError(Exception):
    """Root of all errors that raytrain raises on purpose.

    Survives pickling, so that an error raised in a Ray worker reaches the driver whole.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "unexpected"

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n  why: {self.why}\n  fix: {self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.why, self.fix))

    @property
    def line(self) -> str:
        """What and why, for a table, a log or another error's why."""
        return f"{self.what}: {self.why}"

    def as_dict(self) -> dict[str, str]:
        """The object that `--json` prints under `error`."""
        return {"kind": self.kind, "what": self.what, "why": self.why, "fix": self.fix}


def _rebuild(error_type: type[PlatformError], what: str, why: str, fix: str) -> PlatformError:
    return error_type(what, why=why, fix=fix)


def line_of(error: Exception) -> str:
    """As `PlatformError.line`, of an exception that may be anybody's: its type tells what."""
    return error.line if isinstance(error, PlatformError) else f"{type(error).__name__}: {error}"


class ConfigError(PlatformError, ValueError):
    """The recipe, an override or the command line is wrong. Exit code 2."""

    exit_code = 2
    kind = "config"


class DataError(PlatformError, ValueError):
    """The rows cannot be used: missing, empty, or too many rejected. Exit code 3."""

    exit_code = 3
    kind = "data"


class TrainingError(PlatformError, RuntimeError):
    """A run cannot go on: bad gradients, a worker that keeps dying, a run that is already going. Exit code 4."""

    exit_code = 4
    kind = "training"


class DivergedError(TrainingError):
    """The gradients or the loss of a run are no numbers any more. Exit code 4."""


class ClusterError(PlatformError, RuntimeError):
    """Ray cannot be reached or cannot give what was asked for. Exit code 4."""

    exit_code = 4
    kind = "cluster"


class EndpointError(PlatformError, ConnectionError):
    """An HTTP endpoint does not answer, or not as its API says. Exit code 4."""

    exit_code = 4
    kind = "endpoint"


class MachineError(PlatformError, RuntimeError):
    """This machine was too busy or too small to finish what was asked. Exit code 4."""

    exit_code = 4
    kind = "machine"


class StorageError(PlatformError, OSError):
    """A place to write is full, read-only or gone. Exit code 4."""

    exit_code = 4
    kind = "storage"


class IntegrityError(PlatformError, RuntimeError):
    """What was read is not what was written, or does not belong to this run. Exit code 5."""

    exit_code = 5
    kind = "integrity"


class NotRegisteredError(PlatformError, LookupError):
    """A registry has no such name, version or alias. Exit code 5."""

    exit_code = 5
    kind = "not_registered"


class RefusedError(PlatformError, RuntimeError):
    """A gate does not let this through: unlike conditions, a limit, a missing signature. Exit code 5."""

    exit_code = 5
    kind = "refused"
