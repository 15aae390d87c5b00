"""The cluster files that come with raytrain: Ray takes them, the rules find nothing, and they say the same."""

from __future__ import annotations

import copy
import platform
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from raytrain.cluster.launch.check import Checked, check_cluster
from raytrain.cluster.launch.demand_rules import resources_of
from raytrain.cluster.launch.machines import load_machines
from raytrain.cluster.launch.nodes import node_types

ROOT = Path(__file__).parents[3]
CLOUDS = ["aws", "gcp", "azure"]
ALL = [*CLOUDS, "onprem"]


def file_of(name: str) -> Path:
    return ROOT / "clusters" / f"{name}.yaml"


def checked(name: str) -> Checked:
    return check_cluster(file_of(name), load_machines(), root=ROOT)


def as_ray_reads_it(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(file_of(name).read_text(encoding="utf-8"))
    return values


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_wrong_with_it(name: str) -> None:
    found = checked(name)
    assert found.passed and not found.of("warning"), [one.as_dict() for one in found.of("error", "warning")]
    waiting = {one.rule for one in found.of("unfilled")}
    assert waiting <= {"unfilled", "missing-file"} and "unfilled" in waiting
    missing = [one.key for one in found.findings if one.rule == "missing-file"]
    assert missing in ([], ["file_mounts.~/.ray/auth_token"]), "only the token is each reader's own"


@pytest.mark.parametrize("name", ALL)
def test_ray_s_launcher_takes_it(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    values = as_ray_reads_it(name)
    prepared = prepare_config(copy.deepcopy(values))
    validate_config(prepared)
    assert prepared["setup_commands"] == values["setup_commands"], (
        "not Ray's own, which install a nightly build"
    )
    types = prepared["available_node_types"]
    assert all("max_workers" in one for one in types.values())


@pytest.mark.parametrize("name", CLOUDS)
def test_a_head_on_demand_and_spot_workers_with_gpus(name: str) -> None:
    found, table = checked(name), load_machines()
    head, worker = node_types(found.cluster)
    assert head.is_head and not head.is_spot and worker.is_spot
    assert (head.min_nodes, head.max_nodes) == (1, 1)
    assert worker.min_nodes == 0 and worker.max_nodes == as_ray_reads_it(name)["max_workers"]
    have = resources_of(worker, found.cluster.provider_type, table)
    known = table.machine(found.cluster.provider_type, worker.instance)
    assert known is not None and known.gpu is not None
    assert have == {"CPU": known.cpus, "GPU": known.gpus, f"accelerator_type:{known.gpu}": 1}
    assert resources_of(head, found.cluster.provider_type, table)["CPU"] == 0
    assert found.price is not None and not found.price.unknown and found.price.has_spot
    machine = table.machine(found.cluster.provider_type, head.instance)
    assert machine is not None
    assert found.price.least == pytest.approx(machine.price)
    assert found.price.most == pytest.approx(machine.price + worker.max_nodes * known.price, abs=1e-4)


def test_nothing_is_rented_for_machines_of_one_s_own() -> None:
    assert checked("onprem").price is None


@pytest.mark.parametrize("name", ALL)
def test_nodes_get_what_they_install(name: str) -> None:
    values = as_ray_reads_it(name)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    commands = [
        *values["setup_commands"],
        *values.get("head_setup_commands", []),
        *values.get("worker_setup_commands", []),
    ]
    assert commands
    for command in commands:
        words = command.split()
        assert words[:2] == ["bash", "~/raytrain/clusters/install.sh"]
        assert platform.python_version().startswith(words[2])
        assert set(words[3].split(",")) <= extras.keys()
    for key in ("readme", "name"):
        assert key in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    mounted = {Path(str(one)).name for one in values["file_mounts"]}
    assert {
        "raytrain",
        "pyproject.toml",
        "README.md",
        "constraints.txt",
        "install.sh",
        "auth_token",
    } <= mounted


def test_all_start_ray_alike() -> None:
    heads = {tuple(as_ray_reads_it(name)["head_start_ray_commands"]) for name in ALL}
    workers = {tuple(as_ray_reads_it(name)["worker_start_ray_commands"]) for name in ALL}
    mounts = {tuple(as_ray_reads_it(name)["file_mounts"].items()) for name in ALL}
    assert (len(heads), len(workers), len(mounts)) == (1, 1, 1)


@pytest.mark.parametrize("name", ALL)
def test_workers_talk_over_no_interface_of_docker(name: str) -> None:
    (start,) = [one for one in as_ray_reads_it(name)["worker_start_ray_commands"] if "ray start" in one]
    before, _ = start.split("ray start")
    assert "NCCL_SOCKET_IFNAME=^lo,docker" in before.split(), (
        "for Ray's processes, and with them for the workers"
    )


def _is_tagged(name: str, config: dict[str, Any]) -> bool:
    if name == "aws":
        tagged = {one["ResourceType"]: one["Tags"] for one in config["TagSpecifications"]}
        return all(
            tagged[kind] == [{"Key": "project", "Value": "raytrain"}] for kind in ("instance", "volume")
        )
    found: object = config["labels" if name == "gcp" else "tags"]
    return found == {"project": "raytrain"}


@pytest.mark.parametrize("name", CLOUDS)
def test_every_node_says_whose_it_is(name: str) -> None:
    """For the bill; machines of one's own have none."""
    types = as_ray_reads_it(name)["available_node_types"]
    assert len(types) == 2
    for one in types.values():
        assert _is_tagged(name, one["node_config"])


def test_the_lock_is_of_this_ray() -> None:
    assert f"\nray=={ray.__version__}\n" in (ROOT / "constraints.txt").read_text()


def test_the_script_that_installs(tmp_path: Path) -> None:
    script = ROOT / "clusters/install.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    # Everything is installed already: it says so, and asks no index.
    place = tmp_path / "raytrain"
    (place / "clusters").mkdir(parents=True)
    (place / "raytrain").mkdir()
    for name in ("constraints.txt", "pyproject.toml", "clusters/install.sh"):
        (place / name).write_bytes((ROOT / name).read_bytes())
    (place / "raytrain/one.py").write_text("ONE = 1\n")
    home = tmp_path / "home"
    for folder in (".uv/bin", ".raytrain-environment"):
        (home / folder).mkdir(parents=True)
    told = home / "told"
    uv = home / ".uv/bin/uv"
    uv.write_text(f'#!/bin/bash\necho "$@" >>{told}\n')
    uv.chmod(0o755)

    def install(*arguments: str) -> str:
        return subprocess.run(
            ["bash", str(place / "clusters/install.sh"), *arguments],
            env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    install("3.11", "s3", "boto3")
    made, installed = told.read_text().splitlines()
    assert "--python 3.11" in made and made.endswith(".raytrain-environment")
    assert re.search(r"-c constraints\.txt \.\[s3\] boto3$", installed)
    bashrc = (home / ".bashrc").read_text()
    assert "export RAY_AUTH_MODE=token\n" in bashrc and ".raytrain-environment/bin:$PATH" in bashrc
    assert install("3.11", "s3", "boto3") == "raytrain is installed\n"
    assert len(told.read_text().splitlines()) == 2 and (home / ".bashrc").read_text() == bashrc
    (place / "raytrain/one.py").write_text("ONE = 2\n")
    install("3.11", "s3", "boto3")
    assert len(told.read_text().splitlines()) == 4, "other code is installed"
