"""Registries on object stores, as the contracts' places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raytrain.release.registry.store import Store, open_store


@dataclass(frozen=True)
class Bucket:
    uri: str

    def open(self) -> Store:
        return open_store(self.uri)

    def _client(self) -> tuple[Any, str]:
        store: Any = self.open()
        return store._store, store.place

    def read(self, place: str) -> bytes:
        client, root = self._client()
        return bytes(client.get(place.removeprefix(f"{root}/")).bytes())

    def write(self, place: str, content: bytes | None) -> None:
        client, root = self._client()
        key = place.removeprefix(f"{root}/")
        if content is None:
            client.delete(key)
        else:
            client.put(key, content)
