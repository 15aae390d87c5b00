"""Who may ask now: keys as their file says, each as often as it may."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from raytrain.errors import ConfigError, PlatformError
from raytrain.serving.http.errors import ApiError
from raytrain.serving.http.keys import ApiKey, KeyFile, find_key
from raytrain.serving.http.section import HttpSection

_log = logging.getLogger(__name__)
_LOOK_AGAIN_S = 1.0
"""A key that was removed may ask for so long."""


@dataclass
class Bucket:
    """Holds a minute's requests and fills evenly: a burst is let through, a minute's worth is not exceeded by more."""

    per_minute: float
    level: float
    at: float

    def take(self, now: float) -> float:
        """0 where a request may be made now, else seconds until one may."""
        self.level = min(max(1.0, self.per_minute), self.level + (now - self.at) * self.per_minute / 60)
        self.at = now
        if self.level >= 1:
            self.level -= 1
            return 0.0
        return (1 - self.level) * 60 / self.per_minute


class Doorkeeper:
    """Of one process. Where several take requests each counts by itself, and lets in its share of what a key may."""

    def __init__(self, section: HttpSection, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigError where nobody could ask, or the key file's own errors."""
        self._section, self._clock = section, clock
        self._file = KeyFile(section.key_file)
        self._buckets: dict[str, Bucket] = {}
        self._keys: list[ApiKey] = []
        self._stamp: tuple[int, int, int] | None = None
        self._lock = threading.Lock()
        self._looked_at = clock()
        if not section.insecure:
            self._stamp = self._stamp_now()
            self._keys = self._file.known()
            if not self._keys:
                raise ConfigError(
                    "nobody may ask",
                    why=f"there is no API key in {self._file.path}",
                    fix="`raytrain serve keys add NAME`, or http.insecure=true for requests from this machine alone",
                )

    def admit(self, authorization: str | None) -> ApiKey | None:
        """The key that a request comes with; None where none is needed. Raises ApiError 401."""
        if self._section.insecure:
            return None
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise ApiError(
                401, "send an API key: the header authorization: Bearer KEY", code="missing_api_key"
            )
        key = find_key(token.strip(), self._current())
        if key is None:
            raise ApiError(401, "this API key is not known here", code="invalid_api_key")
        return key

    def count(self, key: ApiKey | None) -> None:
        """Raises ApiError 429 where the key has asked too often."""
        limit = None if key is None else key.requests_per_minute or self._section.requests_per_minute
        if key is None or limit is None:
            return
        now, share = self._clock(), limit / self._section.num_ingresses
        with self._lock:
            bucket = self._buckets.get(key.id)
            if bucket is None or bucket.per_minute != share:
                bucket = self._buckets[key.id] = Bucket(share, max(1.0, share), now)
            wait_s = bucket.take(now)
        if wait_s:
            raise ApiError(
                429,
                f"this API key may ask {limit} times a minute",
                code="rate_limit_exceeded",
                retry_after_s=wait_s,
            )

    def _current(self) -> list[ApiKey]:
        now = self._clock()
        with self._lock:
            if now - self._looked_at < _LOOK_AGAIN_S:
                return self._keys
            self._looked_at = now
            try:
                stamp = self._stamp_now()
                if stamp != self._stamp:
                    self._keys, self._stamp = self._file.known(), stamp
            except (PlatformError, OSError) as error:
                # Those who could ask go on: a file that is being repaired is no reason to turn everybody away.
                _log.error("the API keys stay as they were read last: %s", error)
            return self._keys

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            told = self._file.path.stat()
        except FileNotFoundError:
            return None
        return told.st_ino, told.st_mtime_ns, told.st_size
