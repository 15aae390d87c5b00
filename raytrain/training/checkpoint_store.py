"""A run's checkpoints on storage: writing in the background, choosing what stays, finding the newest that is whole."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raytrain.errors import IntegrityError, PlatformError, StorageError, TrainingError
from raytrain.storage.artifact import (
    Artifact,
    ArtifactWriter,
    copy_artifact,
    delete_artifact,
    open_artifact,
    remove_stale_staging,
)
from raytrain.storage.location import Location
from raytrain.storage.manifest import read_manifest
from raytrain.training.checkpoint import Snapshot, read_state, write_snapshot
from raytrain.training.state import is_better

_PREFIX = "step-"
_WRITER_FILE = "writer"
# A store that stutters is asked again; a full or read-only disk is not.
_RETRY_DELAYS_S = (1.0, 3.0)


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that stands on storage, or the reason why it does not."""

    global_step: int
    location: Location
    digest: str | None
    size_bytes: int
    write_s: float
    error: PlatformError | None = None
    mirror_error: str | None = None


@dataclass(frozen=True)
class Entry:
    """One checkpoint in the store; `value` is its monitored metric, where it was evaluated."""

    global_step: int
    value: float | None


def choose_to_drop(entries: list[Entry], *, keep_last_n: int, keep_best_k: int, mode: str) -> list[int]:
    """Steps of the checkpoints that may go: neither among the newest n nor among the best k."""
    newest = sorted(entries, key=lambda entry: entry.global_step, reverse=True)[:keep_last_n]
    ranked = sorted(
        (entry for entry in entries if entry.value is not None and entry.value == entry.value),
        key=lambda entry: ((entry.value or 0.0) * (1 if mode == "min" else -1), entry.global_step),
    )
    kept = {entry.global_step for entry in newest} | {entry.global_step for entry in ranked[:keep_best_k]}
    return sorted(entry.global_step for entry in entries if entry.global_step not in kept)


class CheckpointStore:
    """The folder `checkpoints/` of one run and, if asked for, its mirror. Used by rank 0 alone."""

    def __init__(self, folder: Location, mirror: Location | None, *, monitor: str) -> None:
        self.folder = folder
        self.mirror = mirror
        self.monitor = monitor
        self._token = ""

    def take_over(self) -> None:
        """Be the one writer of this run from now on, and remove what killed writers left behind.

        A worker whose driver was killed lives on for some seconds; whatever it still wants to write is then refused.
        """
        self._token = uuid.uuid4().hex
        (self.folder / _WRITER_FILE).write_bytes(self._token.encode())
        for folder in [self.folder] + ([self.mirror] if self.mirror is not None else []):
            remove_stale_staging(folder)

    def check_is_writer(self) -> None:
        """Raise TrainingError where other workers have taken the run over since `take_over`."""
        place = self.folder / _WRITER_FILE
        if self._token and place.exists() and place.read_bytes().decode() != self._token:
            raise TrainingError(
                f"{self.folder} is written by another process now",
                why="this run was taken over by workers that were started later",
                fix="nothing: the later ones go on with the run; this process ends",
            )

    def place(self, global_step: int) -> Location:
        return self.folder / f"{_PREFIX}{global_step:08d}"

    def steps(self, folder: Location | None = None) -> list[int]:
        """Steps of the checkpoints in the store, whole or not, oldest first."""
        names = [child.name for child in (folder or self.folder).children()]
        digits = [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]
        return sorted(int(one) for one in digits if one.isdigit())

    def newest_whole(self, on_skip: Callable[[str], None]) -> Artifact | None:
        """The newest checkpoint that verifies, from the mirror where the first place has none as new.

        Tells `on_skip` which ones were passed over, and why.
        """
        candidates = [(step, 1, self.folder) for step in self.steps()]
        if self.mirror is not None:
            candidates += [(step, 0, self.mirror) for step in self.steps(self.mirror)]
        for step, _, folder in sorted(candidates, key=lambda one: one[:2], reverse=True):
            place = folder / f"{_PREFIX}{step:08d}"
            try:
                artifact = open_artifact(place, kind="checkpoint")
                read_state(artifact)
            except (IntegrityError, StorageError, ValueError, OSError) as error:
                what = error.what if isinstance(error, PlatformError) else str(error)
                on_skip(f"checkpoint {place} is skipped: {what}")
                continue
            return artifact
        return None

    def write(
        self, snapshot: Snapshot, parents: dict[str, str], provenance: dict[str, Any]
    ) -> SavedCheckpoint:
        """Write a checkpoint and its mirror; the error of the first place is returned, not raised."""
        started = time.perf_counter()
        place = self.place(snapshot.global_step)
        for delay_s in (*_RETRY_DELAYS_S, None):
            try:
                with ArtifactWriter(place, kind="checkpoint", parents=parents) as writer:
                    write_snapshot(snapshot, writer.path)
                    self.check_is_writer()
                    artifact = writer.commit(provenance, replace=True)
                break
            except PlatformError as error:
                if delay_s is None or place.is_local:
                    return SavedCheckpoint(
                        snapshot.global_step, place, None, 0, time.perf_counter() - started, error
                    )
                time.sleep(delay_s)
        mirror_error = None
        if self.mirror is not None:
            try:
                copy_artifact(place, self.mirror / place.name)
            except PlatformError as error:
                mirror_error = error.line
        seconds = time.perf_counter() - started
        size = artifact.manifest.size_bytes
        return SavedCheckpoint(
            snapshot.global_step, place, artifact.digest, size, seconds, None, mirror_error
        )

    def prune(self, *, keep_last_n: int, keep_best_k: int, mode: str) -> None:
        """Drop what retention does not keep, in both places."""
        for folder in [self.folder] + ([self.mirror] if self.mirror is not None else []):
            entries = [Entry(step, self._value(folder, step)) for step in self.steps(folder)]
            for step in choose_to_drop(entries, keep_last_n=keep_last_n, keep_best_k=keep_best_k, mode=mode):
                delete_artifact(folder / f"{_PREFIX}{step:08d}")

    def best(self, mode: str) -> Artifact | None:
        """The whole checkpoint with the best monitored value."""
        best: tuple[float, int] | None = None
        for step in self.steps():
            value = self._value(self.folder, step)
            if value is not None and is_better(value, best[0] if best else None, mode):
                best = (value, step)
        return open_artifact(self.place(best[1]), kind="checkpoint") if best else None

    def _value(self, folder: Location, step: int) -> float | None:
        try:
            monitored = read_manifest(folder / f"{_PREFIX}{step:08d}").provenance.get("monitored")
        except (IntegrityError, StorageError):
            return None
        return monitored.get(self.monitor) if isinstance(monitored, dict) else None


class BackgroundWriter:
    """One thread that writes one checkpoint at a time, so that training goes on meanwhile."""

    def __init__(self) -> None:
        self._done: queue.SimpleQueue[SavedCheckpoint | BaseException] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, write: Callable[[], SavedCheckpoint]) -> None:
        """Start a write; waits for the one before, if it still goes on."""
        self.wait()

        def run() -> None:
            try:
                self._done.put(write())
            except BaseException as error:  # noqa: BLE001 - handed to the thread that asks for results
                self._done.put(error)

        self._thread = threading.Thread(target=run, name="checkpoint-writer", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Block until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def finished(self) -> list[SavedCheckpoint]:
        """Writes that ended since the last call; raises what a write raised and did not return."""
        results = []
        while not self._done.empty():
            result = self._done.get()
            if isinstance(result, BaseException):
                raise result
            results.append(result)
        return results


def folder_of(storage: Location, run_id: str) -> Location:
    """Where a run keeps its checkpoints and its result."""
    return storage / "runs" / run_id


def checkpoint_folder(storage: Location, run_id: str) -> Location:
    return folder_of(storage, run_id) / "checkpoints"
