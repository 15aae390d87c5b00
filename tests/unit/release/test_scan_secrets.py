"""A key is found wherever it stands in a text, and what only looks like one is let pass."""

from __future__ import annotations

import base64
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from planted import found, key_of, refused
from safetensors.numpy import save_file

from raytrain.release.keys import KeyRing
from raytrain.release.signing import sign, signature_place
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("Dockerfile", "ENV API_KEY=9f8Kq2LmZx7Wv4Tn1RbY6Pd3\n", "assigned_secret"),
        ("serve.yaml", "env_vars:\n  DB_PASSWORD: Tr0ub4dor&3xyz\n", "assigned_password"),
        ("config.json", '{"storage": "postgresql://raytrain:h7Gq-2kfP9@db:5432/runs"}', "connection_string"),
        ("config.yaml", 'cache: "kJ8vQm2Zr5Xw1Nt7Lp4Hs9Bd3Fg6Yc0AeUiOqTn"\n', "high_entropy"),
    ],
)
def test_secrets_without_an_issuer_s_form_are_found(name: str, text: str, kind: str, small: Path) -> None:
    (small / name).write_text(text)
    refused(small, name, kind)


@pytest.mark.slow
def test_a_key_in_a_large_document_is_found_and_a_generator_s_state_is_none(small: Path) -> None:
    words = {
        f"node {number}": {"name": f"linear_{number}", "trace": "line of code " * 5}
        for number in range(12_000)
    }
    state = base64.b64encode(random.Random(0).randbytes(2_500)).decode()
    (small / "model.json").write_text(json.dumps(words))
    (small / "random.json").write_text(json.dumps({"state": state}))
    assert found(small).findings == ()
    words["node 7"]["db_password"] = "Tr0ub4dor&3xyz"
    (small / "model.json").write_text(json.dumps(words))
    refused(small, "model.json", "assigned_password")


def test_a_key_in_the_provenance_to_be_written_is_found(small: Path) -> None:
    config = {"tracking": {"mlflow": f"https://me:{key_of()}@mlflow.example.org"}}
    report = found(small, documents={"manifest.json": {"config": config}})
    assert not report.passed and {one.file for one in report.findings} == {"manifest.json"}
    with ArtifactWriter(Location(str(small.with_name("sealed"))), kind="bundle") as writer:
        (writer.path / "a.txt").write_text("a")
        writer.commit({"config": config})
    refused(small.with_name("sealed"), "manifest.json")


def test_a_key_in_the_metadata_of_weights_is_found(small: Path) -> None:
    save_file({"x": np.zeros(4)}, small / "more.safetensors", metadata={"note": key_of()})
    refused(small, "more.safetensors", "github_token")


def test_a_key_under_a_name_that_stands_twice_cannot_hide(small: Path) -> None:
    (small / "twice.json").write_text(f'{{"note": "{key_of()}", "note": "nothing"}}')
    refused(small, "twice.json", "ambiguous_json")


def test_a_key_under_a_name_that_stands_twice_in_a_line_cannot_hide(small: Path) -> None:
    (small / "rows.jsonl").write_text(f'{{"n": 1}}\n{{"note": "{key_of()}", "note": "nothing"}}\n')
    report = refused(small, "rows.jsonl", "ambiguous_json")
    assert {one.line for one in report.findings} == {2}


@pytest.mark.parametrize("depth", [400, 700, 990, 5_000, 200_000])
def test_json_that_is_nested_deeply_is_read_or_refused_by_name(depth: int, small: Path) -> None:
    """Some readers come to their end before others do."""
    nested = "[" * depth + f'"{key_of()}"' + "]" * depth
    objects = '{"a":' * depth + f'"{key_of()}"' + "}" * depth
    envelope = {"payload": base64.b64encode(nested.encode()).decode(), "payloadType": "x", "signatures": []}
    texts = {
        "list.json": nested,
        "objects.json": objects,
        "rows.jsonl": nested + "\n",
        "envelope.json": json.dumps(envelope),
    }
    for name, text in texts.items():
        (small / name).write_text(text)
    header = nested.encode()
    (small / "m.safetensors").write_bytes(
        (len(header) + 5).to_bytes(8, "little") + b'{"x":' + header + bytes(4)
    )
    with zipfile.ZipFile(small / "m.pt2", "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/data/weights/x_config.json", nested)
    report = found(small)
    files = {one.file.split("!")[0] for one in report.findings}
    assert files == {*texts, "m.safetensors", "m.pt2"}, report.findings


def test_a_payload_that_is_no_json_is_read(small: Path) -> None:
    payload = base64.b64encode(f"words and {key_of()}".encode()).decode()
    content = {"payload": payload, "payloadType": "text/plain", "signatures": []}
    (small / "envelope.json").write_text(json.dumps(content))
    refused(small, "envelope.json", "github_token")


def test_a_key_as_the_name_of_a_file_is_found(small: Path) -> None:
    (small / f"{key_of()}.txt").write_text("x")
    assert not found(small).passed


def test_digests_and_signatures_are_no_secrets(small: Path, ring: KeyRing) -> None:
    with ArtifactWriter(Location(str(small.with_name("signed"))), kind="bundle") as writer:
        (writer.path / "a.txt").write_text("a")
        writer.commit({"config": {}})
    sign(small.with_name("signed"), ring.signing_key("release"))
    content = json.loads(signature_place(small.with_name("signed")).read_bytes())
    (small / "evidence.json").write_text(json.dumps(content))
    (small / "ring.json").write_bytes((ring.folder / "ring.json").read_bytes())
    (small / "page.html").write_text(
        f"<meta content=\"'sha256-{base64.b64encode(bytes(range(32))).decode()}'\">\n"
    )
    (small / "short.json").write_text(json.dumps({"version": "b350567f8449", "dataset": "35b11c2ba9acc001"}))
    assert found(small).findings == ()
    payload = {"note": key_of()}
    content["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    (small / "evidence.json").write_text(json.dumps(content))
    refused(small, "evidence.json", "github_token")
