"""A port that is taken: said before Ray starts, also where whoever listens would share it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from raytrain.errors import ClusterError
from raytrain.serving import launch
from raytrain.serving.section import ServingSection

pytestmark = pytest.mark.whole


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_port_that_is_taken_is_said(tiny_llama: Path, is_shared: bool) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=is_shared) as taken:
        port = taken.getsockname()[1]
        http = {"insecure": True, "port": port}
        section = ServingSection.model_validate({"base_model": str(tiny_llama), "http": http})
        with pytest.raises(ClusterError, match=f"nothing can be served at 127.0.0.1:{port}") as told:
            launch.start(section, None, print, verbose=False)
    assert "already in use" in told.value.why and "http.port=" in told.value.fix
