"""A registry on Azure's blob storage: the contract against Azurite, Microsoft's own emulator, which comes from npm."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra raytrain[s3] is not installed")

from object_stores import Bucket
from registry_contract import RegistryContract
from shelf_contract import ShelfContract

ROOT = Path(__file__).parents[3]
AZURITE = shutil.which("azurite-blob", path=f"{ROOT}/.venv/node_modules/.bin") or shutil.which("azurite-blob")
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(AZURITE is None, reason="npm install --prefix .venv azurite"),
]

ACCOUNT, CONTAINER = "devstoreaccount1", "box"
KEY = base64.b64encode(b"the emulator takes any").decode()
"""Of this emulator alone."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    place = tmp_path_factory.mktemp("azurite")
    command = [
        str(AZURITE),
        "--silent",
        "--disableTelemetry",
        "--skipApiVersionCheck",
        "--inMemoryPersistence",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURITE_ACCOUNTS", f"{ACCOUNT}:{KEY}")
        process = subprocess.Popen([*command, "--blobPort", str(port)], cwd=place)
    try:
        make_container(port)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def make_container(port: int) -> None:
    """Once the emulator listens. Signed as Azure's Shared Key asks for."""
    date, version = email.utils.formatdate(usegmt=True), "2021-08-06"
    signed = "\n".join(
        [
            *("PUT", *[""] * 11),
            *(f"x-ms-date:{date}", f"x-ms-version:{version}"),
            *(f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}", "restype:container"),
        ]
    )
    mac = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {ACCOUNT}:{mac}"}
    url = f"http://127.0.0.1:{port}/{ACCOUNT}/{CONTAINER}?restype=container"
    request = urllib.request.Request(url, method="PUT", headers={**headers, "Content-Length": "0"})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with (
            suppress(ConnectionError, urllib.error.URLError),
            urllib.request.urlopen(request, timeout=10) as answer,
        ):
            assert answer.status == 201
            return
        time.sleep(0.2)
    raise AssertionError("Azurite does not listen")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)


@pytest.fixture
def place(port: int, tmp_path: Path) -> Bucket:
    options = f"endpoint_override=127.0.0.1:{port}/{ACCOUNT}&scheme=http&timeout_s=20"
    return Bucket(f"az://{CONTAINER}/{tmp_path.name}/registry?{options}")


class TestAzure(RegistryContract):
    start_method = "spawn"  # the client has threads


class TestShelfOnAzure(ShelfContract):
    pass
