"""Compare-and-set on MLflow, which has none: who was first is told by the numbers of a registered model's versions.

MLflow's server counts them in its database and writes each in one transaction with its tags: where a number is there,
so is every lower one. A version claims what its tag says, and the lowest that claims it has it: whoever finds a lower
one than his own was too late.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from raytrain.errors import StorageError
from raytrain.release.registry.mlflow_client import MlflowServer, is_told

_PAGE = 500
_LOOKS, _LOOK_EVERY_S = 10, 0.2
"""How often a claim is looked for that the server has just taken: it may read from a replica of its database."""

_FIX_OF_WRITING = (
    "whether it was written may not be known: `raytrain registry log NAME` tells what was released. If it is not "
    "there, run the same command again; what was there before is whole"
)


@dataclass(frozen=True)
class Claim:
    """A version of the model."""

    number: int
    tags: Mapping[str, str]
    run_id: str
    """Empty where it names none."""
    changed_s: float
    """When it, not only a tag of it, was last written; by the server's clock, since 1970."""


class Claims:
    """Of one registered model, each under its tag `key`."""

    def __init__(self, server: MlflowServer, model: str, key: str, about: str) -> None:
        """about: what people read of the model in MLflow's pages."""
        self._server, self._client = server, server.client
        self.model, self._key, self._about = model, key, about

    def read(
        self, what: str | None = None, run_id: str | None = None, after: int = 0, fix: str | None = None
    ) -> Iterator[Claim]:
        """The lowest first; those that claim this, or name this run, if one is given, and have a higher number.

        fix: what to do where the server does not answer.
        """
        wanted = f"name = '{self.model}'"
        wanted += "" if what is None else f" AND tags.`{self._key}` = '{what}'"
        wanted += "" if run_id is None else f" AND run_id = '{run_id}'"
        last = after
        while True:
            # MLflow's own pages are counted from the first: where one is deleted meanwhile, another is passed over.
            asked = f"{wanted} AND version_number > {last}"
            with self._server.told(f"read {self.model}", fix):
                page = self._client.search_model_versions(
                    asked, max_results=_PAGE, order_by=["version_number ASC"]
                )
            yield from map(_claim, page)
            if len(page) < _PAGE:
                return
            last = int(page[-1].version)

    def first(self, what: str) -> Claim | None:
        """The one that has it."""
        return next(self.read(what), None)

    def what(self, claim: Claim) -> str:
        return claim.tags.get(self._key, "")

    def make(self, what: str, tags: Mapping[str, str], source: str, run_id: str | None = None) -> Claim:
        """Claim it; returns the claim that has it, which may be another's. Ours is gone then.

        Where the server took ours twice, for its first answer was lost, the lower one is as much ours.
        """
        number = self._create({self._key: what, **tags}, source, run_id)
        for _ in range(_LOOKS):
            first = next(self.read(what, fix=_FIX_OF_WRITING), None)
            if first is not None and first.number <= number:
                if first.number < number:
                    with suppress(StorageError):  # it counts for nothing
                        self.delete(number)
                return first
            time.sleep(_LOOK_EVERY_S)
        raise StorageError(
            f"{self._server.place}: version {number} of {self.model} is not there, which was just written",
            why="somebody deleted it, or the server reads from a replica of its database that is behind",
            fix="let the server read where it writes, then run the same command again",
        )

    def _create(self, tags: dict[str, str], source: str, run_id: str | None) -> int:
        def create() -> Any:
            return self._client.create_model_version(
                self.model, source, run_id, tags=tags, await_creation_for=0
            )

        with self._server.told(f"write to {self.model}", _FIX_OF_WRITING):
            try:
                return int(create().version)
            except self._server.faults as error:
                if not is_told(error, "RESOURCE_DOES_NOT_EXIST"):
                    raise
            self.prepare()
            return int(create().version)

    def prepare(self) -> None:
        """Let the model be there."""
        with self._server.told(f"make {self.model}"):
            try:
                self._client.create_registered_model(self.model, description=self._about)
            except self._server.faults as error:
                if not is_told(error, "RESOURCE_ALREADY_EXISTS"):
                    raise

    def change(self, claim: Claim, about: str, key: str, value: str) -> None:
        """Give it this description, which makes it young, and then the tag."""
        with self._server.told(f"write to version {claim.number} of {self.model}"):
            self._client.update_model_version(self.model, str(claim.number), about)
            try:
                self._client.set_model_version_tag(self.model, str(claim.number), key, value)
            except self._server.faults as error:
                # Of two who set it for the first time at once, the server's database turns one away.
                if not is_told(error, "BAD_REQUEST"):
                    raise
                self._client.set_model_version_tag(self.model, str(claim.number), key, value)

    def delete(self, number: int) -> None:
        """Nothing happens where it is not there. MLflow gives its number to no other."""
        with self._server.told(f"delete version {number} of {self.model}"):
            try:
                self._client.delete_model_version(self.model, str(number))
            except self._server.faults as error:
                if not is_told(error, "RESOURCE_DOES_NOT_EXIST"):
                    raise


def _claim(version: Any) -> Claim:
    changed_s = (version.last_updated_timestamp or version.creation_timestamp) / 1000
    return Claim(int(version.version), dict(version.tags), version.run_id or "", changed_s)
