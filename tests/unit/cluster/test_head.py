"""How long a silent head is waited for, against real sockets of this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from raytrain.cluster.head import PATIENCE_S, HeadWatch
from raytrain.errors import ClusterError


def watch(port: int, *, silent_s: float) -> HeadWatch:
    """Of a head that answered so long ago, and that was not looked at lately."""
    now = time.monotonic()
    return HeadWatch("run sums-1", f"127.0.0.1:{port}", answered_at=now - silent_s, looked_at=now - 10)


@pytest.fixture
def deaf_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_head_that_answers_again_begins_anew() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = watch(server.getsockname()[1], silent_s=PATIENCE_S + 1)
        one.look()
        assert time.monotonic() - one.answered_at < 5


def test_one_that_is_silent_for_too_long_is_given_up_in_words(deaf_port: int) -> None:
    with pytest.raises(ClusterError) as caught:
        watch(deaf_port, silent_s=PATIENCE_S + 1).look()
    error = caught.value
    assert (error.exit_code, error.what) == (4, "run sums-1: the Ray cluster went away")
    assert f"127.0.0.1:{deaf_port} has not answered for 5" in error.why
    assert "the same command goes on" in error.fix


def test_one_that_is_silent_for_a_while_is_waited_for(deaf_port: int) -> None:
    one = watch(deaf_port, silent_s=PATIENCE_S - 5)
    before = one.answered_at
    one.look()
    assert one.answered_at == before


def test_it_is_not_looked_at_more_often_than_every_few_seconds(deaf_port: int) -> None:
    one = watch(deaf_port, silent_s=PATIENCE_S + 1)
    one.looked_at = time.monotonic()
    one.look()


LEAVES = """
import atexit, sys
from types import SimpleNamespace
from raytrain.cluster.head import leave
context = SimpleNamespace(gcs_address=sys.argv[1])
sys.modules["ray"] = SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context)
atexit.register(print, "farewell")
print("told", end=" ")
leave(int(sys.argv[2]))
"""


def leaves(port: int, code: int) -> tuple[int, str]:
    """How a process ends that has joined the cluster at this port, and what it has said by then."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVES, f"127.0.0.1:{port}", str(code)], capture_output=True, text=True
    )
    return done.returncode, done.stdout


def test_who_has_failed_does_not_wait_for_a_head_that_is_gone(deaf_port: int) -> None:
    assert leaves(deaf_port, 4) == (4, "told ")


def test_who_leaves_a_head_that_answers_bids_it_farewell(deaf_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert leaves(server.getsockname()[1], 4) == (4, "told farewell\n")
    assert leaves(deaf_port, 0) == (0, "told farewell\n"), "what went well is never cut short"
