"""API keys: who may ask which models, and how often.

A key is `rt_ID_SECRET`, whose secret has 256 random bits: no list of likely secrets can be tried against its hash, so
one round of SHA-256 over a salt and the secret keeps it, and each request pays microseconds for it. The file holds the
hashes and is its owner's alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from raytrain.errors import ConfigError, IntegrityError, RefusedError
from raytrain.storage.location import Location, sync_folder, translated_errors

ALL_MODELS = "*"
_TOKEN = re.compile(r"rt_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ApiKey:
    """All of a key but its secret."""

    id: str
    name: str
    """Whose it is; told in logs."""
    models: tuple[str, ...]
    """Names, with all their versions and aliases, or `name@…`, that one alone; `*` = all."""
    salt: str
    hash: str
    created: str
    requests_per_minute: int | None = None
    is_operator: bool = False
    """Sees /metrics and the whole of /ready."""

    def may_use(self, model: str) -> bool:
        return bool({ALL_MODELS, model, model.partition("@")[0]} & set(self.models))


class KeyFile:
    """The keys of a file. Several processes may change it at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def known(self) -> list[ApiKey]:
        """In the order in which they came; none where there is no file.

        Raises RefusedError where others may read the file, IntegrityError where it cannot be understood.
        """
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self.path, error.strerror or str(error)) from error
        with os.fdopen(handle, "rb") as stream:
            mode = os.fstat(handle).st_mode & 0o777
            if mode & 0o077:
                raise RefusedError(
                    f"{self.path} is open to others",
                    why=f"its mode is {mode:03o}",
                    fix=f"chmod 600 {self.path}; then replace its keys if others were on this machine",
                )
            content = stream.read()
        try:
            return [ApiKey(**{**one, "models": tuple(one["models"])}) for one in json.loads(content)["keys"]]
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(self.path, f"{type(error).__name__}") from error

    def add(
        self,
        name: str,
        models: Sequence[str] = (ALL_MODELS,),
        *,
        requests_per_minute: int | None = None,
        is_operator: bool = False,
    ) -> str:
        """A new key, as it is to be handed over: it is told this once."""
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is no name for a key",
                why="names are 1 to 64 letters, digits, `.`, `_` or `-`",
                fix="name who will use it, such as `search-team`",
            )
        if requests_per_minute is not None and requests_per_minute < 1:
            raise ConfigError(
                "a key may ask at least once a minute", why=f"got {requests_per_minute}", fix="say 1 or more"
            )
        key_id, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(16)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        key = ApiKey(
            key_id, name, tuple(models), salt, _hash(salt, secret), created, requests_per_minute, is_operator
        )
        with self._changing() as keys:
            keys.append(key)
        return f"rt_{key_id}_{secret}"

    def remove(self, key_id: str) -> ApiKey:
        """From now on nobody may ask with it. Raises ConfigError where there is no such key."""
        with self._changing() as keys:
            found = next((one for one in keys if one.id == key_id), None)
            if found is None:
                raise ConfigError(
                    f"there is no API key {key_id!r}",
                    why=f"{self.path} has " + (", ".join(one.id for one in keys) or "none"),
                    fix="take an id from there",
                )
            keys.remove(found)
        return found

    @contextmanager
    def _changing(self) -> Iterator[list[ApiKey]]:
        """The keys, to be changed in place; written once the block has ended well. One process at a time."""
        with translated_errors(Location(str(self.path.parent)), "write"):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self.known()
            yield keys
            with translated_errors(Location(str(self.path)), "write"):
                self._write(json.dumps({"keys": [asdict(one) for one in keys]}, indent=2).encode())
        finally:
            os.close(lock)

    def _write(self, content: bytes) -> None:
        staged = self.path.with_name(f".{self.path.name}.tmp")
        staged.unlink(missing_ok=True)
        # Made with this mode: there is no moment at which others could open it.
        handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(handle)
        staged.replace(self.path)
        sync_folder(self.path.parent)


def find_key(token: str, keys: Sequence[ApiKey]) -> ApiKey | None:
    """Whose token this is. Takes as long for an id that is not there, and for any wrong secret."""
    parts = _TOKEN.fullmatch(token)
    key_id, secret = parts.groups() if parts else ("", token[:100])
    found = next((one for one in keys if one.id == key_id), None)
    salt, known = (found.salt, found.hash) if found is not None else ("", "0" * 64)
    is_right = hmac.compare_digest(_hash(salt, secret), known)
    return found if is_right and found is not None else None


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}:{secret}".encode(errors="replace")).hexdigest()


def _unreadable(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"the API keys in {path} cannot be read",
        why=why,
        fix="put the file back as it was, or give out new keys",
    )
