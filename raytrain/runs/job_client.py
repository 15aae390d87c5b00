"""Ray's Jobs API of a cluster: reached within seconds or refused with what was tried."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import raytrain
from raytrain.cluster.installed import SENT_BY
from raytrain.cluster.token import WrongTokenError
from raytrain.errors import ClusterError, ConfigError

DEFAULT_PORT = 8265
WITHIN_S = 8.0
"""A command that cannot reach its cluster says so before ten seconds are over."""

STOP_WITHIN_S = 600
"""Ray gives a stopped job 3 s by default, too short for a checkpoint."""

_ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"


def jobs_url(address: str | None) -> str:
    """`address` as a URL: host, host:port or http(s)://…; None = from the environment. ConfigError without one."""
    address = address or os.environ.get(_ADDRESS_VARIABLE)
    if address is None:
        raise ConfigError(
            "no cluster is named",
            why="a job is sent to the Jobs API of a cluster, which is at the port of its dashboard",
            fix=f"add --address http://HEAD:{DEFAULT_PORT}, or set {_ADDRESS_VARIABLE}",
        )
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"`{address}` is no address of a Jobs API",
            why="it is that of a cluster's dashboard: http:// or https://, a host, a port",
            fix=f"for example --address http://HEAD:{DEFAULT_PORT}",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = port or (443 if parts.scheme == "https" else DEFAULT_PORT)
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def connect_jobs(address: str | None, within_s: float = WITHIN_S) -> Any:
    """Ray's JobSubmissionClient for the cluster, with the token of RAY_AUTH_TOKEN or ~/.ray/auth_token.

    Raises ClusterError: nobody answers, what answers is no dashboard, the token is wrong, or its Ray is another.
    """
    url = jobs_url(address)
    _check_it_answers(url, within_s)
    import ray

    from raytrain.runs.bounded_client import BoundedJobClient

    try:
        with _named(url):
            client = BoundedJobClient(url)
        theirs = client._do_request("GET", "/api/version").json()["ray_version"]
    except WrongTokenError:
        raise
    except (ConnectionError, RuntimeError, ValueError, KeyError, OSError) as error:
        raise ClusterError(
            f"{url} is no Jobs API of a Ray cluster",
            why=first_line(error),
            fix=f"give the address of the cluster's dashboard, at port {DEFAULT_PORT} unless it was set",
        ) from error
    if theirs != ray.__version__:
        raise ClusterError(
            f"the cluster at {url} has Ray {theirs}, this machine has {ray.__version__}",
            why="a job and the Ray that runs it must be of one version",
            fix=f"pip install 'ray[train,tune,serve]=={theirs}' here, or the other on the cluster",
        )
    return client


def _check_it_answers(url: str, within_s: float) -> None:
    """Ray's client by itself would wait without a limit for a server that takes a call and says nothing."""
    import requests

    deadline, tried, last = time.monotonic() + within_s, 0, "nothing"
    while tried == 0 or time.monotonic() < deadline:
        tried += 1
        try:
            requests.get(f"{url}/api/version", timeout=max(0.5, deadline - time.monotonic()))
            return
        except requests.exceptions.InvalidURL as error:
            raise ConfigError(f"`{url}` is no address", why=str(error), fix="check --address") from error
        except requests.exceptions.RequestException as error:
            last = _reason(error)
            if not isinstance(error, requests.exceptions.ConnectionError) or "refused" not in last:
                break
        time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
    raise ClusterError(
        f"no Ray cluster answers at {url}",
        why=f"asked {url}/api/version {tried} times within {within_s:g} s: {last}",
        fix=f"check that the cluster is up and the address is its dashboard's (port {DEFAULT_PORT} by default; "
        "6379 is another); for a cluster behind a firewall: `ray dashboard CLUSTER.yaml` forwards it",
    )


def _reason(error: BaseException) -> str:
    """requests tells a refusal as three objects inside one another."""
    text = str(error)
    for sign, told in (
        ("refused", "connection refused"),
        ("timed out", "no answer"),
        ("resolve", "the name is not known"),
        ("Name or service", "the name is not known"),
        ("BadStatusLine", "what answers there does not speak HTTP"),
        ("RemoteDisconnected", "what answers there does not speak HTTP"),
        ("Connection aborted", "what answers there does not speak HTTP"),
    ):
        if sign in text:
            return told
    return first_line(error)


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Ray puts this variable above the address that it is given."""
    before = os.environ.get(_ADDRESS_VARIABLE)
    os.environ[_ADDRESS_VARIABLE] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ADDRESS_VARIABLE]
        else:
            os.environ[_ADDRESS_VARIABLE] = before


def upload_package(client: Any, package: str) -> str:
    """Send a zip file to the cluster, where it does not have it yet; returns the name that it has there."""
    with _refusal(f"the cluster did not take the package {package}"):
        uri: str = client._upload_package_if_needed(package, include_gitignore=False, is_file=True)
    return uri


def submit_command(
    client: Any,
    words: Sequence[str],
    *,
    submission_id: str | None,
    package: str | None,
    environment: Mapping[str, str],
    metadata: Mapping[str, str],
) -> str:
    """Have the cluster run `raytrain` with these words; returns the submission's id. ClusterError where it will not.

    `package` is a zip file, or what `upload_package` returned.
    """
    runtime_env: dict[str, Any] = {
        "env_vars": {
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WITHIN_S),
            SENT_BY: raytrain.__version__,
            **environment,
        }
    }
    if package is not None:
        runtime_env["working_dir"] = package
    with _refusal(f"the cluster did not take the job {submission_id or ''}".rstrip()):
        submitted: str = client.submit_job(
            entrypoint=shlex.join(["python", "-m", "raytrain", *words]),
            submission_id=submission_id,
            runtime_env=runtime_env,
            metadata=dict(metadata),
        )
    return submitted


@contextmanager
def _refusal(what: str) -> Iterator[None]:
    try:
        yield
    except WrongTokenError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        raise ClusterError(
            what, why=first_line(error), fix="look at its dashboard; `ray job list` shows what it has"
        ) from error


def first_line(error: BaseException) -> str:
    """What an error of a library says, shortened; its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
