"""clusters/aws.yaml through Ray's launcher against a server that answers as EC2 does: what is asked of it.

No machine starts there, so that the launch ends where the head should answer over SSH. Workers are asked for as the
head's autoscaler does: by Ray's own provider, from the config that the launch made.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from bench import BIN, ROOT, free_port

REGION = "us-east-1"


@dataclass(frozen=True)
class Ec2:
    client: Any
    environment: dict[str, str]
    subnet: str
    group: str
    image: str

    def instances(self) -> list[dict[str, Any]]:
        reservations = self.client.describe_instances()["Reservations"]
        return [one for reservation in reservations for one in reservation["Instances"]]


@pytest.fixture
def ec2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ec2]:
    """An account with a private subnet, and a group of security that lets its own members in."""
    boto3 = pytest.importorskip("boto3")
    server_of = pytest.importorskip("moto.server").ThreadedMotoServer
    server = server_of(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray/auth_token").write_text("0" * 64)
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(home),
        "RAY_TMPDIR": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("ec2", REGION)
    vpc = client.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    subnet = client.create_subnet(VpcId=vpc, CidrBlock="10.20.1.0/24", AvailabilityZone=f"{REGION}a")
    subnet_id = subnet["Subnet"]["SubnetId"]
    # As careless as a subnet can be: it would give every node an address of its own.
    client.modify_subnet_attribute(SubnetId=subnet_id, MapPublicIpOnLaunch={"Value": True})
    group = client.create_security_group(GroupName="ours", Description="ours", VpcId=vpc)["GroupId"]
    image = client.describe_images()["Images"][0]["ImageId"]
    for name in ("head", "workers"):
        boto3.client("iam", REGION).create_instance_profile(InstanceProfileName=name)
    yield Ec2(client, environment, subnet_id, group, image)
    server.stop()


def filled_in(ec2: Ec2, folder: Path) -> Path:
    """The shipped file with this account's values in the place of every <…>."""
    iam = "arn:aws:iam::123456789012:instance-profile"
    text = (ROOT / "clusters/aws.yaml").read_text(encoding="utf-8")
    for old, new in {
        "<ami>": ec2.image, "<private subnet>": ec2.subnet, "<security group>": ec2.group,
        "<instance profile of the head>": f"{iam}/head", "<instance profile of the workers>": f"{iam}/workers",
    }.items():  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    file = folder / "aws.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def tags_of(instance: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


def assert_closed(instance: dict[str, Any], ec2: Ec2) -> None:
    assert instance["SubnetId"] == ec2.subnet
    assert not instance.get("PublicIpAddress"), "no address of its own, whatever the subnet says"
    (interface,) = instance["NetworkInterfaces"]
    assert interface["SubnetId"] == ec2.subnet
    assert [one["GroupId"] for one in interface["Groups"]] == [ec2.group]
    assert tags_of(instance)["project"] == "raytrain"
    assert tags_of(instance)["ray-cluster-name"] == "raytrain"


@pytest.mark.timeout(180)
@pytest.mark.thorough
def test_what_is_asked_of_ec2(ec2: Ec2, tmp_path: Path) -> None:
    file = filled_in(ec2, tmp_path)
    launch = subprocess.run(
        [str(BIN / "raytrain"), "cluster", "up", str(file), "--yes", "--wait-s", "5", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=150, check=False, env={**os.environ, **ec2.environment},
    )  # fmt: skip
    told = json.loads(launch.stdout)
    assert launch.returncode == 4 and told["error"]["kind"] == "cluster", launch.stdout + launch.stderr
    assert "did not answer over SSH" in told["error"]["why"], launch.stderr[-3000:]

    (head,) = ec2.instances()
    assert (head["InstanceType"], head["ImageId"]) == ("m7i.2xlarge", ec2.image)
    assert head.get("InstanceLifecycle") != "spot", "the head is on demand"
    assert head["IamInstanceProfile"]["Arn"].endswith("/head")
    assert tags_of(head)["ray-node-type"] == "head"
    assert_closed(head, ec2)
    (disk,) = ec2.client.describe_volumes()["Volumes"]
    assert (disk["Size"], disk["VolumeType"], disk["Encrypted"]) == (200, "gp3", True)
    assert len(ec2.client.describe_security_groups(GroupNames=["ours"])["SecurityGroups"]) == 1
    made = {one["GroupName"] for one in ec2.client.describe_security_groups()["SecurityGroups"]}
    assert not any(name.startswith("ray-autoscaler") for name in made), "no group of Ray's, open on port 22"

    ask_for_a_worker_as_the_head_does(file)
    (worker,) = [one for one in ec2.instances() if tags_of(one)["ray-node-type"] == "worker"]
    assert worker["InstanceType"] == "g6.2xlarge" and worker["InstanceLifecycle"] == "spot"
    assert worker["IamInstanceProfile"]["Arn"].endswith("/workers")
    assert_closed(worker, ec2)
    assert all(one["Size"] == 200 for one in ec2.client.describe_volumes()["Volumes"])


@pytest.mark.timeout(180)
@pytest.mark.thorough
def test_an_efa_is_asked_for_as_the_comment_says(ec2: Ec2, tmp_path: Path) -> None:
    file = filled_in(ec2, tmp_path)
    text, above = file.read_text(), "      NetworkInterfaces: *network\n      MetadataOptions: *metadata\n"
    assert text.count(above) == 1, "the workers' alone"
    text = text.replace(above, "      MetadataOptions: *metadata\n").replace("g6.2xlarge", "g6.8xlarge")
    start, end = text.index("      # NetworkInterfaces:"), text.index("      # Placement:")
    block = text[start : text.index("\n", end)]
    text = text.replace(block, block.replace("      # ", "      "))
    file.write_text(text.replace("<cluster placement group>", "near"))
    asked: list[dict[str, Any]] = []
    ask_for_a_worker_as_the_head_does(file, asked, cpus=32)
    (request,) = asked
    (interface,) = request["NetworkInterfaces"]
    assert (interface["InterfaceType"], interface["Groups"]) == ("efa", [ec2.group])
    assert request["Placement"] == {"GroupName": "near"}
    (worker,) = ec2.instances()
    assert_closed(worker, ec2)


def ask_for_a_worker_as_the_head_does(
    file: Path, asked: list[dict[str, Any]] | None = None, cpus: int = 8
) -> None:
    """asked: what is sent to EC2 is added to it."""
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    config = bootstrap_aws(prepare_config(yaml.safe_load(file.read_text())))
    config = AWSNodeProvider.fillout_available_node_types_resources(config)
    gpu = config["available_node_types"]["gpu"]
    assert gpu["resources"]["GPU"] == 1 and gpu["resources"]["CPU"] == cpus, "what the autoscaler plans with"
    assert gpu["resources"]["accelerator_type:L4"] == 1
    provider = AWSNodeProvider(copy.deepcopy(config["provider"]), config["cluster_name"])
    events = provider.ec2_fail_fast.meta.client.meta.events
    events.register(
        "provide-client-params.ec2.RunInstances",
        lambda params, **_: None if asked is None else asked.append(params),
    )
    tags = {"ray-node-type": "worker", "ray-user-node-type": "gpu", "ray-node-name": "ray-raytrain-worker"}
    provider.create_node(gpu["node_config"], tags, 1)
