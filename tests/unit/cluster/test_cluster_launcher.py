"""Cluster files that Ray would not take, and Ray's own failures in our words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from raytrain.cli.main import run
from raytrain.cluster.launch import ray_launcher
from raytrain.cluster.launch.cluster_file import read_cluster
from raytrain.cluster.launch.ray_launcher import launch_failure, run_ray
from raytrain.errors import ClusterError, ConfigError

ROOT = Path(__file__).parents[3]
LOCAL = (
    "cluster_name: mine\nprovider: {type: local, head_ip: 127.0.0.1, worker_ips: []}\nauth: {ssh_user: me}\n"
)
AWS = (
    "cluster_name: mine\nmax_workers: 1\nprovider: {type: aws, region: us-east-1}\nauth: {ssh_user: me}\n"
    "head_node_type: head\navailable_node_types:\n  head: {resources: {}, node_config: {}}\n"
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("- aws\n", "a cluster file is a mapping"),
        ("provider: {type: aws}\n", r"cluster\.yaml.*cluster_name"),
        ("cluster_name: mine\n", r"cluster\.yaml.*provider"),
        ("cluster_name: mine\nprovider: aws\n", r"cluster\.yaml:2: provider"),
        (f"{LOCAL}idle_timeout: 5\n", r"idle_timeout"),
        (f"{LOCAL}idle_timeout_minutes: soon\n", r"cluster\.yaml:4: idle_timeout_minutes: 'soon'"),
        (f"{LOCAL}cluster_name: other\n", r"cluster\.yaml:4: the key `cluster_name` stands twice"),
        (
            "cluster_name: mine\nprovider: {type: vsphere}\n",
            r"cluster\.yaml:2: provider\.type: vsphere is not checked",
        ),
        ("cluster_name: mine\nprovider: {type: local}\n", r"head_ip"),
        (AWS.replace("head_node_type: head", "head_node_type: boss"), r"head_node_type"),
        (f"{AWS}  gpu: {{resources: {{}}, node_config: {{}}, min_workers: 4}}\n", r"max_workers"),
        (
            f"{AWS}  gpu: {{resources: {{}}}}\n",
            r"cluster\.yaml:\d+: available_node_types\.gpu: .*node_config",
        ),
        (f"{AWS}  gpu: {{resources: {{GPU: some}}, node_config: {{}}}}\n", r"gpu\.resources\.GPU"),
    ],
)
def test_a_file_that_ray_would_not_take(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=told) as raised:
        read_cluster(file)
    assert raised.value.why and raised.value.fix


def test_several_faults_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(f"{LOCAL}max_workers: many\nidle_timeout_minutes: soon\n")
    with pytest.raises(ConfigError) as raised:
        read_cluster(file)
    told = str(raised.value)
    assert "cluster.yaml:4" in told and "cluster.yaml:5" in told


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such cluster file"):
        read_cluster(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("lines", "why", "fix"),
    [
        (
            ["botocore.exceptions.NoCredentialsError: Unable to locate credentials"],
            "no credentials",
            "aws configure",
        ),
        (["ModuleNotFoundError: No module named 'googleapiclient'"], "googleapiclient", "install"),
        (["me@10.0.0.4: Permission denied (publickey)."], "(publickey)", "auth.ssh_private_key"),
        (["Error message: wait_ready timeout exceeded."], "did not answer over SSH", "ssh -i"),
        (["Head node of cluster (mine) not found!"], "mine", "cluster up"),
        (
            ["one", "An error occurred (InvalidSubnetID.NotFound)", "", "bye"],
            "InvalidSubnetID",
            "cluster down",
        ),
        (["one", "two"], "two", "cluster down"),
        ([], "said nothing", "cluster down"),
    ],
)
def test_what_ray_s_failures_are_called(lines: list[str], why: str, fix: str) -> None:
    error = launch_failure(["up", "file"], 1, lines)
    assert error.exit_code == 4 and "`ray up` ended with exit code 1" in error.what
    assert why in error.why and fix in error.fix


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [([], [], 0), (["-p", "8265", "--port-forward", "6006"], ["-p", "8265", "-p", "6006"], 255)],
)
def test_attach_hands_the_terminal_to_ray_and_ends_as_it_does(
    options: list[str], words: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.scripts.scripts import attach

    assert [str(Path(sys.executable).with_name("ray"))] == list(ray_launcher._RAY)
    program, told = tmp_path / "ray", tmp_path / "told"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {told}\nexit {code}\n')
    program.chmod(0o755)
    monkeypatch.setattr(ray_launcher, "_RAY", (str(program),))
    file = tmp_path / "cluster.yaml"
    file.write_text(LOCAL)
    assert run(["cluster", "attach", str(file), *options]) == code
    given = told.read_text().splitlines()
    assert given == ["attach", str(file), *words]
    taken = attach.make_context("attach", given[1:]).params  # by Ray's own command
    assert taken["cluster_config_file"] == str(file)
    assert taken["port_forward"] == tuple(int(word) for word in words if word != "-p")


@pytest.mark.slow
def test_a_cluster_that_is_not_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    file = tmp_path / "cluster.yaml"
    file.write_text(LOCAL.replace("mine", "nobody-launched-this"))
    shown: list[str] = []
    with pytest.raises(ClusterError, match="`ray get-head-ip` ended") as raised:
        run_ray(read_cluster(file), ["get-head-ip", str(file)], shown.append)
    assert "nobody-launched-this" in raised.value.why and "cluster up" in raised.value.fix
    assert any("not found" in line for line in shown), "Ray's own words are shown as well"
