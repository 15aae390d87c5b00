"""Optuna's own dashboard over the records database."""

from __future__ import annotations

from collections.abc import Callable

from raytrain.errors import ConfigError
from raytrain.tuning.study import open_storage


def serve_dashboard(port: int, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C, on this machine alone. Raises ConfigError where the extra is not installed."""
    try:
        from optuna_dashboard import run_server
    except ImportError as error:
        raise ConfigError(
            "optuna-dashboard is not installed",
            why=str(error),
            fix="pip install 'raytrain[dashboard]'",
        ) from error
    say(f"Optuna's dashboard: http://127.0.0.1:{port} (Ctrl-C ends it)")
    run_server(open_storage(), host="127.0.0.1", port=port)
