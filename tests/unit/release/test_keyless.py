"""Keyless, against services of our own in the form of sigstore's: who has signed what counts, and nothing else does.

Without internet no signature can be had of the public services; that nothing passes meanwhile is shown as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle, signed_bundle
from own_sigstore import OwnSigstore, public_roots, served

from raytrain.cli.main import run
from raytrain.errors import IntegrityError, RefusedError
from raytrain.release.keyless import Identity, verify_keyless
from raytrain.release.keys import KeyRing
from raytrain.release.signing import sign, signature_place, verify
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole

ME = Identity("me@example.org", "https://accounts.google.com")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No way out, and nothing kept from before."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "xdg"))


@pytest.fixture(scope="module")
def services() -> OwnSigstore:
    return OwnSigstore()


@pytest.fixture
def roots(services: OwnSigstore, tmp_path: Path) -> Path:
    """What believes in our own services."""
    (tmp_path / "roots.json").write_text(json.dumps(services.roots()))
    return tmp_path / "roots.json"


@pytest.fixture
def folder(ring: KeyRing, services: OwnSigstore, tmp_path: Path) -> Path:
    """A bundle that I have signed."""
    bundle = signed_bundle(tmp_path / "bundle", ring)
    services.sign_again(bundle, ME.name, ME.provider)
    return bundle


def told_by(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code = run([*map(str, arguments), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


def test_without_internet_nothing_is_signed_and_the_way_out_is_told(
    offline: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_bundle(tmp_path / "bundle")
    code, told = told_by(capsys, "sign", folder, "--keyless")
    assert code == 4 and told["error"]["kind"] == "endpoint"
    assert "sigstore.dev" in told["error"]["why"] and "raytrain keys generate" in told["error"]["fix"]
    assert not signature_place(folder).exists()


def test_signed_by_who_is_signed_in_and_verified_as_him(
    services: OwnSigstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a workflow of GitHub, whose runner hands out tokens: certificate, signature, log, verified."""
    folder, roots = make_bundle(tmp_path / "bundle"), tmp_path / "roots.json"
    with served(services, ME.name, ME.provider) as address:
        roots.write_text(json.dumps(services.roots(address)))
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "anything")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{address}/hand-out?for=me")
        code, told = told_by(capsys, "sign", folder, "--keyless", "--trust-config", roots)
        assert code == 0, told
        assert verify_keyless(folder, ME, trust_config=roots).identity == ME
        signature_place(folder).unlink()
        monkeypatch.setattr(services, "witness", lambda _: {"error": "the log is full"})
        code, told = told_by(capsys, "sign", folder, "--keyless", "--trust-config", roots)
        assert code == 4 and not signature_place(folder).exists()
    code, told = told_by(capsys, "sign", folder, "--keyless", "--trust-config", roots)
    assert code == 4 and "127.0.0.1" in told["error"]["why"]


def test_without_internet_nothing_counts_as_verified(
    offline: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whose = ("--identity", ME.name, "--identity-provider", ME.provider)
    code, told = told_by(capsys, "verify", folder, *whose)
    assert code == 4 and "sigstore.dev" in told["error"]["why"]


def test_what_an_identity_signed_is_verified_as_its_own(
    offline: None, folder: Path, roots: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify_keyless(folder, ME, trust_config=roots).artifact.kind == "report"
    whose = ("--identity", ME.name, "--identity-provider", ME.provider, "--trust-config", roots)
    code, told = told_by(capsys, "verify", folder, *whose)
    assert code == 0 and told["identity"] == ME.name and told["verified"]


@pytest.mark.parametrize(
    "other",
    [Identity("you@example.org", ME.provider), Identity(ME.name, "https://other.example.org")],
    ids=str,
)
def test_another_identity_is_refused(other: Identity, folder: Path, roots: Path) -> None:
    with pytest.raises(IntegrityError, match="does not fit") as caught:
        verify_keyless(folder, other, trust_config=roots)
    assert other.name in caught.value.why and other.provider in caught.value.why


def test_what_another_authority_vouched_for_is_refused(folder: Path, tmp_path: Path) -> None:
    for number, believed in enumerate((public_roots(), OwnSigstore().roots())):
        place = tmp_path / f"{number}.json"
        place.write_text(json.dumps(believed))
        with pytest.raises(IntegrityError, match="does not fit"):
            verify_keyless(folder, ME, trust_config=place)


def test_a_file_that_is_not_as_it_was_signed_is_named(folder: Path, roots: Path) -> None:
    # The manifest is told of first; a manifest that was made to fit leaves the signature to find it.
    with ArtifactWriter(Location(str(folder)), kind="bundle") as writer:
        (writer.path / "card.md").write_text("another card")
        writer.commit({"seed": 0}, replace=True)
    with pytest.raises(IntegrityError, match="does not fit") as caught:
        verify_keyless(folder, ME, trust_config=roots)
    assert "card.md was signed with another content" in caught.value.why


def test_each_sort_of_signature_is_told_from_the_other(folder: Path, ring: KeyRing, roots: Path) -> None:
    with pytest.raises(RefusedError, match="by no key") as caught:
        verify(folder, ring)
    assert "--identity" in caught.value.fix
    sign(folder, ring.signing_key("release"))
    with pytest.raises(RefusedError, match="not a keyless signature"):
        verify_keyless(folder, ME, trust_config=roots)
    signature_place(folder).write_text("{}")
    with pytest.raises(IntegrityError, match="does not fit"):
        verify_keyless(folder, ME, trust_config=roots)
    signature_place(folder).unlink()
    with pytest.raises(RefusedError, match="is not there"):
        verify_keyless(folder, ME, trust_config=roots)


def test_whatever_is_done_to_the_signature_is_refused(folder: Path, roots: Path) -> None:
    """Each part of it taken away; and of each text in it a bit turned."""
    place = signature_place(folder)
    whole = json.loads(place.read_bytes())
    names = ("certificate", "tlogEntries", "rawBytes", "inclusionProof", "checkpoint", "payload", "sig")
    changed = [without(whole, name) for name in names]
    changed += [turned(whole, number) for number in range(len(list(texts(whole))))]
    for number, one in enumerate(changed):
        place.write_text(json.dumps(one))
        with pytest.raises((IntegrityError, RefusedError)):
            verify_keyless(folder, ME, trust_config=roots)
            pytest.fail(f"change {number}: {names[number] if number < len(names) else 'a text'}")


SAYS_NOTHING = ("keyid", "hint", "publicKey", "logIndex")
"""Of these nothing is read where there is a certificate, or the log of one entry has them twice."""


def texts(value: Any, name: str = "") -> Iterator[str]:
    """Every text in it that says something, in order."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from texts(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, name)
    elif isinstance(value, str) and value and name not in SAYS_NOTHING:
        yield value


def turned(value: Any, number: int) -> Any:
    """With another sign in the middle of the text of this number."""
    text = list(texts(value))[number]
    middle = len(text) // 2
    other = "A" if text[middle] != "A" else "B"
    return json.loads(
        json.dumps(value).replace(
            json.dumps(text)[1:-1], json.dumps(text[:middle] + other + text[middle + 1 :])[1:-1]
        )
    )


def without(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: without(inner, name) for key, inner in value.items() if key != name}
    return [without(one, name) for one in value] if isinstance(value, list) else value


def test_half_an_identity_and_two_ways_at_once_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_bundle(tmp_path / "bundle")
    assert told_by(capsys, "verify", folder, "--identity", ME.name)[0] == 2
    assert told_by(capsys, "sign", folder, "--keyless", "--key", "default")[0] == 2
    (tmp_path / "broken.json").write_text("{}")
    code, told = told_by(capsys, "sign", folder, "--keyless", "--trust-config", tmp_path / "broken.json")
    assert code == 2 and "broken.json" in told["error"]["what"]
