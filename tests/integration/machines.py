"""Machines that a test makes of this one: each has a network, processes, a home and an SSH server of its own.

They share this machine's files, as machines do that mount the same disk. What is needed: to be root (namespaces), and
sshd, rsync and ip.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from bench import BIN, ROOT, wait_until

NEEDED = ("sshd", "rsync", "ip", "unshare", "nsenter", "ssh-keygen")
_SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def what_is_missing() -> str | None:
    """Why machines cannot be made here, or None where they can."""
    if os.geteuid() != 0:
        return "machines are made of namespaces, which takes root"
    missing = [name for name in NEEDED if shutil.which(name, path=_SBIN) is None]
    if missing:
        return f"there is no {', '.join(missing)} (Debian: openssh-server, rsync, iproute2)"
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "--mount-proc", "true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else None


@dataclass
class Machine:
    """One of the machines; `pid` is that of its first process, the SSH server, as it is seen from outside."""

    name: str
    address: str
    folder: Path
    bridge: str
    link: str
    process: subprocess.Popen[bytes]
    pid: int

    def run(self, command: str, timeout_s: float = 60) -> str:
        """What a command prints that runs there, with the machine's own home and settings."""
        return subprocess.run(
            [*self.inside, "bash", "-c", f"source ~/.bashrc; {command}"],
            check=True, capture_output=True, text=True, timeout=timeout_s,
        ).stdout  # fmt: skip

    @property
    def inside(self) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--net", "--pid", "--mount", "--uts", "--ipc"]

    def cut_off(self) -> None:
        """No packet comes or goes any more, and nobody is told: the link stands, as with a switch between them."""
        _ip("link", "set", self.link, "nomaster")

    def connect(self) -> None:
        _ip("link", "set", self.link, "master", self.bridge)

    def kill_all(self) -> None:
        """SIGKILL to every process but the first, as where the power goes; it can start others at once."""
        first = psutil.Process(self.pid)
        for one in first.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                one.suspend()  # it starts nothing new meanwhile
        victims = first.children(recursive=True)
        for one in victims:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        _, left = psutil.wait_procs(victims, timeout=20)
        assert all(one.status() == psutil.STATUS_ZOMBIE for one in left), left

    def end(self) -> None:
        """All of its processes end with the first one."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        self.process.wait(10)


@dataclass
class Site:
    """Some machines on one network, and the key that opens them."""

    folder: Path
    network: str
    bridge: str
    machines: list[Machine] = field(default_factory=list)

    @property
    def key(self) -> Path:
        return self.folder / "key"

    def add(self, name: str) -> Machine:
        number = len(self.machines) + 1
        folder = self.folder / name
        for part in ("home/.ssh", "ray"):
            (folder / part).mkdir(parents=True)
        (folder / "home/.bashrc").write_text(_bashrc(name))
        config = folder / "sshd_config"
        address = f"{self.network}.{number}"
        config.write_text(
            f"ListenAddress {address}:22\nHostKey {self.folder}/host_key\nAuthorizedKeysFile {self.folder}/key.pub\n"
            "StrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nUsePAM no\nPidFile none\n"
        )
        ready = folder / "ready"
        os.mkfifo(ready)
        process = subprocess.Popen(
            ["unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc",
             "bash", "-c", _start_of(name, folder, ready)],
            stdout=(folder / "sshd.log").open("wb"), stderr=subprocess.STDOUT, env={**os.environ, "PATH": _SBIN},
        )  # fmt: skip
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: bool(children.read_text().strip()), 10, lambda: "the machine's first process")
        pid = int(children.read_text().split()[0])
        machine = Machine(name, address, folder, self.bridge, f"{self.bridge}-{number}", process, pid)
        self.machines.append(machine)
        self._plug_in(machine)
        ready.write_text("go\n")
        wait_until(lambda: self._answers(machine), 15, lambda: (folder / "sshd.log").read_text())
        return machine

    def _plug_in(self, machine: Machine) -> None:
        inner = f"{machine.link}i"
        _ip("link", "add", machine.link, "type", "veth", "peer", "name", inner)
        _ip("link", "set", machine.link, "master", self.bridge, "up")
        _ip("link", "set", inner, "netns", str(machine.pid))
        inside = ["nsenter", "--target", str(machine.pid), "--net", "ip"]
        for words in (
            ["link", "set", "lo", "up"],
            ["addr", "add", f"{machine.address}/24", "dev", inner],
            ["link", "set", inner, "up"],
            # Ray finds its own address by the route to the world, where no packet goes.
            ["route", "add", "default", "via", f"{self.network}.254"],
        ):
            subprocess.run([*inside, *words], check=True, env={**os.environ, "PATH": _SBIN})

    def _answers(self, machine: Machine) -> bool:
        tried = subprocess.run(
            ["ssh", "-i", str(self.key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
             "-o", "BatchMode=yes", "-o", "ConnectTimeout=2", f"root@{machine.address}", "true"],
            capture_output=True, check=False,
        )  # fmt: skip
        return tried.returncode == 0


@contextmanager
def new_site(folder: Path, names: list[str]) -> Iterator[Site]:
    """Machines of these names, reachable from here, until the block ends."""
    number = os.getpid() % 250
    site = Site(folder, f"10.213.{number}", f"rt{number}")
    for key in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    hosts = [f"{site.network}.{number} {name}" for number, name in enumerate(names, start=1)]
    (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts]) + "\n")
    _ip("link", "add", site.bridge, "type", "bridge")
    try:
        _ip("addr", "add", f"{site.network}.254/24", "dev", site.bridge)
        _ip("link", "set", site.bridge, "up")
        for name in names:
            site.add(name)
        yield site
    finally:
        for machine in site.machines:
            machine.end()
        time.sleep(0.2)
        for machine in site.machines:
            with suppress(subprocess.CalledProcessError):
                _ip("link", "delete", machine.link)  # gone already, as a rule, with the other end's namespace
        _ip("link", "delete", site.bridge)


def _start_of(name: str, folder: Path, ready: Path) -> str:
    """A home of its own, in which what this Python needs is still there; then the SSH server."""
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    kept = [Path(sys.base_prefix), Path(sys.prefix), ROOT]
    lines = ["set -e"]
    for path in kept:
        if path.is_relative_to(home):
            place = folder / "home" / path.relative_to(home)
            lines += [f"mkdir -p {place}", f"mount --rbind {path} {place}"]
    lines += [
        f"mount --rbind {folder}/home {home}",
        f"mkdir -p /tmp/ray && mount --bind {folder}/ray /tmp/ray",
        # Gloo listens at the address that the machine's name has.
        f"mount --bind {folder.parent}/hosts /etc/hosts",
        "mount -t tmpfs -o size=512m tmpfs /dev/shm",
        f"hostname {name}",
        f"read _ <{ready}",
        f"exec {shutil.which('sshd', path=_SBIN)} -D -e -f {folder}/sshd_config",
    ]
    return "\n".join(lines)


def _bashrc(name: str) -> str:
    return (
        f"export PATH={BIN}:$PATH HF_HUB_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0 RAYTRAIN_HOME=$HOME/raytrain-home\n"
        f"export RAY_AUTH_MODE=token PS1='{name} '\n"
    )


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, env={**os.environ, "PATH": _SBIN})
