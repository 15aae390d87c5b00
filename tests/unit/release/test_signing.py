"""A signed artifact is verified by raytrain and by the stock command line; whatever is done to it is refused."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import make_bundle, signed_bundle

from raytrain.errors import IntegrityError, PlatformError, RefusedError
from raytrain.release.keys import KeyRing
from raytrain.release.signing import sign, signature_place, verify
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole


@pytest.fixture
def bundle(tmp_path: Path, ring: KeyRing) -> Path:
    return signed_bundle(tmp_path / "bundle", ring)


def test_what_was_signed_is_verified_wherever_it_lies(bundle: Path, ring: KeyRing, tmp_path: Path) -> None:
    signed = verify(bundle, ring)
    assert signed.key.name == "release" and signed.artifact.kind == "report"
    moved = tmp_path / "elsewhere" / "another-name"
    shutil.copytree(bundle, moved)
    with pytest.raises(RefusedError, match="another-name is not signed"):
        verify(moved, ring)
    assert verify(moved, ring, signature_place(bundle)).artifact.digest == signed.artifact.digest


def test_the_stock_command_line_verifies_it(bundle: Path, ring: KeyRing, tmp_path: Path) -> None:
    public = tmp_path / "release.pub"
    public.write_text(ring.known()[0].pem)

    def stock() -> subprocess.CompletedProcess[str]:
        command = [
            *(sys.executable, "-m", "model_signing", "verify", "key", str(bundle)),
            *("--signature", str(signature_place(bundle)), "--public_key", str(public)),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    found = stock()
    assert found.returncode == 0, found.stdout + found.stderr
    (bundle / "card.md").write_bytes(b"another")
    found = stock()
    assert found.returncode != 0 and "card.md" in found.stdout + found.stderr


def test_what_the_stock_command_line_signed_counts(ring: KeyRing, tmp_path: Path) -> None:
    folder, key = make_bundle(tmp_path / "bundle"), ring.signing_key("release")
    command = [
        *(sys.executable, "-m", "model_signing", "sign", "key", str(folder)),
        *("--signature", str(signature_place(folder)), "--private_key", str(key.path)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert verify(folder, ring).key == key.public


def test_a_retired_key_still_counts_and_a_revoked_one_does_not(bundle: Path, ring: KeyRing) -> None:
    old = ring.known()[0]
    ring.rotate("release")
    assert verify(bundle, ring).key.state == "retired"
    ring.revoke(old.id, "a laptop was lost")
    with pytest.raises(RefusedError, match="revoked") as caught:
        verify(bundle, ring)
    assert "a laptop was lost" in caught.value.why
    sign(bundle, ring.signing_key("release"))
    assert verify(bundle, ring).key.state == "active"


def test_a_stranger_s_signature_is_refused(bundle: Path, ring: KeyRing, tmp_path: Path) -> None:
    strangers = KeyRing(tmp_path / "strangers")
    strangers.generate("release")
    sign(bundle, strangers.signing_key("release"))
    with pytest.raises(RefusedError, match="nobody here knows"):
        verify(bundle, ring)
    # It says that it is by a key that counts.
    place = signature_place(bundle)
    forged = json.loads(place.read_text())
    forged["verificationMaterial"]["publicKey"]["hint"] = ring.known()[0].id
    place.write_text(json.dumps(forged))
    with pytest.raises(IntegrityError, match="does not fit"):
        verify(bundle, ring)


def test_nothing_is_signed_that_is_not_whole(ring: KeyRing, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / "card.md").write_bytes(b"another")
    with pytest.raises(IntegrityError, match=r"card\.md"):
        sign(folder, ring.signing_key("release"))
    assert not signature_place(folder).exists()


class Tampering:
    """One thing done to a signed folder; returns the files of which a refusal has to name one."""

    def __init__(self, folder: Path, older: Path, seed: int) -> None:
        self.folder, self.older, self.random = folder, older, random.Random(seed)

    def files(self) -> list[Path]:
        return sorted(one for one in self.folder.rglob("*") if one.is_file())

    def flip_a_bit(self) -> list[str]:
        file = self.random.choice([one for one in self.files() if one.stat().st_size])
        content = bytearray(file.read_bytes())
        content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        file.write_bytes(content)
        return [file.name]

    def cut_a_file(self) -> list[str]:
        file = self.random.choice([one for one in self.files() if one.stat().st_size])
        content = file.read_bytes()
        file.write_bytes(content[: self.random.randrange(len(content))])
        return [file.name]

    def swap_two_files(self) -> list[str]:
        one, other = self.random.sample([one for one in self.files() if one.name != "manifest.json"], 2)
        contents = one.read_bytes(), other.read_bytes()
        other.write_bytes(contents[0])
        one.write_bytes(contents[1])
        return [one.name, other.name]

    def add_a_file(self) -> list[str]:
        names = ["more.bin", ".gitignore", ".git/config", "tokenizer/more.json", "bundle.sig", ".hidden"]
        name = self.random.choice([*names, f"{self.random.randrange(10**6)}.json"])
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_bytes(self.random.randbytes(self.random.choice([0, 9])))
        return [Path(name).name]

    def add_a_link(self) -> list[str]:
        name = f"link-{self.random.randrange(10**6)}.bin"
        (self.folder / name).symlink_to(self.random.choice(self.files()))
        return [name]

    def take_a_file_away(self) -> list[str]:
        file = self.random.choice(self.files())
        file.unlink()
        return [file.name]

    def replay_an_old_manifest(self) -> list[str]:
        shutil.copy(self.older / "manifest.json", self.folder / "manifest.json")
        return [one.name for one in self.files()]

    def put_in_another_whole_artifact(self) -> list[str]:
        shutil.rmtree(self.folder)
        shutil.copytree(self.older, self.folder)
        return ["manifest.json"]

    def strip_the_signature(self) -> list[str]:
        signature_place(self.folder).unlink()
        return [signature_place(self.folder).name]

    def flip_a_bit_of_the_signature(self) -> list[str]:
        place = signature_place(self.folder)
        content = bytearray(place.read_bytes())
        content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        place.write_bytes(content)
        return [place.name]

    def take_another_s_signature(self) -> list[str]:
        shutil.copy(signature_place(self.older), signature_place(self.folder))
        return [signature_place(self.folder).name]


NUM_MUTATIONS = {
    "flip_a_bit": 450, "flip_a_bit_of_the_signature": 400, "cut_a_file": 60, "add_a_file": 60, "add_a_link": 30,
    "swap_two_files": 3, "take_a_file_away": 4, "replay_an_old_manifest": 1, "put_in_another_whole_artifact": 1,
    "strip_the_signature": 1, "take_another_s_signature": 1,
}  # fmt: skip
"""Different ones of each kind."""


def test_a_thousand_different_things_of_every_kind_are_tried() -> None:
    kinds = {name for name in vars(Tampering) if not name.startswith("_") and name != "files"}
    assert set(NUM_MUTATIONS) == kinds and sum(NUM_MUTATIONS.values()) >= 1_000


def state_of(folder: Path) -> str:
    """Everything that lies there and beside it, by its bytes."""
    told = hashlib.sha256()
    for one in sorted(folder.parent.rglob("*")):
        content = (
            str(one.readlink()).encode() if one.is_symlink() else one.read_bytes() if one.is_file() else b""
        )
        told.update(f"{one.relative_to(folder.parent)} {len(content)} ".encode() + content)
    return told.hexdigest()


@pytest.mark.parametrize("kind", NUM_MUTATIONS)
def test_whatever_is_done_to_it_is_refused(kind: str, bundle: Path, ring: KeyRing, tmp_path: Path) -> None:
    older = signed_bundle(tmp_path / "older" / "bundle", ring, seed=1)
    whole = signature_place(bundle).read_bytes()
    victim = tmp_path / "victim" / "bundle"
    seen: set[str] = set()
    for seed in range(20 * NUM_MUTATIONS[kind]):
        if len(seen) == NUM_MUTATIONS[kind]:
            break
        shutil.rmtree(victim.parent, ignore_errors=True)
        shutil.copytree(bundle, victim)
        shutil.copy(signature_place(bundle), signature_place(victim))
        named = getattr(Tampering(victim, older, seed), kind)()
        if kind == "flip_a_bit_of_the_signature" and _says_the_same(signature_place(victim), whole):
            continue
        if (state := state_of(victim)) in seen:
            continue
        seen.add(state)
        with pytest.raises(PlatformError) as caught:
            verify(victim, ring)
        error = caught.value
        assert isinstance(error, (IntegrityError, RefusedError)), f"{kind} {seed}: {error}"
        assert named and any(one in f"{error.what} {error.why}" for one in named), f"{kind} {seed}: {error}"
    assert len(seen) == NUM_MUTATIONS[kind]


DOCUMENTS = (
    *(
        "bundle.json",
        "sbom.cdx.json",
        "provenance.intoto.json",
        "reports/scan.json",
        "reports/export_check.json",
    ),
    *(
        "README.md",
        "LICENSE",
        "Dockerfile",
        "serve.yaml",
        "inference.py",
        "requirements.txt",
        "logs/metrics.jsonl",
    ),
    *(
        "adapter/adapter_model.safetensors",
        "adapter/tokenizer.json",
        "checkpoints/000010/optimizer.safetensors",
    ),
)


def test_reports_logs_and_checkpoints_are_covered_as_weights_are(ring: KeyRing, tmp_path: Path) -> None:
    """One bit in each, with a manifest that was made to fit: the signature alone has to find it."""
    folder = tmp_path / "bundle"
    content = {name: f"{name} as it was signed".encode() for name in DOCUMENTS}

    def write(changed: str | None) -> None:
        with ArtifactWriter(Location(str(folder)), kind="bundle") as writer:
            for name, told in content.items():
                (writer.path / name).parent.mkdir(parents=True, exist_ok=True)
                (writer.path / name).write_bytes(bytes([told[0] ^ 1]) + told[1:] if name == changed else told)
            writer.commit({}, replace=True)

    write(None)
    sign(folder, ring.signing_key("release"))
    verify(folder, ring)
    for name in DOCUMENTS:
        write(name)
        with pytest.raises(IntegrityError, match="does not fit") as caught:
            verify(folder, ring)
        assert f"{name} was signed with another content" in caught.value.why
    write(None)
    verify(folder, ring)


def _says_the_same(place: Path, whole: bytes) -> bool:
    """A bit of white space, or of base64 that nothing is read from, changes nothing that was signed."""
    import base64

    def told(content: bytes) -> object:
        found = json.loads(content)
        envelope = found["dsseEnvelope"]
        signed = [base64.b64decode(one["sig"]) for one in envelope["signatures"]]
        return (
            base64.b64decode(envelope["payload"]),
            signed,
            envelope["payloadType"],
            found["verificationMaterial"],
        )

    try:
        return told(place.read_bytes()) == told(whole)
    except (ValueError, KeyError, TypeError):
        return False
