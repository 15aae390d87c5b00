"""`raytrain doctor`: is this machine ready, and for this recipe? Each problem with its remedy.

The `check_*` functions only decide, on facts that are handed to them; `_examine` collects the facts.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.errors import ConfigError, PlatformError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.models.memory import MemoryEstimate
    from raytrain.training.spec import RunSpec

Status = Literal["ok", "warn", "fail"]
GIB = 2**30
MIB = 2**20
WORKING_DIR_LIMIT_BYTES = 500 * MIB
"""What Ray refuses to upload as a working_dir; RAY_max_grpc_message_size on the cluster can lower it."""
_EXTRAS = {
    "deepspeed": "deepspeed",
    "qlora": "bitsandbytes",
    "hub": "datasets",
    "mlflow": "mlflow",
    "wandb": "wandb",
}
_RAY_DEFAULT_EXCLUDES = (".git", ".venv", "venv", "__pycache__")


@dataclass(frozen=True)
class Check:
    name: str
    status: Status
    what: str
    fix: str = ""


def doctor(
    recipe: Annotated[Path | None, typer.Argument(help="Check for this recipe too.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model to estimate memory for, without a recipe.")
    ] = None,
    working_dir: Annotated[Path, typer.Option(help="Folder that a job submission would upload.")] = Path(),
    json_output: JsonOption = False,
) -> int:
    """Check this machine, and what a recipe needs of it. Exit code 2 where something must be put right."""
    checks, estimate = _examine(recipe, model, working_dir)
    failed = any(check.status == "fail" for check in checks)
    worst = "fail" if failed else "warn" if any(check.status == "warn" for check in checks) else "ok"
    result = {
        "status": worst,
        "checks": [asdict(check) for check in checks],
        "memory_estimate": estimate.as_dict() if estimate is not None else None,
    }
    emit(result, json_output, lambda console: _show(console, checks))
    return ConfigError.exit_code if failed else 0


def _show(console: Console, checks: list[Check]) -> None:
    signs = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "fail": "[red]✗[/]"}
    width = max(len(check.name) for check in checks)
    for check in checks:
        console.print(f"{signs[check.status]} {check.name:<{width}}  ", end="", highlight=False)
        console.print(check.what, markup=False, highlight=False, soft_wrap=True)
        if check.fix and check.status != "ok":
            console.print(f"{'':<{width + 4}}→ {check.fix}", markup=False, highlight=False, soft_wrap=True)
    counts = {status: sum(check.status == status for check in checks) for status in ("ok", "warn", "fail")}
    console.print(f"{counts['ok']} fine, {counts['warn']} to look at, {counts['fail']} to put right")


def check_python(version: tuple[int, ...]) -> Check:
    text = ".".join(map(str, version[:3]))
    if version[:2] < (3, 11):
        return Check("python", "fail", f"Python {text}", "make the environment with Python 3.11 or newer")
    return Check("python", "ok", f"Python {text}")


def check_package(name: str, version: str | None, least: tuple[int, int]) -> Check:
    wanted = ".".join(map(str, least))
    if version is None:
        return Check(name, "fail", f"{name} is not installed", "run `make env`")
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
    if numbers < least:
        return Check(name, "fail", f"{name} {version}, {wanted} is needed", f"pip install '{name}>={wanted}'")
    return Check(name, "ok", f"{name} {version}")


def check_devices(built_for_cuda: str | None, gpus: list[str], use_gpu: bool) -> Check:
    """`gpus` are the names of the devices that torch sees."""
    if gpus:
        return Check("gpu", "ok", f"CUDA {built_for_cuda}: " + ", ".join(gpus))
    seen = (
        f"torch is built for CUDA {built_for_cuda}, and sees no device"
        if built_for_cuda
        else "torch is a CPU build"
    )
    if use_gpu:
        return Check(
            "gpu",
            "warn",
            f"scaling.use_gpu is set, and on this machine {seen}",
            "submit it to a cluster with GPUs, or set scaling.use_gpu=false; see nvidia-smi for the driver",
        )
    return Check("gpu", "ok", f"{seen}; training runs on the CPU")


def check_deepspeed(version: str | None, *, has_compiler: bool, has_ninja: bool, wanted: bool) -> Check:
    if version is None:
        fix = "pip install 'raytrain[deepspeed]'" if wanted else ""
        return Check("deepspeed", "fail" if wanted else "ok", "not installed (optional)", fix)
    missing = [name for name, there in (("g++", has_compiler), ("ninja", has_ninja)) if not there]
    if missing:
        return Check(
            "deepspeed",
            "fail" if wanted else "warn",
            f"deepspeed {version}, but no {' and no '.join(missing)}: it compiles operations at its first start",
            f"install {' and '.join(missing)}",
        )
    return Check("deepspeed", "ok", f"deepspeed {version}, g++ and ninja are there")


def check_extras(installed: Mapping[str, bool]) -> Check:
    there = [name for name, is_there in installed.items() if is_there]
    away = [name for name, is_there in installed.items() if not is_there]
    text = f"installed: {', '.join(there) or 'none'}; not installed: {', '.join(away) or 'none'}"
    return Check("extras", "ok", text)


def check_cores(
    num_cores: int, omp_num_threads: str | None, *, num_workers: int, cpus_per_worker: float, threads: int
) -> Check:
    reserved = num_workers * cpus_per_worker
    shape = f"{num_cores} cores; {num_workers} workers x {cpus_per_worker:g} CPUs x {threads} threads"
    if reserved > num_cores:
        return Check(
            "cores",
            "warn",
            f"{shape}: {reserved:g} CPUs are more than this machine has",
            "lower scaling.num_workers or cpus_per_worker, or give a cluster with --address",
        )
    if num_workers * threads > num_cores:
        return Check(
            "cores",
            "warn",
            f"{shape}: threads would take turns on the cores",
            f"set scaling.threads_per_worker={max(1, num_cores // num_workers)}",
        )
    if omp_num_threads is not None and (not omp_num_threads.isdigit() or int(omp_num_threads) > num_cores):
        return Check("cores", "warn", f"{shape}; OMP_NUM_THREADS={omp_num_threads}", "unset OMP_NUM_THREADS")
    return Check("cores", "ok", shape)


def check_memory(
    available_bytes: int, total_bytes: int, estimate_bytes: int | None, num_workers: int
) -> Check:
    """`total_bytes` is what this machine or container may use; the estimate is for one worker."""
    have = f"{available_bytes / GIB:.1f} of {total_bytes / GIB:.1f} GiB free"
    if estimate_bytes is None:
        return Check("memory", "ok", f"{have}; give a recipe or --model for an estimate")
    need = num_workers * estimate_bytes
    told = f"{have}; about {estimate_bytes / GIB:.1f} GiB a worker, {need / GIB:.1f} GiB for {num_workers}"
    fix = (
        "lower train.micro_batch_size or data.max_seq_len, set model.gradient_checkpointing=true, "
        "or use fewer workers"
    )
    if need > total_bytes:
        return Check("memory", "fail", told, fix)
    if need > available_bytes:
        return Check("memory", "warn", told, "end other programs, or " + fix)
    return Check("memory", "ok", told)


def check_disk(name: str, path: str, free_bytes: int | None, *, writable: bool, least_bytes: int) -> Check:
    """`free_bytes` is None where the place is not there."""
    title = f"disk {name}"
    if free_bytes is None:
        return Check(title, "warn", f"{path} is not there", "create it or choose another place")
    told = f"{path}: {free_bytes / GIB:.1f} GiB free"
    if not writable:
        return Check(title, "fail", f"{path} cannot be written", "give this user the right to write there")
    if free_bytes < least_bytes:
        return Check(title, "warn", told, f"free some: {least_bytes / GIB:.1f} GiB are wise")
    return Check(title, "ok", told)


def check_working_dir(path: str, total_bytes: int, largest: list[tuple[str, int]]) -> Check:
    """`largest` holds the biggest entries at the top level with their bytes."""
    told = f"{path}: {total_bytes / MIB:.1f} MiB would be uploaded by a job submission"
    if total_bytes <= 100 * MIB:
        return Check("working_dir", "ok", told)
    named = ", ".join(f"{name} ({size / MIB:.0f} MiB)" for name, size in largest[:3])
    too_much = total_bytes > WORKING_DIR_LIMIT_BYTES
    limit = f"; Ray refuses more than {WORKING_DIR_LIMIT_BYTES // MIB} MiB" if too_much else ""
    return Check(
        "working_dir", "warn", f"{told}{limit}; largest: {named}", "name them in .gitignore or .rayignore"
    )


def check_hub(environment: Mapping[str, str], hub_id: str | None) -> Check:
    """`hub_id` is the base model where it can only come from the hub."""
    flags = [
        name
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        if environment.get(name, "0") not in ("", "0")
    ]
    if flags and hub_id:
        return Check(
            "hub",
            "warn",
            f"{' and '.join(flags)} set: {hub_id} must be in the local hub cache already",
            f"unset {flags[0]}, or give a local folder or .gguf file",
        )
    return Check("hub", "ok", f"offline ({', '.join(flags)})" if flags else "downloads allowed")


def check_database(url: str, error: PlatformError | None) -> Check:
    if error is not None:
        return Check("records", "fail", f"{error.what}: {error.why}", error.fix)
    return Check("records", "ok", f"{url} answers")


def _examine(
    recipe: Path | None, model: str | None, working_dir: Path
) -> tuple[list[Check], MemoryEstimate | None]:
    import psutil

    from raytrain.storage.home import raytrain_home

    checks = [
        check_python(sys.version_info[:3]),
        check_package("ray", _version("ray"), (2, 60)),
        check_package("torch", _version("torch"), (2, 13)),
    ]
    spec, estimate, hub_id = None, None, None
    try:
        spec = _load_spec(recipe)
        estimate, hub_id = _estimate(spec, model)
        if recipe is not None:
            checks.append(Check("recipe", "ok", f"{recipe} is a valid recipe"))
    except PlatformError as error:
        checks.append(
            Check("recipe" if spec is None else "model", "fail", f"{error.what}: {error.why}", error.fix)
        )
    workers = spec.scaling.num_workers if spec else 1
    if _version("torch"):
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        checks.append(check_devices(torch.version.cuda, gpus, bool(spec and spec.scaling.use_gpu)))
    has_ninja = shutil.which("ninja") is not None or importlib.util.find_spec("ninja") is not None
    checks += [
        check_deepspeed(
            _version("deepspeed"),
            has_compiler=shutil.which("g++") is not None,
            has_ninja=has_ninja,
            wanted=False,
        ),
        check_extras({extra: importlib.util.find_spec(name) is not None for extra, name in _EXTRAS.items()}),
        check_cores(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            os.environ.get("OMP_NUM_THREADS"),
            num_workers=workers,
            cpus_per_worker=spec.scaling.cpus_per_worker if spec else 1,
            threads=spec.scaling.threads if spec else 1,
        ),
    ]
    memory = psutil.virtual_memory()
    limit = min(memory.total, _container_limit_bytes() or memory.total)
    on_cpu = estimate.total_bytes if estimate and not (spec and spec.scaling.use_gpu) else None
    checks.append(check_memory(min(memory.available, limit), limit, on_cpu, workers))
    checks += _examine_disks(raytrain_home(), spec)
    checks.append(check_working_dir(str(working_dir.absolute()), *measure_working_dir(working_dir)))
    checks += [check_hub(os.environ, hub_id), _examine_database()]
    return checks, estimate


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _load_spec(recipe: Path | None) -> RunSpec | None:
    if recipe is None:
        return None
    from raytrain.training.spec import load_spec

    return load_spec(recipe)


def _estimate(spec: RunSpec | None, model: str | None) -> tuple[MemoryEstimate | None, str | None]:
    """The memory of one worker, and the model's hub id if that is what it is."""
    from raytrain.models.section import AdapterSection, ModelSection

    section = ModelSection(base_model=model) if model else spec.model if spec else None
    if section is None:
        return None, None
    from raytrain.models.base import locate_base_model
    from raytrain.models.memory import estimate_memory, read_model_config

    place = locate_base_model(section.base_model)
    estimate = estimate_memory(
        read_model_config(section),
        section,
        spec.adapter if spec else AdapterSection(),
        micro_batch_size=spec.train.micro_batch_size if spec else 4,
        max_seq_len=spec.data.max_seq_len if spec else 512,
    )
    return estimate, place if isinstance(place, str) else None


def _container_limit_bytes() -> int | None:
    """The memory limit of this control group (version 2, then 1), if there is one."""
    for file in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def _examine_disks(home: Path, spec: RunSpec | None) -> list[Check]:
    storage = spec.storage_location if spec else None
    places = {"RAYTRAIN_HOME": (home, 2 * GIB)}
    if storage is not None and storage.is_local:
        places["storage"] = (storage.path, 2 * GIB)
    places["temporary"] = (Path(os.environ.get("TMPDIR", "/tmp")), 2 * GIB)
    if sys.platform == "linux":
        # Ray's object store lies there, and moves to the disk where it does not fit.
        places["shared memory"] = (Path("/dev/shm"), GIB)
    checks = []
    for name, (path, least) in places.items():
        # A folder that is not made yet is judged by where it will be made.
        there = next((one for one in (path, *path.parents) if one.exists()), None)
        free = shutil.disk_usage(there).free if there else None
        writable = there is not None and os.access(there, os.W_OK)
        checks.append(check_disk(name, str(path), free, writable=writable, least_bytes=least))
    return checks


def measure_working_dir(folder: Path) -> tuple[int, list[tuple[str, int]]]:
    """Bytes that Ray would pack, honouring .gitignore, .rayignore and its default exclusions; largest entries first."""
    sizes: dict[str, int] = {}
    for file in _packed_files(folder):
        top = file.parts[0]
        try:
            sizes[top] = sizes.get(top, 0) + (folder / file).lstat().st_size
        except OSError:
            continue
    return sum(sizes.values()), sorted(sizes.items(), key=lambda one: -one[1])


def _packed_files(folder: Path) -> Iterator[Path]:
    ignored = _ray_ignored(folder)
    try:
        listed = subprocess.run(
            ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            timeout=60,
            check=False,
        )
        names = listed.stdout.decode(errors="surrogateescape").split("\0") if listed.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired):
        names = None
    if names is None:
        names = [one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()]
    for name in names:
        path = Path(name)
        if name and not any(part in _RAY_DEFAULT_EXCLUDES for part in path.parts) and not ignored(name):
            yield path


def _ray_ignored(folder: Path) -> Any:
    file = folder / ".rayignore"
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    patterns = [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]

    def ignored(name: str) -> bool:
        return any(
            fnmatch.fnmatch(name, pattern)
            or fnmatch.fnmatch(name, f"{pattern}/*")
            or any(fnmatch.fnmatch(part, pattern) for part in Path(name).parts)
            for pattern in patterns
        )

    return ignored


def _examine_database() -> Check:
    from raytrain.storage.database import database_url

    url = database_url()
    try:
        from raytrain.runs.records import open_records

        open_records()
    except PlatformError as error:
        return check_database(url, error)
    return check_database(url, None)
