"""A PostgreSQL server of our own: its data in a folder, its port any, its superuser `raytrain` without a password."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_ACCOUNT = "postgres" if os.geteuid() == 0 else None  # it refuses to be run by root


@contextmanager
def postgres_server() -> Iterator[str]:
    """An SQLAlchemy URL without a database's name. Skips the test where PostgreSQL or its driver is not installed."""
    pytest.importorskip("psycopg")
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)  # not on PATH there
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *debian])
    programs = [shutil.which(name, path=places) for name in ("initdb", "postgres")]
    if None in programs:
        pytest.skip("PostgreSQL is not installed on this machine")
    initdb, postgres = map(str, programs)
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    options: dict[str, Any] = {"user": _ACCOUNT, "cwd": "/", "stdout": subprocess.DEVNULL}
    if _ACCOUNT:
        shutil.chown(folder, _ACCOUNT)
    data = folder / "data"
    words = ["-D", str(data), "-U", "raytrain", "--auth=trust", "--no-sync", "--locale=C.UTF-8"]
    subprocess.run([initdb, *words], check=True, **options)
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    settings = [
        "-c",
        "fsync=off",
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        f"unix_socket_directories={folder}",
    ]
    log = (folder / "log").open("wb")
    server = subprocess.Popen([postgres, "-D", str(data), "-p", str(port), *settings], stderr=log, **options)
    try:
        url = f"postgresql+psycopg://raytrain@127.0.0.1:{port}"
        _wait_for(url, server, folder / "log")
        yield url
    finally:
        server.send_signal(signal.SIGINT)  # at SIGTERM it waits for clients that are still connected
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url.replace("+psycopg", "") + "/postgres").close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def new_database(server: str, name: str) -> str:
    """Its URL."""
    import psycopg

    with psycopg.connect(server.replace("+psycopg", "") + "/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{server}/{name}"


@contextmanager
def broken_connections(server: str, when: Callable[[], bool]) -> Iterator[None]:
    """Inside the block and whenever it is time, all connections to it break, in whatever they are doing."""
    import psycopg

    is_over = threading.Event()
    others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"

    def break_them() -> None:
        with psycopg.connect(server.replace("+psycopg", "") + "/postgres", autocommit=True) as connection:
            while not is_over.wait(0.001):
                if when():
                    connection.execute(f"SELECT pg_terminate_backend(pid) {others}")

    breaking = threading.Thread(target=break_them, daemon=True)
    breaking.start()
    try:
        yield
    finally:
        is_over.set()
        breaking.join()
