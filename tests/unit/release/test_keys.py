"""Keys come, retire and are revoked; nobody else reads them."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from killed_at_a_change import run_until
from releases import Trained, release

from raytrain.cli.main import run
from raytrain.errors import ConfigError, IntegrityError, RefusedError
from raytrain.release.keys import PASSWORD_VARIABLE, KeyRing
from raytrain.release.registry.registry import Registry


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    """With nothing in it."""
    return KeyRing(tmp_path / "keys")


def test_a_key_is_for_its_owner_alone(ring: KeyRing) -> None:
    key = ring.generate("release")
    private = ring.signing_key("release")
    assert stat.S_IMODE(private.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(ring.folder.stat().st_mode) == 0o700
    assert private.public == key == ring.find(key.id[:6])
    assert b"PRIVATE" not in (ring.folder / "ring.json").read_bytes()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o601])
def test_a_key_that_others_may_read_signs_nothing(ring: KeyRing, mode: int) -> None:
    ring.generate("release")
    place = ring.signing_key("release").path
    place.chmod(mode)
    with pytest.raises(RefusedError, match="can be read by others"):
        ring.signing_key("release")


def test_one_that_is_rotated_retires_and_signs_no_more(ring: KeyRing) -> None:
    old = ring.generate("release")
    place = ring.signing_key("release").path
    new = ring.rotate("release")
    assert [(one.id, one.state) for one in ring.known()] == [(old.id, "retired"), (new.id, "active")]
    assert not place.exists() and ring.signing_key("release").public == new
    with pytest.raises(ConfigError, match="has a key already"):
        ring.generate("release")
    with pytest.raises(ConfigError, match="no active key"):
        ring.rotate("another")


def test_a_revoked_key_stays_in_the_ring_with_its_reason(ring: KeyRing) -> None:
    key = ring.generate("release")
    with pytest.raises(ConfigError, match="for a reason"):
        ring.revoke(key.id, "  ")
    with pytest.raises(ConfigError, match="not the id of one key"):
        ring.revoke("", "lost")
    assert ring.revoke(key.short_id, "a laptop was lost").state == "revoked"
    (kept,) = ring.known()
    assert (kept.state, kept.reason) == ("revoked", "a laptop was lost")
    with pytest.raises(ConfigError, match="no active key"):
        ring.signing_key("release")
    with pytest.raises(ConfigError, match="was revoked"):
        ring.trust(key.pem, "release")
    ring.generate("release")


def test_a_password_is_asked_for(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "open sesame")
    ring.generate("release")
    assert b"ENCRYPTED" in ring.signing_key("release").path.read_bytes()
    for wrong in ("", "another"):
        monkeypatch.setenv(PASSWORD_VARIABLE, wrong)
        with pytest.raises(ConfigError, match="cannot be read as a private key"):
            ring.signing_key("release")


def test_only_keys_that_sign_models_are_trusted(ring: KeyRing) -> None:
    def pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return key.public_bytes(serialization.Encoding.PEM, form).decode()

    theirs = ring.trust(pem(ec.generate_private_key(ec.SECP384R1()).public_key()), "theirs")
    assert ring.trust(theirs.pem, "theirs") == theirs and len(ring.known()) == 1
    for wrong in (
        "no key",
        pem(rsa.generate_private_key(65537, 2048).public_key()),
        pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
    ):
        with pytest.raises(ConfigError):
            ring.trust(wrong, "wrong")
    for name in ("", "../up", "a/b", ".hidden", "a b"):
        with pytest.raises(ConfigError, match="cannot be a key's name"):
            ring.generate(name)


def test_a_ring_or_key_that_was_swapped_is_told(ring: KeyRing) -> None:
    ring.generate("one")
    ring.generate("two")
    one, two = ring.signing_key("one").path, ring.signing_key("two").path
    one.write_bytes(two.read_bytes())
    with pytest.raises(IntegrityError, match="another key than the ring says"):
        ring.signing_key("one")
    place = ring.folder / "ring.json"
    whole = place.read_text()
    told = json.loads(whole)
    told["keys"][0]["pem"] = told["keys"][1]["pem"]
    for damaged in (whole[: len(whole) // 2], "[]", json.dumps(told)):
        place.write_text(damaged)
        with pytest.raises(IntegrityError, match="cannot be read"):
            ring.known()
    two.unlink()
    place.write_text(whole)
    with pytest.raises(ConfigError, match="not on this machine"):
        ring.signing_key("two")


def test_many_at_once_lose_no_key(ring: KeyRing) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: KeyRing(ring.folder).generate(f"key-{i}"), range(24)))
    assert {one.id for one in made} == {one.id for one in ring.known()}


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str) -> dict[str, object]:
        code = run(["keys", *arguments, "--json"])
        return {"code": code, **json.loads(capsys.readouterr().out)}

    mine, theirs = ["--ring", str(tmp_path / "mine")], ["--ring", str(tmp_path / "theirs")]
    key = told("generate", "release", *theirs)
    assert run(["keys", "show", str(key["id"]), *theirs]) == 0
    public = tmp_path / "release.pub"
    public.write_text(capsys.readouterr().out)
    assert told("trust", "them", str(public), *mine)["id"] == key["id"]
    assert told("rotate", "release", *theirs)["state"] == "active"
    assert told("revoke", str(key["id"]), "--reason", "lost", *mine)["state"] == "revoked"
    assert told("show", "ffff", *mine)["code"] == 2
    assert told("trust", "them", str(tmp_path / "nothing"), *mine)["code"] == 2
    assert run(["keys", "list", *mine]) == 0
    printed = capsys.readouterr().out
    assert "them" in printed and "revoked" in printed and "lost" in printed
    assert run(["keys", "list", "--ring", str(tmp_path / "empty")]) == 0
    assert "no keys yet" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["generate", "rotate", "revoke"])
def test_killed_while_keys_change_the_ring_is_the_old_or_the_new(what: str, tmp_path: Path) -> None:
    before = KeyRing(tmp_path / "before")
    first = before.generate("release")
    told = {(first.id, "active")}
    states_after: set[frozenset[str]] = set()
    for point in itertools.count(1):
        ring = KeyRing(tmp_path / f"killed-{point}")
        shutil.copytree(before.folder, ring.folder)
        step: Callable[[], object]
        if what == "generate":
            step = partial(ring.generate, "another")
        elif what == "rotate":
            step = partial(ring.rotate, "release")
        else:
            step = partial(ring.revoke, first.id, "a test")
        code = run_until(point, ring.folder, step)
        found = {(one.id, one.state) for one in ring.known()}
        states_after.add(frozenset(state for _, state in found))
        assert first.id in {one.id for one in ring.known()}, point
        if code == 0:
            assert found != told
            break
        assert code == -signal.SIGKILL, point
        if found == told:  # the old ring: it signs, and the step can be done
            assert ring.signing_key("release").public == first
            step()
        for one in ring.known():
            if one.state == "active":
                assert ring.signing_key(one.name).public == one, point
    assert point > 3 and len(states_after) == (1 if what == "generate" else 2)


@pytest.mark.parametrize("state", ["Revoked", "REVOKED", "revoked ", "expired", "", None, True, ["revoked"]])
def test_a_state_that_is_none_lets_no_key_count(state: object, ring: KeyRing) -> None:
    """Who writes a ring by hand means to take a key away."""
    _changed(ring, lambda keys: keys[0].update(state=state))
    with pytest.raises(IntegrityError, match="cannot be read") as caught:
        ring.known()
    assert "active, retired or revoked" in caught.value.why


@pytest.mark.parametrize(
    "change",
    [
        lambda keys: keys[0].update(pem=None),
        lambda keys: keys[0].update(name=None),
        lambda keys: keys[0].update(reason=1),
        lambda keys: keys[0].pop("name"),
        lambda keys: keys.append(None),
        lambda keys: keys.append({**keys[0], "state": "revoked"}),
    ],
)
def test_a_ring_of_another_form_is_told_as_damaged(
    change: Callable[[list[Any]], object], ring: KeyRing
) -> None:
    _changed(ring, change)
    with pytest.raises(IntegrityError, match="cannot be read"):
        ring.known()


def test_a_damaged_ring_is_not_told_as_a_damaged_bundle(ring: KeyRing, tmp_path: Path) -> None:
    ring.generate("release")
    registry = Registry(tmp_path / "registry")
    release(registry, ring, tmp_path / "bundle", Trained(), "1.0.0")
    (ring.folder / "ring.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"ring\.json cannot be read") as caught:
        registry.verified("sums@1.0.0", ring)
    assert caught.value.fix == "put back a copy of it that is whole"
    ((_, (fault,)),) = registry.audit(ring)
    assert "ring.json cannot be read" in fault.what


def _changed(ring: KeyRing, change: Callable[[list[Any]], object]) -> None:
    place = ring.folder / "ring.json"
    ring.generate("one")
    told = json.loads(place.read_text())
    change(told["keys"])
    place.write_text(json.dumps(told))
