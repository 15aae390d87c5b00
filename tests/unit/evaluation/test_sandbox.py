"""Hostile commands, at each level of isolation: what each level promises is kept, and nothing is left running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from raytrain.errors import ConfigError
from raytrain.evaluation.sandbox import run
from raytrain.evaluation.sandbox.launched import Launched
from raytrain.evaluation.sandbox.limits import Isolation, Level, Limits, Outcome, Sample, exceeded
from raytrain.evaluation.sandbox.run import probe_isolation, run_isolated, run_sandboxed

pytestmark = pytest.mark.slow

LEVELS: list[Level] = ["namespaces", "landlock", "limits"]
SMALL = Limits(timeout_s=10, memory_mb=128, num_processes=24, disk_mb=16, output_mb=0.5)


def given_here(level: Level) -> bool:
    """Whether this machine can give a level at all; probed, not assumed."""
    try:
        run_isolated(
            [sys.executable, "-I", "-S", "-c", ""], Path(__file__).parent, Limits(), Isolation(level, True)
        )
    except ConfigError:
        return False
    return True


GIVEN = {level: given_here(level) for level in LEVELS}


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Level:
    """Each level. Where the kernel does not give it, the test is about being refused it."""
    wanted: Level = request.param
    if not GIVEN[wanted]:
        assert probe_isolation().level != wanted and probe_isolation().missing, "it says why"
        with pytest.raises(ConfigError, match="cannot be isolated"):
            run_code("pass", wanted, Path(__file__).parent)
        pytest.skip(f"this kernel gives no {wanted}: {probe_isolation().missing}")
    return wanted


def run_code(code: str, level: Level, folder: Path, limits: Limits = SMALL) -> Outcome:
    return run_isolated([sys.executable, "-I", "-S", "-c", code], folder, limits, Isolation(level, True))


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    scratch = Path(tempfile.mkdtemp(prefix="raytrain-scratch-"))
    scratch.chmod(0o711)  # as /tmp is: others may pass
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = {one.pid for one in psutil.Process().children(recursive=True)}
    yield
    left = [one for one in psutil.Process().children(recursive=True) if one.pid not in before]
    assert left == []
    wait_for(lambda: not orphans("launcher.py"))  # nor one that has lost its parent
    scratch.rmdir()  # it is empty


def orphans(word: str) -> list[int]:
    """Processes with this word whose parent is gone; other tests may run such with parents of their own."""
    found = []
    for one in psutil.process_iter(["cmdline", "ppid"]):
        if word in " ".join(one.info["cmdline"] or []):
            try:
                parent = " ".join(psutil.Process(one.info["ppid"]).cmdline())
            except psutil.Error:
                parent = ""
            if "python" not in parent:
                found.append(one.pid)
    return found


def wait_for(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


FORK_BOMB = """
import os, time
end = time.monotonic() + 4
while time.monotonic() < end:  # an end of its own: should the sandbox fail, the machine survives its test
    try:
        os.fork()
    except OSError:
        pass
"""
FLOOD_OF_FILES = """
i = 0
while True:
    i += 1
    with open(f"f{i}", "wb") as stream:
        stream.write(bytes(10 ** 6))
"""
DELETED = """
import os, time
for i in range(20):
    handle = os.open(f"f{i}", os.O_CREAT | os.O_WRONLY)
    os.unlink(f"f{i}")
    try:
        os.write(handle, bytes(10 ** 6))
    except OSError:  # in namespaces the kernel itself says that the disk is full
        break
time.sleep(5)
"""
EMPTY = """
import os, time
for i in range(6000):
    os.close(os.open("n" * 240 + str(i), os.O_CREAT))
time.sleep(5)
"""
DEEP = """
import os, time
for i in range(3000):
    os.mkdir("d" * 100)
    os.chdir("d" * 100)
time.sleep(5)
"""
HARM = {
    "deleted files": (DELETED, "disk", SMALL),
    "empty files": (EMPTY, "disk", SMALL),
    "folders": ("import os, time\nfor i in range(5000): os.mkdir(str(i))\ntime.sleep(5)", "disk", SMALL),
    "folders without end": (DEEP, "disk", replace(SMALL, disk_mb=8)),
    "an endless loop": ("while True: pass", "timeout", Limits(timeout_s=0.4)),
    "a sleeper": ("import time; time.sleep(60)", "timeout", Limits(timeout_s=0.4)),
    "a fork bomb": (FORK_BOMB, "processes", SMALL),
    "a memory hog": ("x = []\nwhile True: x.append(bytearray(10 ** 6))", "memory", SMALL),
    "a hog of shared memory": (
        "import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 10 ** 6)); x[-1][:] = bytes(10 ** 6)",
        "memory",
        SMALL,
    ),
    "a reservation": ("bytearray(10 ** 12)", "memory", SMALL),
    "a flood of files": (FLOOD_OF_FILES, "disk", SMALL),
    "one big file": ("f = open('f', 'wb')\nwhile True: f.write(bytes(10 ** 6))", "disk", SMALL),
    "a flood of words": ("while True: print('x' * 10 ** 4)", "output_limit", SMALL),
    "a crash": ("import os; os.kill(os.getpid(), 11)", "killed", SMALL),
}


@pytest.mark.parametrize("harm", [one for one in HARM if not one.startswith("folders")])
def test_harm_ends_and_is_named(harm: str, tmp_path: Path) -> None:
    check_harm(harm, probe_isolation().level, tmp_path)


WEAKLY_CONTAINED = (
    *(
        "a sleeper",
        "a fork bomb",
        "a memory hog",
        "a flood of files",
        "deleted files",
        "empty files",
        "folders",
    ),
    "folders without end",
)


@pytest.mark.parametrize("harm", WEAKLY_CONTAINED)
def test_harm_where_isolation_is_weaker(level: Level, harm: str, tmp_path: Path) -> None:
    if level != probe_isolation().level:
        check_harm(harm, level, tmp_path)


def check_harm(harm: str, level: Level, tmp_path: Path) -> None:
    code, reason, limits = HARM[harm]
    started = time.monotonic()
    outcome = run_code(code, level, tmp_path, limits)
    assert outcome.reason == reason, outcome
    assert not outcome.succeeded
    assert outcome.peak_rss_bytes < 1024**3
    assert len(outcome.stdout) + len(outcome.stderr) <= 2 * 64 * 1024
    assert time.monotonic() - started < 30
    assert list(tmp_path.iterdir()) == [], "the folder itself is never written to"


def test_processor_time_is_limited(tmp_path: Path) -> None:
    limits = Limits(timeout_s=20, cpu_s=1)
    outcome = run_code("while True: pass", probe_isolation().level, tmp_path, limits)
    assert outcome.reason == "timeout" and outcome.seconds < 15


def test_writing_outside(level: Level, tmp_path: Path) -> None:
    work, outside = tmp_path / "work", tmp_path / "outside"
    work.mkdir()
    outside.mkdir()
    (outside / "there").write_text("whole")
    (work / "a").symlink_to(outside / "there")
    code = f"""
import os
for act in (lambda: open({str(outside / "new")!r}, "w"), lambda: open("a", "w"),
            lambda: os.unlink({str(outside / "there")!r}),
            lambda: open("/etc/raytrain-was-here", "w"), lambda: os.chmod({str(outside)!r}, 0)):
    try:
        act()
        print("done")
    except OSError as error:
        print(error)
"""
    if level == "limits" and os.geteuid() != 0:  # a superuser's commands run as nobody
        assert "every file of this user is within reach" in Isolation(level, True).sentence()
        return
    outcome = run_code(code, level, work)
    assert outcome.succeeded, outcome
    assert outcome.stdout.count("done") == 0 or (level == "landlock" and os.geteuid() != 0), (
        outcome
    )  # chmod is free
    assert {one.name: one.read_text() for one in outside.iterdir()} == {"there": "whole"}
    assert not Path("/etc/raytrain-was-here").exists()


def test_a_secret_at_home_and_in_the_environment(
    level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "home" / ".ssh" / "id"
    secret.parent.mkdir(parents=True)
    secret.write_text("hunter2")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("API_KEY", "hunter2")
    code = f"import os; print(os.environ); print(open('/proc/{os.getpid()}/environ').read())"
    assert "hunter2" not in run_code(code, level, work).stdout or level == "limits"
    assert "hunter2" not in run_code("import os; print(os.environ)", level, work).stdout
    outcome = run_code(f"print(open({str(secret)!r}).read())", level, work)
    assert outcome.succeeded is (level == "limits")


def test_the_network(level: Level, tmp_path: Path) -> None:
    """A server of this machine stands for the world: it is nearer than any."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        assert run_code(code, level, tmp_path).exit_code == 1
        with pytest.raises(TimeoutError):
            server.accept()
    families = "socket.AF_PACKET, 40" + (", socket.AF_UNIX" if level != "namespaces" else "")
    each = (
        f"for one in ({families}):\n    try: socket.socket(one, 1); print('open')\n    except OSError: pass\n"
    )
    outcome = run_code(f"import socket\nsocket.socketpair()\n{each}", level, tmp_path)
    assert outcome.succeeded and "open" not in outcome.stdout, outcome


def test_tests_may_talk_to_themselves(tmp_path: Path) -> None:
    code = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname())
print("heard")
"""
    is_whole = probe_isolation().level == "namespaces"
    assert ("heard" in run_code(code, probe_isolation().level, tmp_path).stdout) is is_whole


def test_who_watches_cannot_be_attacked(level: Level, tmp_path: Path) -> None:
    code = f"""
import ctypes, os
for whom in (os.getppid(), -os.getppid(), 1, {os.getpid()}, -1):
    try:
        os.kill(whom, 9)
    except OSError:
        pass
libc = ctypes.CDLL(None)
print(libc.ptrace(16, os.getppid(), 0, 0), libc.unshare(0x10000000), libc.mount(b"a", b"/tmp", b"tmpfs", 0, 0))
"""
    outcome = run_code(code if level != "limits" else code.replace("1, ", "", 1), level, tmp_path)
    assert (outcome.reason, outcome.stdout) == ("ok", "-1 -1 -1\n"), outcome


def test_limits_of_who_watches_stay(level: Level, tmp_path: Path) -> None:
    """Also of the same user: what may not be done to a process of one's own cannot be done to another."""
    code = """
import fcntl, os, resource
child = os.fork()
if child == 0:
    os.read(os.pipe()[0], 1)
for act in (lambda: resource.prlimit(child, resource.RLIMIT_CPU, (0, 0)), lambda: os.setpriority(0, child, 19),
            lambda: os.setpriority(2, 0, 19), lambda: os.sched_setaffinity(child, [0]),
            lambda: os.sched_setscheduler(child, 3, os.sched_param(0)),
            lambda: fcntl.fcntl(0, fcntl.F_SETOWN, child), lambda: fcntl.fcntl(0, 10, 9)):
    try:
        act()
        print("done")
    except PermissionError:
        pass
os.kill(child, 9)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
os.nice(1)
os.sched_setaffinity(0, os.sched_getaffinity(0))
print(fcntl.fcntl(0, fcntl.F_GETFD))
"""
    outcome = run_code(code, level, tmp_path)
    assert (outcome.reason, outcome.stdout) == ("ok", "0\n"), outcome


def test_a_lost_launcher_leaves_nothing_that_is_waited_for(
    level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if level == "namespaces":
        return  # process 1 lives on, and looks after all
    lose = Launched.collect

    def lost(started: Launched, *arguments: Any) -> Outcome:
        wait_for(lambda: num_sleepers(sleeper) == 1)
        os.kill(started.process.pid, signal.SIGKILL)
        return lose(started, *arguments)

    sleeper = "import time; time.sleep(66.6)"
    monkeypatch.setattr(Launched, "collect", lost)
    outcome = run_code(sleeper, level, tmp_path)
    assert outcome.reason == "killed" and outcome.seconds < 8
    wait_for(lambda: num_sleepers(sleeper) == 0)


def test_signals_without_a_name_and_to_process_1(level: Level, tmp_path: Path) -> None:
    code = """
import os, signal
if os.getppid() == 1:
    try:
        os.kill(1, signal.SIGINT)
    except PermissionError:
        pass  # a superuser's command is another user
os.kill(os.getpid(), 40)
"""
    outcome = run_code(code, level, tmp_path)
    assert (outcome.reason, outcome.exit_code) == ("killed", 168), outcome


def test_what_goes_into_the_background_is_ended(level: Level, tmp_path: Path) -> None:
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
print("left")
"""
    started = time.monotonic()
    assert run_code(code, level, tmp_path).stdout == "left\n"
    assert time.monotonic() - started < 30


def test_it_ends_with_raytrain(tmp_path: Path) -> None:
    """Killed without a word, raytrain leaves nothing running."""
    program = f"""
import sys
from pathlib import Path
from raytrain.evaluation.sandbox.limits import Limits
from raytrain.evaluation.sandbox.run import probe_isolation, run_isolated
isolation = probe_isolation()
print("begun", flush=True)
run_isolated([sys.executable, "-c", "import time; time.sleep(77.7)"], Path({str(tmp_path)!r}), Limits(), isolation)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"

    sleeper = "import time; time.sleep(77.7)"
    try:
        wait_for(lambda: num_sleepers(sleeper) == 1)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    wait_for(lambda: num_sleepers(sleeper) == 0)


def num_sleepers(code: str) -> int:
    return sum((one.info["cmdline"] or [])[-1:] == [code] for one in psutil.process_iter(["cmdline"]))


def test_what_goes_in_and_comes_out(level: Level, tmp_path: Path) -> None:
    (tmp_path / "given.txt").write_text("a file\n")
    code = """
import os, sys
print(open("given.txt").read() + sys.stdin.read(), os.getcwd() == os.environ["RAYTRAIN_WORK"])
os.write(int(os.environ["RAYTRAIN_REPORT"]), b"reported")
sys.stderr.write("a word")
sys.exit(3)
"""
    command = [sys.executable, "-I", "-S", "-c", code]
    outcome = run_isolated(command, tmp_path, SMALL, Isolation(level, True), stdin=b"and words")
    assert (outcome.reason, outcome.exit_code) == ("ok", 3)
    assert (outcome.stdout, outcome.stderr) == ("a file\nand words True\n", "a word")
    assert (outcome.report, outcome.isolation.level) == (b"reported", level)


def test_weaker_isolation_is_asked_for_or_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weak = Isolation("limits", True, ("this kernel gives no user namespaces",))
    monkeypatch.setattr(run, "probe_isolation", lambda: weak)
    with pytest.raises(ConfigError, match="cannot wall a command off") as caught:
        run_sandboxed([sys.executable, "-c", ""], tmp_path)
    assert "no user namespaces" in caught.value.why and "every file" in caught.value.why
    outcome = run_sandboxed([sys.executable, "-c", ""], tmp_path, allow_weaker=True)
    assert outcome.succeeded and outcome.isolation == weak, "the result says what was in force"


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be isolated") as caught:
        run_isolated(["/no/such/program"], tmp_path, SMALL, probe_isolation())
    assert "/no/such/program" in caught.value.why


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (Sample(1.0, 0, 1, False), None),
        (Sample(10.0, 0, 1, False), "timeout"),
        (Sample(1.0, 129 * 2**20, 1, False), "memory"),
        (Sample(1.0, 0, 24, False), "processes"),
        (Sample(1.0, 0, 1, True), "disk"),
    ],
)
def test_which_limit_is_reached(sample: Sample, reason: str | None) -> None:
    assert exceeded(sample, SMALL) == reason


def test_memory_that_nobody_counts_is_denied(level: Level, tmp_path: Path) -> None:
    """Of segments that no process has mapped, and of files in memory."""
    code = """
import ctypes, os
libc = ctypes.CDLL(None)
print(libc.shmget(0, 1 << 20, 0o1600), libc.msgget(0, 0o1600), libc.semget(0, 32000, 0o600))
for act in (lambda: os.memfd_create("x"), lambda: os.write(0, b"x"),
            lambda: os.write(os.open("/proc/self/fd/0", os.O_WRONLY), b"x")):
    try:
        print("done", act())
    except OSError:
        pass
"""
    assert run_code(code, level, tmp_path).stdout == "-1 -1 -1\n"


def test_what_forks_share_counts_once(tmp_path: Path) -> None:
    code = """
import os, time
x = bytearray(os.urandom(60 * 10 ** 6))
for _ in range(5):
    if os.fork() == 0:
        time.sleep(0.2)
        os._exit(0)
for _ in range(5):
    os.wait()
"""
    outcome = run_code(code, probe_isolation().level, tmp_path)
    assert outcome.succeeded and outcome.peak_rss_bytes < 128 * 2**20, outcome


@pytest.mark.parametrize(("num_files", "size"), [(5000, 0), (1, 20 * 2**20)])
def test_a_folder_that_does_not_fit_is_an_outcome(tmp_path: Path, num_files: int, size: int) -> None:
    isolation = probe_isolation()
    if isolation.level != "namespaces":
        pytest.skip("elsewhere the disk is this machine's own")
    for i in range(num_files):
        (tmp_path / f"{i}").write_bytes(bytes(size))
    outcome = run_isolated([sys.executable, "-c", ""], tmp_path, SMALL, isolation)
    assert (outcome.reason, outcome.succeeded) == ("disk", False)
