"""Each rule finds its fault, with file, line and key; the shipped files, changed in one place, are the cases."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from raytrain.cluster.launch.check import check_cluster, refuse
from raytrain.cluster.launch.cluster_file import Finding
from raytrain.cluster.launch.demand_rules import load_demand
from raytrain.cluster.launch.machines import load_machines
from raytrain.cluster.section import WorkersSection
from raytrain.errors import ConfigError

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[3]
GPU_WORKERS = "available_node_types.gpu.node_config"
HEAD = "available_node_types.head.node_config"


@dataclass(frozen=True)
class Case:
    """`old` in a shipped file becomes `new`, and a rule says so at `key`."""

    name: str
    old: str
    new: str
    rule: str
    key: str
    level: str = "error"

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.rule}: {self.new.strip().splitlines()[0] if self.new.strip() else 'removed'}"
        )


CASES = [
    # who can reach it
    Case("aws", "use_internal_ips: true", "use_internal_ips: false", "public-address", "provider.use_internal_ips"),
    Case("gcp", "  use_internal_ips: true\n", "", "public-address", "provider.use_internal_ips"),
    Case(
        "azure", "use_internal_ips: true", "use_internal_ips: true\n  use_external_head_ip: true",
        "public-address", "provider.use_external_head_ip",
    ),
    Case(
        "azure", "use_internal_ips: true", "use_internal_ips: true\n  use_external_head_ip: true",
        "open-port", "provider.use_external_head_ip",
    ),
    Case("azure", "use_internal_ips: true", "use_internal_ips: false", "open-port", "provider.use_internal_ips"),
    Case("azure", "  use_internal_ips: true\n", "", "open-port", "provider.use_internal_ips"),
    Case(
        "aws", "PublicIpAddress: false", "PublicIpAddress: true",
        "public-address", f"{HEAD}.NetworkInterfaces.0.AssociatePublicIpAddress",
    ),
    Case(
        "aws", "          AssociatePublicIpAddress: false\n", "",
        "public-address", f"{HEAD}.NetworkInterfaces.0.AssociatePublicIpAddress", "warning",
    ),
    Case(
        "gcp", "nicType: GVNIC}", "nicType: GVNIC, accessConfigs: [{type: ONE_TO_ONE_NAT}]}",
        "public-address", f"{HEAD}.networkInterfaces.0.accessConfigs",
    ),
    Case("gcp", "      networkInterfaces: *network\n", "", "public-address", GPU_WORKERS),
    Case(
        "azure", "        osDiskSize: 200\n", "        osDiskSize: 200\n        provisionPublicIp: true\n",
        "public-address", f"{HEAD}.azure_arm_parameters.provisionPublicIp",
    ),
    Case(
        "aws", "  cache_stopped_nodes: false",
        "  security_group: {IpPermissions: [{FromPort: 8265, ToPort: 8265, IpProtocol: tcp, "
        "IpRanges: [{CidrIp: 0.0.0.0/0}]}]}\n  cache_stopped_nodes: false",
        "open-port", "provider.security_group.IpPermissions.0",
    ),
    Case("aws", "          Groups: [<security group>]\n", "", "open-port", HEAD),
    Case(
        "aws", "\nauth:", '\ndocker: {image: "r", container_name: c, run_options: ["-p 8265:8265"]}\nauth:',
        "open-port", "docker.run_options.0",
    ),
    *(
        Case(
            "aws", "\nauth:", f'\ndocker: {{image: "r", container_name: c, run_options: ["{option}"]}}\nauth:',
            "open-port" if is_open else "", "docker.run_options.0",
        )
        for option, is_open in [
            ("-P", True), ("-itP", True), ("--publish-all", True), ("--publish-all=true", True),
            ("-p 127.0.0.1:80:80 -p 8265:8265", True),
            ("--publish-all=false", False), ("-p 127.0.0.1:8265:8265", False), ("--pid=host", False),
        ]
    ),
    *(
        Case(
            "aws", "  cache_stopped_nodes: false",
            "  security_group: {IpPermissions: [{FromPort: 22, ToPort: 22, IpProtocol: tcp, "
            f"{ranges}}}]}}\n  cache_stopped_nodes: false",
            "open-port" if is_open else "", "provider.security_group.IpPermissions.0",
        )
        for ranges, is_open in [
            ("IpRanges: [{CidrIp: 0.0.0.0/1}, {CidrIp: 128.0.0.0/1}]", True),
            ("IpRanges: [{CidrIp: 64.0.0.0/7}]", True),
            ("Ipv6Ranges: [{CidrIpv6: '2000::/3'}]", True),
            ("IpRanges: [{CidrIp: 10.0.0.0/8}, {CidrIp: 203.0.113.0/24}]", False),
            ("Ipv6Ranges: [{CidrIpv6: 'fd00::/8'}, {CidrIpv6: '2001:db8::/32'}]", False),
        ]
    ),
    Case("onprem", "host=127.0.0.1", "host=0.0.0.0", "open-dashboard", "head_start_ray_commands.1"),
    Case("gcp", "--dashboard-host=127.0.0.1", "--dashboard-host '::'", "open-dashboard", "head_start_ray_commands.1"),
    Case("azure", "RAY_AUTH_MODE=token ray start --head", "ray start --head", "no-token", "head_start_ray_commands.1"),
    Case(
        "aws", "RAY_AUTH_MODE=token NCCL", "RAY_AUTH_MODE=disabled NCCL", "no-token", "worker_start_ray_commands.1"
    ),
    Case("aws", "  ~/.ray/auth_token: ~/.ray/auth_token", "", "no-token", "file_mounts"),
    # the nodes
    Case(
        "aws", "      TagSpecifications: &tags",
        "      InstanceMarketOptions: {MarketType: spot}\n      TagSpecifications: &tags",
        "spot-head", f"{HEAD}.InstanceMarketOptions.MarketType",
    ),
    Case(
        "gcp", "      machineType: n2-standard-8", "      machineType: n2-standard-8\n"
        "      scheduling: [{preemptible: true}]", "spot-head", f"{HEAD}.scheduling",
    ),
    Case(
        "azure", "        vmSize: Standard_D8s_v5", "        vmSize: Standard_D8s_v5\n        priority: Spot",
        "spot-head", f"{HEAD}.azure_arm_parameters.priority",
    ),
    Case(
        "aws", "VolumeSize: 200, ", "", "missing-disk", f"{HEAD}.BlockDeviceMappings.0.Ebs.VolumeSize"
    ),
    Case(
        "gcp", "diskSizeGb: 200", "diskSizeGb: 30",
        "missing-disk", f"{HEAD}.disks.0.initializeParams.diskSizeGb", "warning",
    ),
    Case(
        "azure", "        osDiskSize: 200\n", "", "missing-disk", f"{HEAD}.azure_arm_parameters.osDiskSize"
    ),
    Case(
        "aws", "VolumeSize: 200", "VolumeSize: 0",
        "missing-disk", f"{HEAD}.BlockDeviceMappings.0.Ebs.VolumeSize",
    ),
    Case("aws", "idle_timeout_minutes: 10\n", "", "no-idle-timeout", "idle_timeout_minutes"),
    Case("gcp", "idle_timeout_minutes: 10", "idle_timeout_minutes: 100000", "no-idle-timeout", "idle_timeout_minutes"),
    # the software
    Case("aws", "install.sh 3.11 ", "install.sh 3.9 ", "other-version", "setup_commands.0"),
    Case("gcp", "  - bash ~/ray", "  - pip install ray==2.9.3\n  - bash ~/ray", "other-version", "setup_commands.0"),
    Case("gcp", "  - bash ~/ray", "  - pip install -U 'ray[default]'\n  - bash ~/ray", "other-version",
         "setup_commands.0"),
    Case("gcp", "  - bash ~/ray", "  - conda create -y python=3.10\n  - bash ~/ray", "other-version",
         "setup_commands.0"),
    Case(
        "onprem", "\nauth:", "\ndocker: {image: rayproject/ray:2.9.0-py39-gpu, container_name: c}\nauth:",
        "other-version", "docker.image",
    ),
    *(
        Case("gcp", "  - bash ~/ray", f"  - {command}\n  - bash ~/ray", "other-version", "setup_commands.0")
        for command in (
            "pip install ray~=2.9", "uv pip install 'ray>=2.9'", 'pip install "ray[default] <3" torch',
            "python -m pip install ray!=2.9.1", "pip install ray",
        )
    ),
    *(
        Case("gcp", "  - bash ~/ray", f"  - {command}\n  - bash ~/ray", "", "")
        for command in (f"pip install ray[default]=={ray.__version__}", "pip install ray-curves>=2", "pip install xray")
    ),
    *(
        Case(
            "onprem", "\nauth:", f"\ndocker: {{image: '{image}', container_name: c}}\nauth:",
            "other-version" if is_open else "", "docker.image",
        )
        for image, is_open in [
            ("rayproject/ray", True), ("rayproject/ray:latest", True), ("rayproject/ray:nightly-py312", True),
            ("rayproject/ray-ml:latest-gpu", True), (f"rayproject/ray:{ray.__version__}", False),
            ("registry.local/raytrain:latest", False),
        ]
    ),
    Case("onprem", "  - bash ~/ray", "  - bash <script>\n  - bash ~/ray", "", ""),
    Case("onprem", "  ~/raytrain/jobs: jobs", "  ~/raytrain/jobs: no-such-folder", "missing-file",
         "file_mounts.~/raytrain/jobs", "unfilled"),
]  # fmt: skip


def findings_of(folder: Path, name: str, *changes: tuple[str, str]) -> list[Finding]:
    text = (ROOT / f"clusters/{name}.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, f"{name}.yaml has no {old!r} any more"
        text = text.replace(old, new, 1)
    file = folder / f"{name}.yaml"
    file.write_text(text, encoding="utf-8")
    return check_cluster(file, load_machines(), root=ROOT).findings


def test_ray_s_group_on_azure_is_still_what_the_rule_says() -> None:
    """Port 22 from everywhere, and none of the file's own in its place."""
    from ray.autoscaler._private import _azure

    folder = Path(_azure.__path__[0])
    template = json.loads((folder / "azure-config-template.json").read_text(encoding="utf-8"))
    (group,) = [one for one in template["resources"] if one["type"].endswith("networkSecurityGroups")]
    (rule,) = [one["properties"] for one in group["properties"]["securityRules"]]
    assert (rule["access"], rule["sourceAddressPrefix"], rule["destinationPortRange"]) == ("Allow", "*", "22")
    assert 'config["provider"]["nsg"] = outputs["nsg"]' in (folder / "config.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_finds_its_fault(case: Case, tmp_path: Path) -> None:
    before = {(one.rule, one.key) for one in findings_of(tmp_path, case.name)}
    found = findings_of(tmp_path, case.name, (case.old, case.new))
    new = [one for one in found if (one.rule, one.key) not in before and one.rule != "unfilled"]
    if not case.rule:
        assert new == [], "such a change is no fault"
        return
    assert (case.rule, case.key, case.level) in [(one.rule, one.key, one.level) for one in new], new
    one = next(one for one in new if one.key == case.key)
    # A key that is nowhere in the file has the file alone for its place.
    line = "" if case.rule == "no-idle-timeout" and not case.new else r":\d+"
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}/{case.name}\.yaml{line}", one.place), "file and line"
    assert one.what and one.fix


def test_ray_s_own_commands_count_where_a_file_has_none(tmp_path: Path) -> None:
    text = (ROOT / "clusters/aws.yaml").read_text(encoding="utf-8")
    file = tmp_path / "aws.yaml"
    file.write_text(text[: text.index("setup_commands:")], encoding="utf-8")
    found = check_cluster(file, load_machines(), root=ROOT).of("error")
    rules = {one.rule for one in found}
    assert {"open-dashboard", "no-token", "other-version"} <= rules, (
        "a nightly build, and a dashboard for everybody"
    )
    assert all("Ray's own value" in one.what for one in found)


def test_a_lock_of_another_ray(tmp_path: Path) -> None:
    lock = tmp_path / "constraints.txt"
    lock.write_text("ray==2.9.0\n")
    (one,) = [
        one
        for one in findings_of(
            tmp_path, "aws", ("constraints.txt: constraints.txt", f"constraints.txt: {lock}")
        )
        if one.rule == "other-version"
    ]
    assert one.key == "file_mounts.~/raytrain/constraints.txt" and "2.9.0" in one.what


@pytest.mark.parametrize(
    ("name", "scaling", "rule"),
    [
        ("aws", {"use_gpu": True, "num_workers": 8}, None),
        ("aws", {"use_gpu": True, "num_workers": 8, "accelerator_type": "L4"}, None),
        ("aws", {"use_gpu": True, "accelerator_type": "A100"}, "gpu-type"),
        ("azure", {"use_gpu": True, "accelerator_type": "A100", "num_workers": 4}, None),
        ("azure", {"use_gpu": True, "accelerator_type": "H100"}, "gpu-type"),
        ("gcp", {"use_gpu": True, "num_workers": 9}, "unmet-demand"),
        ("gcp", {"use_gpu": True, "num_workers": (4, 9)}, None),  # the least is what a run cannot do without
        ("gcp", {"use_gpu": True, "num_workers": 1, "cpus_per_worker": 16}, "unmet-demand"),
        ("gcp", {"num_workers": 64}, None),
        ("onprem", {"use_gpu": True}, "unmet-demand"),  # a warning: nobody wrote down what the machines have
    ],
)
def test_what_a_recipe_asks(name: str, scaling: dict[str, object], rule: str | None) -> None:
    demand = WorkersSection.model_validate(scaling)
    found = check_cluster(ROOT / f"clusters/{name}.yaml", load_machines(), demand, ROOT)
    told = [one for one in found.findings if one.rule in ("gpu-type", "unmet-demand")]
    assert [one.rule for one in told] == ([rule] if rule else []), told
    assert found.passed is (rule is None or name == "onprem")


def test_the_demand_of_the_shipped_recipes() -> None:
    recipes = sorted((ROOT / "jobs").glob("*.yaml"))
    assert recipes
    demands = {}
    for recipe in recipes:
        demands[recipe.name] = load_demand(recipe).min_workers
    assert all(count >= 1 for count in demands.values()) and len(demands) == len(recipes)


def test_a_recipe_whose_scaling_is_wrong(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("scaling:\n  num_workers: none\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml:2.*scaling\.num_workers"):
        load_demand(recipe)


def test_prices_of_one_s_own(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(
        "written_on: 2026-11-01\nsource: our contract\naws:\n"
        "  m7i.2xlarge: {price: 0.5, cpus: 8}\n  g6.2xlarge: {price: 1, spot: 0.25, cpus: 8, gpus: 1, gpu: L4}\n"
    )
    price = check_cluster(ROOT / "clusters/aws.yaml", load_machines(prices), root=ROOT).price
    assert price is not None
    assert (price.least, price.most, price.has_spot, price.unknown) == (0.5, 2.5, False, [])


def test_a_price_that_nobody_knows(tmp_path: Path) -> None:
    text = (
        (ROOT / "clusters/gcp.yaml").read_text().replace("machineType: g2-standard-8", "machineType: x9-mega")
    )
    file = tmp_path / "gcp.yaml"
    file.write_text(text)
    price = check_cluster(file, load_machines(), root=ROOT).price
    assert price is not None and price.unknown == ["x9-mega"] and price.least == price.most


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("aws: {}\n", r"prices\.yaml.*written_on"),
        ("written_on: soon\nsource: x\n", r"prices\.yaml:1.*written_on"),
        ("written_on: 2026-01-01\nsource: x\naws:\n  m5: {price: -1, cpus: 2}\n", r"prices\.yaml:4.*price"),
        ("written_on: 2026-01-01\nsource: x\nibm: {}\n", r"prices\.yaml:3.*ibm"),
    ],
)
def test_a_price_table_that_is_none(text: str, told: str, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(text)
    with pytest.raises(ConfigError, match=told):
        load_machines(prices)


def test_up_refuses_with_the_first_fault() -> None:
    found = check_cluster(ROOT / "clusters/aws.yaml", load_machines(), root=ROOT)
    error = refuse(found)
    key = r"available_node_types\.head\.node_config\.ImageId"
    assert re.match(rf".*aws\.yaml:\d+: {key}: <ami> is not filled in; \d+ more", error.what)
    assert error.exit_code == 2


@pytest.mark.parametrize("name", ["raycluster", "rayjob", "rayservice", "redis"])
def test_a_manifest_of_kubernetes_is_told_as_one(name: str) -> None:
    file = ROOT / f"clusters/kuberay/{name}.yaml"
    with pytest.raises(ConfigError) as caught:
        check_cluster(file, load_machines(), root=ROOT)
    assert "holds Kubernetes manifests (" in caught.value.what
    assert f"kubectl apply -f {file}" in caught.value.fix


def test_ray_says_nothing_beside_the_findings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a file without node types it logs which it fills in."""
    file = tmp_path / "plain.yaml"
    file.write_text("cluster_name: mine\nmax_workers: 1\nprovider: {type: aws, region: us-east-1}\n")
    ray_logger = logging.getLogger("ray")
    ray_logger.addHandler(caplog.handler)
    try:
        assert check_cluster(file, load_machines(), root=ROOT).of("error")
    finally:
        ray_logger.removeHandler(caplog.handler)
    assert caplog.messages == []
