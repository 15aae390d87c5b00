"""An application started on Ray, watched until it is ready, and ended."""

from __future__ import annotations

import atexit
import json
import logging
import os
import shlex
import shutil
import socket
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

from raytrain.cluster.connection import connect
from raytrain.errors import ClusterError, ConfigError
from raytrain.models.base import resolve_base_model
from raytrain.models.section import ModelSection
from raytrain.serving.haproxy import ENABLES_HAPROXY, haproxy_environment
from raytrain.serving.http.limits import Doorkeeper
from raytrain.serving.section import APPLICATION, ServingSection

IMPORT_PATH = "serve.app:build_application"
ENVIRONMENT = {"RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1"}
"""Of Ray's processes on the head: where Ray starts here it is set, elsewhere by whoever starts it. Ray Serve takes a
proxy for dead after three looks in vain, which are 10 s apart by default; until then nobody listens."""
_ASKED_EVERY_S = 0.25


def serve_config(section: ServingSection) -> dict[str, Any]:
    """The file that `serve deploy` and KubeRay's serveConfigV2 take. Pure."""
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": section.http.host, "port": section.http.port},
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": section.model_dump(mode="json"),
            }
        ],
    }


def start(section: ServingSection, address: str | None, tell: Callable[[str], None], *, verbose: bool) -> str:
    """On the cluster at `address`, or on one that begins and ends with this process; its URL, once all replicas are
    ready. `tell` takes a line of progress.

    Raises ClusterError where Ray cannot be reached, the port is taken, or a replica cannot be started; ConfigError
    where HAProxy is asked for and cannot be had.
    """
    if address is None:
        _check_here(section)
        for key, value in (ENVIRONMENT | _environment_of(section)).items():
            os.environ.setdefault(key, value)
    connect(address, verbose=verbose)
    if address is not None and section.http.haproxy:
        _check_there(address)
    from ray import serve

    from raytrain.serving.deployment import build_application

    if not verbose:
        logging.getLogger("ray.serve").setLevel(logging.ERROR)  # its import has made it loud again
    http = section.http
    application = build_application(section.model_dump(mode="json"))
    with ThreadPoolExecutor(1) as pool:
        try:
            serve.start(http_options={"host": http.host, "port": http.port})
            running = pool.submit(serve.run, application, name=APPLICATION, route_prefix="/")
            _watch(running, tell)
            running.result()
        except (RuntimeError, ValueError, OSError, RayError) as error:
            told = _messages(serve) or [str(error)]
            raise ClusterError(
                f"nothing is served at {http.host}:{http.port}",
                why=_last_words(told[0]),
                fix="put that right, and start it again; --verbose shows what Ray logs",
            ) from error
    return f"http://{http.host}:{http.port}"


def curl_line(url: str, model: str, question: str, *, with_key: bool = False) -> str:
    """What a person types to ask a chat. Pure."""
    body = json.dumps(
        {"model": model, "messages": [{"role": "user", "content": question}]}, ensure_ascii=False
    )
    key = ' -H "authorization: Bearer $RAYTRAIN_API_KEY"' if with_key else ""
    return f"curl {url}/v1/chat/completions -H 'content-type: application/json'{key} -d {shlex.quote(body)}"


def cluster_address() -> str:
    """Of the cluster that this process has joined."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def _environment_of(section: ServingSection) -> dict[str, str]:
    import ray

    asked = section.http.haproxy
    # A Ray that runs in this process already has settled it.
    if asked is False or (asked is None and ray.is_initialized()):
        return {}
    # Not below TMPDIR: to a path of this length Ray adds 57 characters and a name, and 97 is what HAProxy takes.
    folder = Path(tempfile.mkdtemp(prefix="raytrain-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        return haproxy_environment(folder)
    except ConfigError:
        if asked:
            raise
        return {}


def _check_there(address: str) -> None:
    """Raises ConfigError where the nodes' environment says nothing of HAProxy."""
    import ray

    def said() -> str | None:
        return os.environ.get(ENABLES_HAPROXY)

    if ray.get(ray.remote(num_cpus=0)(said).remote()) != "1":
        raise ConfigError(
            f"on {address} HAProxy does not listen",
            why="what listens was settled where Ray's nodes were started",
            fix=f"leave http.haproxy out, or start them with {ENABLES_HAPROXY}=1 in the environment",
        )


def _check_here(section: ServingSection) -> None:
    """What a replica would find wrong after Ray has started, several times. Raises what it would raise."""
    resolve_base_model(
        ModelSection.model_validate({"base_model": section.base_model}), section.storage.location
    )
    Doorkeeper(section.http)
    _check_port(section.http.host, section.http.port)


def _check_port(host: str, port: int) -> None:
    """Ray's proxies share a port with each other: a second server would take half of the first one's requests."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return
    except OSError as error:
        raise ClusterError(
            f"nothing can be served at {host}:{port}",
            why=f"it cannot be listened there: {error.strerror or error}",
            fix="end what listens there, or take another port: http.port=8001",
        ) from error


def _watch(running: Future[Any], tell: Callable[[str], None]) -> None:
    from ray import serve

    before = ""
    while not running.done():
        line = _progress(serve.status().applications.get(APPLICATION))
        if line and line != before:
            tell(line)
            before = line
        wait([running], timeout=_ASKED_EVERY_S)


def _messages(serve: Any) -> list[str]:
    """What deployments that are not healthy say."""
    found = serve.status().applications.get(APPLICATION)
    return [] if found is None else [one.message for one in found.deployments.values() if one.message]


def _progress(found: Any) -> str:
    """How many processes are in which state."""
    if found is None:
        return ""
    states: list[str] = []
    for name, one in found.deployments.items():
        told = [f"{num} {getattr(state, 'value', state)}" for state, num in one.replica_states.items()]
        states += [f"{name} {', '.join(told).lower()}"] if told else []
    return "; ".join(states)


def _last_words(message: str) -> str:
    """Of a traceback its last line that says something; of an error of ours what, why and fix."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    ours = next((place for place, line in enumerate(lines) if line.startswith("why:")), None)
    if ours:
        return " ".join(lines[ours - 1 : ours + 2])
    return lines[-1] if lines else "Ray Serve does not say"
