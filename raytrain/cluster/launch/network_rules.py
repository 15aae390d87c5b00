"""Rules about who can reach a cluster: addresses, ports, the dashboard, and the token that they ask for."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from raytrain.cluster.launch.cluster_file import ClusterFile, Finding, Level, value_at
from raytrain.config.document import KeyPath

WIDEST_PREFIX = {4: 8, 6: 16}
"""Of a range of public addresses, by IP version: the internet can be opened in two halves, too."""
_DASHBOARD = re.compile(r"--dashboard-host[= ]\s*['\"]?([^\s'\"]+)")
_HERE = ("127.0.0.1", "localhost", "::1")
_PUBLISHED = re.compile(r"(?:^|\s)(?:-p|--publish(?!-all))[= ]?\s*(\S+)")
_ALL_PUBLISHED = re.compile(r"(?:^|\s)(?:-[a-zA-Z]*P|--publish-all(?:[= ]true)?)(?=\s|$)")
_START_KEYS = ("head_start_ray_commands", "worker_start_ray_commands")


def public_addresses(cluster: ClusterFile) -> list[Finding]:
    """Nodes that would have an address of their own on the internet."""
    if not cluster.is_on_demand:
        return []
    found: list[Finding] = []
    fix = "set provider.use_internal_ips: true and launch from inside the network, or through auth.ssh_proxy_command"
    if cluster.get("provider", "use_internal_ips") is not True:
        key: KeyPath = ("provider", "use_internal_ips")
        found.append(cluster.finding("public-address", "error", key, "nodes get public addresses", fix))
    elif cluster.get("provider", "use_external_head_ip") is True:
        key = ("provider", "use_external_head_ip")
        found.append(cluster.finding("public-address", "error", key, "the head gets a public address", fix))
    for name, config in _node_configs(cluster):
        found.extend(_INTERFACES[cluster.provider_type](cluster, name, config))
    return found


def _aws_interfaces(cluster: ClusterFile, name: str, config: dict[str, Any]) -> Iterator[Finding]:
    interfaces = config.get("NetworkInterfaces")
    top: KeyPath = ("available_node_types", name, "node_config")
    fix = "write NetworkInterfaces with SubnetId, Groups and AssociatePublicIpAddress: false"
    if not interfaces:
        what = f"whether {name} gets a public address is left to its subnet"
        yield cluster.finding("public-address", "warning", top, what, fix)
    for i, interface in enumerate(interfaces or []):
        given = interface.get("AssociatePublicIpAddress")
        if given is not False:
            key: KeyPath = (*top, "NetworkInterfaces", i, "AssociatePublicIpAddress")
            level: Level = "error" if given else "warning"
            what = f"{name} gets a public address" if given else f"{name} may get a public address"
            yield cluster.finding("public-address", level, key, what, fix)


def _gcp_interfaces(cluster: ClusterFile, name: str, config: dict[str, Any]) -> Iterator[Finding]:
    top: KeyPath = ("available_node_types", name, "node_config")
    fix = "write networkInterfaces with subnetwork and without accessConfigs"
    if not config.get("networkInterfaces"):
        what = f"{name} has no networkInterfaces, and Ray writes one with a public address"
        yield cluster.finding("public-address", "error", top, what, fix)
    for i, interface in enumerate(config.get("networkInterfaces") or []):
        if interface.get("accessConfigs"):
            key: KeyPath = (*top, "networkInterfaces", i, "accessConfigs")
            yield cluster.finding("public-address", "error", key, f"{name} gets a public address", fix)


def _azure_interfaces(cluster: ClusterFile, name: str, config: dict[str, Any]) -> Iterator[Finding]:
    key: KeyPath = ("available_node_types", name, "node_config", "azure_arm_parameters", "provisionPublicIp")
    if value_at(config, key[3:]) is True:
        fix = "remove it: provider.use_internal_ips decides"
        yield cluster.finding("public-address", "error", key, f"{name} gets a public address", fix)


_INTERFACES = {"aws": _aws_interfaces, "gcp": _gcp_interfaces, "azure": _azure_interfaces}


def open_ports(cluster: ClusterFile) -> list[Finding]:
    """Ports that anybody could reach, through a security group or a container's published ports."""
    found = [*_open_groups(cluster), *_groups_of_ray(cluster), *_group_of_ray_on_azure(cluster)]
    for key in ("run_options", "head_run_options", "worker_run_options"):
        for i, option in enumerate(cluster.get("docker", key) or []):
            ports = [one for one in _PUBLISHED.findall(str(option)) if not one.startswith(_HERE)]
            if _ALL_PUBLISHED.search(str(option)):
                ports.append("all that its image names")
            for port in ports:
                fix = "remove it: Ray's containers use the host's network"
                what = f"a container's port is published on every address: {port}"
                found.append(cluster.finding("open-port", "error", ("docker", key, i), what, fix))
    return found


def _open_groups(cluster: ClusterFile) -> Iterator[Finding]:
    for i, rule in enumerate(cluster.get("provider", "security_group", "IpPermissions") or []):
        ranges = [one.get("CidrIp") for one in rule.get("IpRanges") or []]
        ranges += [one.get("CidrIpv6") for one in rule.get("Ipv6Ranges") or []]
        for everybody in (one for one in ranges if _is_internet(str(one))):
            ports = f"{rule.get('FromPort', 'all')} to {rule.get('ToPort', 'all')}"
            yield cluster.finding(
                "open-port",
                "error",
                ("provider", "security_group", "IpPermissions", i),
                f"ports {ports} are open to {everybody}",
                "name the addresses that you come from, or remove the rule",
            )


def _is_internet(cidr: str) -> bool:
    """Whether a range takes in so much of the public addresses that nobody's own network can be meant."""
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:  # a place that waits for a value
        return False
    is_own = network.prefixlen > 0 and network.is_private
    return network.prefixlen < WIDEST_PREFIX[network.version] and not is_own


def _groups_of_ray(cluster: ClusterFile) -> Iterator[Finding]:
    if cluster.provider_type != "aws":
        return
    for name, config in _node_configs(cluster):
        in_interfaces = all(one.get("Groups") for one in config.get("NetworkInterfaces") or [{}])
        if not (config.get("SecurityGroupIds") or config.get("LaunchTemplate") or in_interfaces):
            yield cluster.finding(
                "open-port",
                "error",
                ("available_node_types", name, "node_config"),
                f"{name} names no security group, and the one that Ray makes opens port 22 to 0.0.0.0/0",
                "name a group of yours: NetworkInterfaces with Groups, or SecurityGroupIds",
            )


def _group_of_ray_on_azure(cluster: ClusterFile) -> Iterator[Finding]:
    """Ray's deployment (2.60, azure-config-template.json) makes the group, with one rule: port 22 from everywhere. It
    takes no group of the file's: whoever gets a public address has that port open to the world."""
    if cluster.provider_type != "azure":
        return
    fix = "set provider.use_internal_ips: true, without use_external_head_ip: no key of the file narrows that group"
    if cluster.get("provider", "use_internal_ips") is not True:
        key: KeyPath = ("provider", "use_internal_ips")
        what = (
            "port 22 of every node is open to the internet: Ray's group on Azure lets SSH in from everywhere"
        )
        yield cluster.finding("open-port", "error", key, what, fix)
    elif cluster.get("provider", "use_external_head_ip") is True:
        key = ("provider", "use_external_head_ip")
        what = "port 22 of the head is open to the internet: Ray's group on Azure lets SSH in from everywhere"
        yield cluster.finding("open-port", "error", key, what, fix)


def open_dashboard(cluster: ClusterFile) -> list[Finding]:
    """A dashboard, and with it the Jobs API, that listens on more than the head itself."""
    found = []
    for i, command in enumerate(cluster.get("head_start_ray_commands") or []):
        for host in _DASHBOARD.findall(str(command)):
            if host not in _HERE:
                key: KeyPath = ("head_start_ray_commands", i)
                what = f"the dashboard and the Jobs API listen on {host}"
                fix = "write --dashboard-host=127.0.0.1, and reach it with `raytrain cluster attach -p 8265`"
                found.append(cluster.finding("open-dashboard", "error", key, what, fix))
    return found


def no_token(cluster: ClusterFile) -> list[Finding]:
    """Nodes that start Ray without token authentication, or without the token."""
    found = []
    for key in _START_KEYS:
        for i, command in enumerate(cluster.get(key) or []):
            if "ray start" in str(command) and not re.search(r"\bRAY_AUTH_MODE=['\"]?token\b", str(command)):
                what = "Ray is started without RAY_AUTH_MODE=token: whoever reaches it runs code on it"
                fix = "write RAY_AUTH_MODE=token in front of `ray start`"
                found.append(cluster.finding("no-token", "error", (key, i), what, fix))
    mounts = cluster.get("file_mounts") or {}
    commands = " ".join(str(one) for key in _START_KEYS for one in cluster.get(key) or [])
    if (
        not any(str(place).endswith(".ray/auth_token") for place in mounts)
        and "RAY_AUTH_TOKEN" not in commands
    ):
        what = "no token comes to the nodes, which would not let one another in"
        fix = "write `~/.ray/auth_token: ~/.ray/auth_token`; `ray get-auth-token --generate` makes the file"
        found.append(cluster.finding("no-token", "error", ("file_mounts",), what, fix))
    return found


def _node_configs(cluster: ClusterFile) -> Iterator[tuple[str, dict[str, Any]]]:
    if cluster.is_on_demand:
        for name, written in (cluster.get("available_node_types") or {}).items():
            yield name, written.get("node_config") or {}
