"""`raytrain doctor`: is this machine ready, and for this recipe? Each problem with its remedy.

Here the facts are collected; doctor_checks.py decides on them.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.doctor_checks import (
    GIB,
    Check,
    check_cores,
    check_database,
    check_deepspeed,
    check_devices,
    check_disk,
    check_extras,
    check_hub,
    check_memory,
    check_package,
    check_python,
    check_working_dir,
)
from raytrain.cli.output import JsonOption, emit
from raytrain.errors import ConfigError, PlatformError
from raytrain.models.machine import memory_bytes

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.models.memory import MemoryEstimate
    from raytrain.training.spec import RunSpec

_EXTRAS = {
    "deepspeed": "deepspeed",
    "qlora": "bitsandbytes",
    "hub": "datasets",
    "mlflow": "mlflow",
    "wandb": "wandb",
    "lightning": "lightning",
    "eval": "lm_eval",
    "safety": "presidio_analyzer",
    "onnx": "onnxscript",
    "s3": "obstore",
    "postgres": "psycopg",
    "dashboard": "optuna_dashboard",
    "drift": "river",
}
_RAY_DEFAULT_EXCLUDES = (".git", ".venv", "venv", "__pycache__")


def doctor(
    recipe: Annotated[Path | None, typer.Argument(help="Check for this recipe too.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model to estimate memory for, without a recipe.")
    ] = None,
    working_dir: Annotated[Path, typer.Option(help="Folder that a job submission would upload.")] = Path(),
    as_json: JsonOption = False,
) -> int:
    """Check this machine, and what a recipe needs of it. Exit code 2 where something must be put right."""
    checks, estimate = _examine(recipe, model, working_dir)
    failed = any(check.status == "fail" for check in checks)
    worst = "fail" if failed else "warn" if any(check.status == "warn" for check in checks) else "ok"
    result = {
        "status": worst,
        "checks": [asdict(check) for check in checks],
        "memory_estimate": estimate.as_dict() if estimate is not None else None,
        **({"error": _error(checks).as_dict()} if failed else {}),
    }
    emit(result, as_json, lambda console: _show(console, checks))
    return ConfigError.exit_code if failed else 0


def _error(checks: list[Check]) -> ConfigError:
    """The failed checks as the one error that every failing command gives."""
    wrong = [check for check in checks if check.status == "fail"]
    return ConfigError(
        f"{len(wrong)} of {len(checks)} checks failed: {', '.join(check.name for check in wrong)}",
        why="; ".join(check.what for check in wrong),
        fix="; ".join(check.fix for check in wrong),
    )


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
        name = "recipe" if recipe is not None and spec is None else "model"
        checks.append(Check(name, "fail", error.line, error.fix))
    workers = spec.scaling.max_workers if spec else 1
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
    limit = memory_bytes()
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


def _examine_disks(home: Path, spec: RunSpec | None) -> list[Check]:
    storage = spec.storage.location if spec else None
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
    """Bytes that Ray would pack, without what .gitignore, .rayignore and Ray exclude; largest first."""
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
