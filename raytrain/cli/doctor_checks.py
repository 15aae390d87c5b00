"""What `raytrain doctor` decides: each function takes facts and gives a verdict with its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from raytrain.errors import PlatformError

Status = Literal["ok", "warn", "fail"]
GIB = 2**30
MIB = 2**20
WORKING_DIR_LIMIT_BYTES = 512 * MIB
"""Ray 2.60 refuses a larger package; compared unpacked, for what is large is seldom compressible."""


@dataclass(frozen=True)
class Check:
    name: str
    status: Status
    what: str
    fix: str = ""


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


def check_deepspeed(version: str | None, *, has_compiler: bool, has_ninja: bool) -> Check:
    if version is None:
        return Check("deepspeed", "ok", "not installed (optional)")
    missing = [name for name, there in (("g++", has_compiler), ("ninja", has_ninja)) if not there]
    if missing:
        return Check(
            "deepspeed",
            "warn",
            f"deepspeed {version} compiles at its first start, and there is no {' and no '.join(missing)}",
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
        return Check("records", "fail", error.line, error.fix)
    return Check("records", "ok", f"{url} answers")
