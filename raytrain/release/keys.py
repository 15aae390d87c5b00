"""Keys that releases are signed with, and whose signatures count.

A ring is a folder: `ring.json` holds the public keys and what became of them, and may be copied to whoever verifies;
beside it lies a file for each private key that this machine has, readable for its owner alone.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from raytrain.errors import ConfigError, IntegrityError, RefusedError
from raytrain.release.pem import id_of, loaded_public, public_pem
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import Location, translated_errors, write_atomically

PASSWORD_VARIABLE = "RAYTRAIN_KEY_PASSWORD"
"""Where the password of private keys is, for those who want one."""

_RING, _LOCK = "ring.json", ".lock"

State = Literal["active", "retired", "revoked"]
_STATES: tuple[State, ...] = get_args(State)
"""active signs; what retired keys have signed still counts; what revoked ones have signed does not, whenever it was."""


@dataclass(frozen=True)
class PublicKey:
    """A key whose signatures are known."""

    id: str
    """SHA-256 of `pem`, hexadecimal; signatures name it."""
    name: str
    """Whose it is; of several keys of a name at most one is active."""
    pem: str
    state: State
    since: str
    """When it came into this state, in UTC."""
    reason: str = ""
    """Why it was revoked."""

    @property
    def short_id(self) -> str:
        """For names and tables."""
        return self.id[:12]


@dataclass(frozen=True)
class SigningKey:
    """A private key on this machine."""

    public: PublicKey
    path: Path
    password: bytes | None


class KeyRing:
    """The keys of a folder, by default RAYTRAIN_HOME/keys. Several processes may use it at a time."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or raytrain_home() / "keys"

    def known(self) -> list[PublicKey]:
        """In the order in which they came. Raises IntegrityError where the ring cannot be read."""
        place = self.folder / _RING
        if not place.exists():
            return []
        try:
            keys = [_known(one) for one in json.loads(place.read_text(encoding="utf-8"))["keys"]]
            twice = [one.short_id for one in keys if sum(one.id == other.id for other in keys) > 1]
            if twice:
                raise ValueError(f"key {twice[0]} is in it twice")
        except (ValueError, LookupError, TypeError, OSError, RecursionError) as error:
            raise _unreadable(place, str(error)) from error
        return keys

    def find(self, key_id: str) -> PublicKey | None:
        """The key of this id, or of the only id that begins so."""
        found = [one for one in self.known() if key_id and one.id.startswith(key_id)]
        return found[0] if len(found) == 1 else None

    def generate(self, name: str) -> PublicKey:
        """A new pair of keys on the curve P-256. Raises ConfigError where the name has an active key."""
        with self._changing() as keys:
            active = _active(keys, name)
            if active is not None:
                raise ConfigError(
                    f"{name} has a key already",
                    why=f"{active.short_id} is active, since {active.since}",
                    fix=f"use it, or put a new one in its place: raytrain keys rotate {name}",
                )
            keys.append(self._new(name))
            return keys[-1]

    def rotate(self, name: str) -> PublicKey:
        """A new pair in place of the active one, which retires: what it signed still counts, and its private half is
        deleted. Raises ConfigError where there is none."""
        with self._changing() as keys:
            old = _active(keys, name)
            if old is None:
                raise _no_key(name, keys)
            new = self._new(name)
            keys[keys.index(old)] = replace(old, state="retired", since=_now())
            keys.append(new)
        self._private(old).unlink(missing_ok=True)
        return new

    def revoke(self, key_id: str, reason: str) -> PublicKey:
        """Nothing that this key signed counts any more. Raises ConfigError where there is no such key."""
        if not reason.strip():
            raise ConfigError("a key is revoked for a reason", why="none is given", fix="say --reason TEXT")
        with self._changing() as keys:
            found = [one for one in keys if key_id and one.id.startswith(key_id)]
            if len(found) != 1:
                raise ConfigError(
                    f"{key_id!r} is not the id of one key",
                    why=f"{len(found)} keys have ids that begin so",
                    fix="take an id from `raytrain keys list`",
                )
            revoked = found[0]
            if revoked.state != "revoked":
                revoked = replace(revoked, state="revoked", since=_now(), reason=reason.strip())
                keys[keys.index(found[0])] = revoked
        self._private(revoked).unlink(missing_ok=True)
        return revoked

    def trust(self, pem: str, name: str) -> PublicKey:
        """From now on another's signatures count. Raises ConfigError where the text is no public key of a known curve,
        or one that was revoked here."""
        pem = public_pem(loaded_public(pem))
        with self._changing() as keys:
            known = next((one for one in keys if one.id == id_of(pem)), None)
            if known is not None and known.state == "revoked":
                raise ConfigError(
                    f"key {known.short_id} was revoked",
                    why=f"{known.since}: {known.reason}",
                    fix="ask its owner for a new one",
                )
            if known is None:
                _check_name(name)
                # Its owner signs with it: here it is never the one that signs for this name.
                known = PublicKey(id_of(pem), name, pem, "retired", _now())
                keys.append(known)
            return known

    def signing_key(self, name: str) -> SigningKey:
        """The active key of this name, with its private half.

        Raises ConfigError where there is none, RefusedError where others may read its file.
        """
        keys = self.known()
        public = _active(keys, name)
        if public is None:
            raise _no_key(name, keys)
        place = self._private(public)
        if not place.exists():
            raise ConfigError(
                f"the private half of {name}'s key {public.short_id} is not on this machine",
                why=f"{place} is not there",
                fix=f"sign where it is, or make another one: raytrain keys rotate {name}",
            )
        _check_mode(place)
        password = _password()
        try:
            private = serialization.load_pem_private_key(place.read_bytes(), password)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{place} cannot be read as a private key",
                why=str(error),
                fix=f"give its password in {PASSWORD_VARIABLE}, or unset that where it has none",
            ) from error
        if public_pem(private.public_key()) != public.pem:
            raise IntegrityError(
                f"{place} is another key than the ring says",
                why=f"it should be {public.short_id}",
                fix=f"put the right file back, or make a new key: raytrain keys rotate {name}",
            )
        return SigningKey(public, place, password)

    def _private(self, key: PublicKey) -> Path:
        return self.folder / f"{key.name}-{key.short_id}.pem"

    def _new(self, name: str) -> PublicKey:
        _check_name(name)
        private = ec.generate_private_key(ec.SECP256R1())
        pem = public_pem(private.public_key())
        key = PublicKey(id_of(pem), name, pem, "active", _now())
        password = _password()
        content = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
        )
        with translated_errors(Location(str(self.folder)), "write"):
            # Made with this mode: there is no moment at which others could open it.
            handle = os.open(self._private(key), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(handle)
        return key

    @contextmanager
    def _changing(self) -> Iterator[list[PublicKey]]:
        """The keys, to be changed in place; written once the block has ended well. One process at a time."""
        with translated_errors(Location(str(self.folder)), "write"):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self.known()
            yield keys
            content = json.dumps({"keys": [asdict(one) for one in keys]}, indent=1).encode()
            with translated_errors(Location(str(self.folder)), "write"):
                write_atomically(self.folder / _RING, content)
        finally:
            os.close(lock)


def _known(told: dict[str, Any]) -> PublicKey:
    """Raises ValueError or TypeError where a ring says of a key what it cannot say: then none of it is believed, for a
    state that was mistyped may have meant that nothing by this key counts."""
    key = PublicKey(**told)
    if key.state not in _STATES:
        raise ValueError(f"the state of key {key.id} is {key.state!r}, not active, retired or revoked")
    if not all(isinstance(one, str) for one in told.values()):
        raise TypeError("a key is described by texts alone")
    if id_of(key.pem) != key.id:
        raise ValueError(f"key {key.short_id} is not the one that it says it is")
    return key


def _active(keys: list[PublicKey], name: str) -> PublicKey | None:
    return next((one for one in keys if one.name == name and one.state == "active"), None)


def _no_key(name: str, keys: list[PublicKey]) -> ConfigError:
    names = ", ".join(sorted({one.name for one in keys if one.state == "active"}))
    return ConfigError(
        f"{name} has no active key",
        why=f"active are those of {names}" if names else "the ring has none",
        fix=f"{f'name one of these: --key {names}; or ' if names else ''}raytrain keys generate {name}",
    )


def _check_name(name: str) -> None:
    if not name or not all(one.isalnum() or one in "-_.@" for one in name) or name.startswith("."):
        raise ConfigError(
            f"{name!r} cannot be a key's name",
            why="it becomes the name of a file",
            fix="use letters, digits, -, _, . and @",
        )


def _check_mode(place: Path) -> None:
    mode = place.stat().st_mode & 0o777
    if mode & 0o077:
        raise RefusedError(
            f"{place} can be read by others",
            why=f"its mode is {mode:03o}, so that whoever has an account here could sign",
            fix=f"chmod 600 {place}; if anyone may have read it, raytrain keys revoke",
        )


def _password() -> bytes | None:
    return (os.environ.get(PASSWORD_VARIABLE) or "").encode() or None


def _unreadable(place: Path, why: str) -> IntegrityError:
    return IntegrityError(f"{place} cannot be read", why=why, fix="put back a copy of it that is whole")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
