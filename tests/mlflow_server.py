"""MLflow's own server in a process of its own, with SQLite by default, and a proxy before it that fails when told."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

from object_server import Proxy, free_port, handler_of


@contextmanager
def mlflow_server(
    folder: Path,
    *options: str,
    program: Sequence[str] = (sys.executable, "-m", "mlflow"),
    database: str | None = None,
    workers: int = 1,
) -> Iterator[Proxy]:
    """options: of `mlflow server`. database: the URL of another than SQLite's. Behind the proxy, which lets one request
    pass at a time, it is at `moto_port`."""
    port = free_port()
    command = [*program, "server", "--port", str(port), "--workers", str(workers)]
    command += ["--backend-store-uri", database or f"sqlite:///{folder}/mlflow.db"]
    command += options or ["--artifacts-destination", str(folder / "kept")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        try:
            _wait_for(port, process, folder / "log")
            proxy = Proxy(port)
            listening = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(proxy))
            listening.daemon_threads = True
            proxy.port = listening.server_address[1]
            threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
            yield proxy
            listening.shutdown()
            listening.server_close()
        finally:
            os.killpg(process.pid, 15)  # it has children of its own
            process.wait(timeout=30)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())
