"""Secrets of channels: where they lie, and how they are read. What is raised here never holds one."""

from __future__ import annotations

import os
from pathlib import Path

from raytrain.errors import ConfigError, RefusedError

_LONGEST = 64 * 1024


def read_secret(what: str, env: str | None, file: Path | None) -> str | None:
    """From the variable or the file, whichever is named; None where neither is.

    what: for messages, as in "the url of the webhook team". Raises ConfigError where it is not there or is empty,
    RefusedError where others may read the file.
    """
    if env is not None:
        value = os.environ.get(env, "").strip()
        if not value:
            raise ConfigError(
                f"{what} is not there",
                why=f"the environment variable {env} is not set, or empty",
                fix=f"set {env} where raytrain runs",
            )
        return value
    return None if file is None else _from_file(what, file.expanduser())


def _from_file(what: str, file: Path) -> str:
    try:
        handle = os.open(file, os.O_RDONLY)
        with os.fdopen(handle, "rb") as stream:
            mode = os.fstat(handle).st_mode & 0o777
            if mode & 0o077:
                raise RefusedError(
                    f"{what} lies in {file}, which is open to others",
                    why=f"its mode is {mode:03o}",
                    fix=f"chmod 600 {file}; then replace the secret if others were on this machine",
                )
            value = stream.read(_LONGEST).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(
            f"{what} cannot be read from {file}", why=str(why), fix="put it there, in a file of mode 600"
        ) from None
    if not value:
        raise ConfigError(f"{what} is not there", why=f"{file} is empty", fix="put it there")
    return value
