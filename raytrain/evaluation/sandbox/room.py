"""The root folder that a command in namespaces sees: the system, read-only, and a scratch disk of limited size."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from raytrain.evaluation.sandbox.kernel import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    bind_read_only,
    enter_root,
    mount,
)

BOX = Path("/box")
WORK = BOX / "work"
SYSTEM = [
    Path(one)
    for one in (
        *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
        *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"),
        *("/etc/localtime", "/etc/mime.types", "/etc/python3"),
    )
]
"""What programs need of a system. Of /etc nothing that tells about people or keys."""
SPARE_BLOCKS = 64
"""Of 4 KiB, beyond what a command may use."""
DEVICES = [Path(f"/dev/{one}") for one in ("null", "zero", "full", "random", "urandom")]
_ETC = {
    "passwd": "tester:x:1000:1000::/box/home:/bin/sh\n",
    "group": "tester:x:1000:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


def build_room(stage: Path, folder: Path, readable: list[Path], disk_mb: int, owner: int) -> None:
    """Build it on `stage` with a copy of `folder`, and go in: afterwards nothing else can be reached.

    In new user, mount and process namespaces, as their first process. Raises OSError where the kernel refuses,
    with ENOSPC where the folder does not fit.
    """
    mount("none", Path("/"), None, MS_REC | MS_PRIVATE)
    mount("tmpfs", stage, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    box = stage / BOX.relative_to("/")
    box.mkdir()
    # Inodes take memory as well: one for every 4 KiB of disk, and some of both for the room's own folders.
    num_blocks = disk_mb * 256 + SPARE_BLOCKS
    limits = f"size={num_blocks * 4}k,nr_inodes={num_blocks},mode=755"
    mount("tmpfs", box, "tmpfs", MS_NOSUID | MS_NODEV, limits)
    for name in ("tmp", "shm", "home"):
        (box / name).mkdir()
    try:
        shutil.copytree(folder, box / "work", symlinks=True, ignore=all_but(stage.parent))
    except OSError as error:
        if is_full(box):  # of many files copytree gives words alone
            raise OSError(errno.ENOSPC, f"{folder} does not fit on a disk of {disk_mb} MiB") from error
        raise
    for name in ("work", "tmp", "shm", "home"):
        give(box / name, owner)
    for name in ("tmp", "dev", "proc", "etc"):
        (stage / name).mkdir()
    mount(str(box / "tmp"), stage / "tmp", None, MS_BIND)
    _show_devices(stage, box)
    for name, text in _ETC.items():
        (stage / "etc" / name).write_text(text)
    for path in [*SYSTEM, *readable]:
        _show(path, stage)
    mount("proc", stage / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    enter_root(stage)
    mount("none", Path("/"), None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def is_full(disk: Path, spare: int = 0) -> bool:
    """Of bytes, or of files, but for so many blocks to spare."""
    found = os.statvfs(disk)
    return found.f_bavail <= spare or found.f_favail <= spare


def all_but(place: Path) -> Callable[[str, list[str]], list[str]]:
    """For copytree: a folder that holds this very place is copied without it, not into itself without end."""
    return lambda folder, names: [name for name in names if Path(folder, name) == place]


def give(folder: Path, owner: int) -> None:
    """With all that is in it."""
    os.chown(folder, owner, owner)
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(place, name), owner, owner, follow_symlinks=False)  # noqa: PTH118 - many files


def _show_devices(stage: Path, box: Path) -> None:
    for device in DEVICES:
        target = stage / device.relative_to("/")
        target.touch()
        mount(str(device), target, None, MS_BIND)
    (stage / "dev" / "shm").mkdir()
    mount(str(box / "shm"), stage / "dev" / "shm", None, MS_BIND)
    for name, goal in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        (stage / "dev" / name).symlink_to(f"/proc/self/fd{goal}")


def _show(path: Path, stage: Path) -> None:
    """At the same place, read-only; a link of the system (/bin to usr/bin) as a link."""
    target = stage / path.relative_to("/")
    if not path.exists() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and path in SYSTEM:
        target.symlink_to(path.readlink())
        return
    if path.is_dir():
        target.mkdir()
    else:
        target.touch()
    bind_read_only(path, target)
