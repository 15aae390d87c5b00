"""Versions that an operator wants loaded, at one replica."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from raytrain.errors import PlatformError, RefusedError
from raytrain.release.registry.state import PRODUCTION
from raytrain.serving.adapters.opening import Door
from raytrain.serving.adapters.residents import Residents
from raytrain.serving.operations.protocol import Loaded, Target, Unloaded
from raytrain.serving.operations.wanted import Wanted

_log = logging.getLogger(__name__)
_TRY_AGAIN_S = 30.0
"""After a version could not be loaded."""


class Wishes:
    """For any thread; what is read for them is read beside the answering. `close` them."""

    def __init__(self, door: Door, residents: Residents, replica: str) -> None:
        """replica: what it is called to operators."""
        self._door, self._residents, self._replica = door, residents, replica
        self.wanted = Wanted()
        self._lock = threading.Lock()
        self._digests: dict[str, str] = {}
        """Of each version that was loaded because it is wanted, by NAME@VERSION."""
        self._tried: dict[str, float] = {}
        self._faults: dict[str, str] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="wishes")

    def exchange(self, wanted: Wanted) -> Wanted:
        """Take over what another process knows and tell it what is known here; what is missing is loaded behind."""
        now = time.monotonic()
        self._learn(wanted)
        with self._lock:
            missing = [
                one for one in self._missing() if now - self._tried.get(one, -_TRY_AGAIN_S) >= _TRY_AGAIN_S
            ]
            self._tried |= dict.fromkeys(missing, now)
        for reference in missing:
            self._reader.submit(self._load, reference)
        return self.wanted

    def load(self, wanted: Wanted, target: Target) -> Loaded:
        """Returns once it can answer, or cannot."""
        with self._lock:
            self._tried[target.model] = time.monotonic()  # here, and nowhere beside
        self._learn(wanted)
        return self._load(target.model)

    def unload(self, wanted: Wanted, target: Target) -> Unloaded:
        self._learn(wanted)
        was_loaded = target.digest in self._residents.resident()
        is_in_use = was_loaded and not self._residents.drop(target.digest)
        return Unloaded(self._replica, was_loaded, is_in_use)

    def find(self, reference: str) -> Target:
        """Nothing of it is verified. Raises NotRegisteredError, or StorageError."""
        name, _, wanted = reference.partition("@")
        released = self._door.registry.find(reference if wanted else f"{name}@{PRODUCTION}")
        return Target(f"{name}@{released.version}", released.digest)

    @property
    def kept(self) -> tuple[str, ...]:
        """Versions that are wanted, and can answer."""
        with self._lock:
            missing = self._missing()
            return tuple(one for one in self.wanted.loaded if one not in missing)

    @property
    def problems(self) -> list[str]:
        with self._lock:
            return [f"{one} is wanted loaded and is not: {why}" for one, why in sorted(self._faults.items())]

    def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)  # a registry that hangs is not waited for

    def _missing(self) -> list[str]:
        resident = self._residents.resident()
        return [one for one in self.wanted.loaded if self._digests.get(one) not in resident]

    def _learn(self, wanted: Wanted) -> None:
        with self._lock:
            self.wanted = self.wanted.merged(wanted)
            named = set(self.wanted.loaded)
            self._digests = {one: digest for one, digest in self._digests.items() if one in named}
            self._faults = {one: why for one, why in self._faults.items() if one in named}
            self._tried = {one: when for one, when in self._tried.items() if one in named}
            self._residents.keep(self._digests.values())

    def _load(self, reference: str) -> Loaded:
        began = time.perf_counter()
        try:
            admitted = self._door.admit(reference)
            verify_s = time.perf_counter() - began
            was_loaded = admitted.digest in self._residents.resident()
            loading = self._residents.load(admitted.digest, admitted.read)
        except PlatformError as error:
            self._note(reference, error)
            return Loaded(self._replica, was_loaded=False, fault=error)
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and the reader's thread lives
            _log.exception("%s could not be loaded", reference)
            fault = RefusedError(
                f"{reference} could not be loaded", why=type(error).__name__, fix="see the log"
            )
            self._note(reference, fault)
            return Loaded(self._replica, was_loaded=False, fault=fault)
        with self._lock:
            self._faults.pop(reference, None)
            if reference in self.wanted.loaded:  # it may have been taken back meanwhile
                self._digests[reference] = admitted.digest
                self._residents.keep(self._digests.values())
        return Loaded(self._replica, was_loaded, verify_s, loading.read_s, loading.put_s)

    def _note(self, reference: str, error: PlatformError) -> None:
        with self._lock:
            if reference in self.wanted.loaded:
                self._faults[reference] = error.line
