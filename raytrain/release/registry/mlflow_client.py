"""MLflow's client as a registry there and a registry's mirror use it, and how its faults are told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from raytrain.errors import ConfigError, StorageError

SCHEMES = ("mlflow+http", "mlflow+https")
EXPERIMENT = "raytrain registry"
"""Of its runs."""


@dataclass(frozen=True)
class MlflowServer:
    """A tracking server that keeps a registry."""

    client: Any
    uri: str
    """As MLflow takes it."""
    faults: tuple[type[Exception], ...]

    @property
    def place(self) -> str:
        return f"mlflow+{self.uri}"

    @contextmanager
    def told(self, action: str, fix: str | None = None) -> Iterator[None]:
        """Turn a fault inside the block into a StorageError that names the server."""
        try:
            yield
        except self.faults as error:
            raise StorageError(
                f"{self.place}: cannot {action}",
                why=_short(error),
                fix=fix
                or "check that the server answers, and MLFLOW_TRACKING_USERNAME or _TOKEN where it asks who you are, "
                "then run the same command again",
            ) from error


def connect(place: str) -> MlflowServer:
    """`mlflow+http://HOST:PORT`. Raises ConfigError. Nothing is asked of the server."""
    uri = place.removeprefix("mlflow+").rstrip("/")
    parts = urlsplit(uri)
    odd = [
        ("the host behind :// is missing", not parts.hostname),
        ("a name or password in it would stand in logs", "@" in parts.netloc),
        ("nothing is known of what follows a ? or #", bool(parts.query or parts.fragment)),
    ]
    for why, is_so in odd:
        if is_so:
            shown = f"mlflow+{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            raise ConfigError(
                f"`{shown}` is no place for a registry"
                if "@" not in parts.netloc
                else f"leave out who asks {shown}",
                why=why,
                fix="write mlflow+http://HOST:PORT or mlflow+https://HOST; who asks is said by "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
            )
    try:
        client, faults = client_of(uri, registry_uri=uri)
    except ImportError as error:
        raise ConfigError(
            f"{place} needs an extra", why="mlflow is not installed", fix="pip install 'raytrain[mlflow]'"
        ) from error
    return MlflowServer(client, uri, faults)


def client_of(tracking_uri: str, registry_uri: str | None = None) -> tuple[Any, tuple[type[Exception], ...]]:
    """And what it raises where a server does not answer or does not let us. Raises ImportError."""
    # A person waits, and runs the command again: it should not take minutes to say that nobody answers.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from requests import RequestException

    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=registry_uri)
    return client, (MlflowException, RequestException)


def experiment_of(client: Any) -> str:
    """The id of EXPERIMENT, which is made where it is not there. Raises what the client raises."""
    known = client.get_experiment_by_name(EXPERIMENT)
    if known is None:
        try:
            return str(client.create_experiment(EXPERIMENT))
        except Exception as error:
            if not is_told(error, "RESOURCE_ALREADY_EXISTS"):  # somebody was as quick
                raise
            known = client.get_experiment_by_name(EXPERIMENT)
    return str(known.experiment_id)


def is_told(error: Exception, code: str) -> bool:
    """Whether MLflow's server answered with this code."""
    return getattr(error, "error_code", None) == code


def _short(error: Exception) -> str:
    """Its beginning says what was asked, its end why that did not work."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else f"{text[:200]} … {text[-200:]}"
