"""A client of an object store, by the URI that pyarrow's file systems take as well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

from raytrain.errors import ConfigError, StorageError

SCHEMES = ("s3", "gs", "az")
_ENDPOINTS = {"s3": "endpoint", "gs": "base_url", "az": "endpoint"}
"""What each of obstore's clients calls the place that it asks."""
_OPTIONS = ("endpoint_override", "scheme", "timeout_s")
_OF_S3 = "region"
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class ObjectClient:
    """obstore's client, and how its faults are told."""

    store: Any
    place: str
    """The URI without options."""
    endpoint: str = ""
    """Where it is asked for, if that is not the provider's own."""

    @contextmanager
    def told(self, action: str, fix: str | None = None) -> Iterator[None]:
        """Turn a fault inside the block into a StorageError that names place and endpoint."""
        from obstore.exceptions import BaseError

        try:
            yield
        except StorageError:
            raise
        except (BaseError, OSError) as error:
            at = f" at {self.endpoint}" if self.endpoint else ""
            raise StorageError(
                f"{self.place}{at}: cannot {action}",
                why=_short(error),
                fix=fix or "check bucket, endpoint and credentials, then run the same command again",
            ) from error


def connect(uri: str) -> ObjectClient:
    """`s3://bucket/folder?endpoint_override=HOST:PORT&scheme=http&region=…`, and gs:// and az:// without a region; what
    is not said there comes from the environment (AWS_ENDPOINT_URL, AWS_REGION, GOOGLE_APPLICATION_CREDENTIALS,
    AZURE_STORAGE_ACCOUNT_NAME, …). timeout_s: how long one answer may take; after twice that no more is
    tried. Raises ConfigError. Nothing is asked of the service."""
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise ConfigError(
            f"{uri} needs an extra", why="obstore is not installed", fix="pip install 'raytrain[s3]'"
        ) from error
    place, _, query = uri.partition("?")
    place = place.rstrip("/")
    provider = place.partition(":")[0]
    config, patience = _read_options(uri, provider, dict(parse_qsl(query, keep_blank_values=True)))
    endpoint = config.get(_ENDPOINTS[provider]) or (
        os.environ.get("AWS_ENDPOINT_URL", "") if provider == "s3" else ""
    )
    client = {
        "timeout": timedelta(seconds=patience),
        "connect_timeout": timedelta(seconds=min(5.0, patience)),
    }
    settings: dict[str, Any] = {
        "config": config,
        "client_options": client | ({"allow_http": True} if endpoint.startswith("http://") else {}),
        "retry_config": {"max_retries": 4, "retry_timeout": timedelta(seconds=2 * patience)},
    }
    try:
        store = from_url(place, **settings)
    except Exception as error:  # whatever the bindings make of a value that they do not take
        raise ConfigError(
            f"`{uri}` is no place for a registry",
            why=_short(error),
            fix="check the URI and what follows its ?",
        ) from error
    return ObjectClient(store, place, endpoint)


def _read_options(uri: str, provider: str, options: dict[str, str]) -> tuple[dict[str, str], float]:
    known = [*_OPTIONS, _OF_S3] if provider == "s3" else list(_OPTIONS)
    unknown = options.keys() - set(known)
    try:
        patience = float(options.get("timeout_s", _PATIENCE_S))
    except ValueError:
        patience = 0.0
    if unknown or not 0 < patience <= 3600:
        raise ConfigError(
            f"`{uri}` is no place for a registry",
            why=f"nothing is known of {', '.join(sorted(unknown))}"
            if unknown
            else f"timeout_s={options['timeout_s']} is no number of seconds",
            fix=f"after the ? there may be {', '.join(known)}",
        )
    endpoint = options.get("endpoint_override", "")
    if endpoint and "://" not in endpoint:
        endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
    config = {_ENDPOINTS[provider]: endpoint} if endpoint else {}
    return config | {key: options[key] for key in (_OF_S3,) if key in options}, patience


def _short(error: Exception) -> str:
    """Its message without what follows it for programs."""
    text = str(error).strip().split("\n")[0]
    return text[:400] or type(error).__name__
