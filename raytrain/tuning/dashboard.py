"""Optuna's own dashboard over the records database."""

from __future__ import annotations

import socket
from collections.abc import Callable

from raytrain.errors import ConfigError
from raytrain.tuning.study_storage import open_storage

_HOST = "127.0.0.1"


def serve_dashboard(port: int, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C, on this machine alone. Raises ConfigError where the extra is not installed, or the port is
    taken."""
    try:
        from optuna_dashboard import run_server
    except ImportError as error:
        raise ConfigError(
            "optuna-dashboard is not installed",
            why=str(error),
            fix="pip install 'raytrain[dashboard]'",
        ) from error
    try:
        socket.create_server((_HOST, port)).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"port {port} of {_HOST} cannot be listened on",
            why=str(error),
            fix="choose another: raytrain tune dashboard --port 8081",
        ) from error
    say(f"Optuna's dashboard: http://{_HOST}:{port} (Ctrl-C ends it)")
    run_server(open_storage(), host=_HOST, port=port)
