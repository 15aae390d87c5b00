"""What the commands of the queue share: the store, a command line that was checked, and a scheduler."""

from __future__ import annotations

import getpass
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.runs.cost import Line
    from raytrain.runs.queue.job import Job, Need
    from raytrain.runs.queue.scheduler import Scheduler
    from raytrain.runs.queue.store import QueueStore
    from raytrain.training.spec import RunSpec
    from raytrain.tuning.spec import TuneRecipe

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or the beginning of one.")]
QueueArgument = Annotated[str, typer.Argument(metavar="[QUEUE]", help="A queue's name.")]
QueueOption = Annotated[str, typer.Option("--queue", help="The queue that it waits in.")]

LONG_COMMANDS = ("train", "evaluate", "tune", "run", "retrain")
_OTHER_NAMES = {"pipeline": "run"}
"""As the files of jobs/ have them."""
_TAKE_A_RECIPE = ("train", "tune", "run")


@contextmanager
def opened_queue() -> Iterator[QueueStore]:
    from raytrain.runs.queue.store import QueueStore
    from raytrain.runs.records import open_records

    records = open_records()
    try:
        yield QueueStore(records.engine)
    finally:
        records.close()


def one_job(store: QueueStore, name: str) -> tuple[Job, str | None, Line | None]:
    """A job, why it waits, and what its run has cost so far, where these records know of that run."""
    from raytrain.runs.queue.views import reasons_now
    from raytrain.runs.records import Records
    from raytrain.runs.spent import spent_with_parts

    job = store.get(name)
    cost = None if job.run_id is None else spent_with_parts(Records(store.engine), job.run_id, time.time())
    return job, reasons_now(store).get(job.id), cost


@dataclass(frozen=True)
class Asked:
    """What was typed behind `raytrain queue submit`."""

    words: Sequence[str]
    queue: str
    priority: str
    backend: str | None
    address: str | None
    cpus: float | None
    gpus: float | None
    memory_gb: float
    retries: int
    environment: Sequence[str]


def job_of(asked: Asked) -> Job:
    """The job, checked as far as it can be before it runs. ConfigError otherwise."""
    from dataclasses import replace

    from raytrain.runs.queue.job import Job, check_backend, check_priority

    check_words(asked.words)
    run_id, need = what_it_makes(asked.words)
    need = replace(
        need,
        cpus=need.cpus if asked.cpus is None else asked.cpus,
        gpus=need.gpus if asked.gpus is None else asked.gpus,
        memory_bytes=int(asked.memory_gb * 1e9),
    )
    has_cluster = asked.address or os.environ.get("RAY_API_SERVER_ADDRESS")
    backend = check_backend(asked.backend or ("ray" if has_cluster else "local"))
    now, job_id = time.time(), _new_id(asked.words)
    return Job(
        id=job_id,
        queue=asked.queue,
        priority=check_priority(asked.priority),
        user=getpass.getuser(),
        words=list(asked.words),
        folder=str(Path.cwd()),
        backend=backend,
        address=_address(backend, asked.address),
        package=str(_package(asked.words, job_id)) if backend == "ray" else None,
        environment=environment_of(asked.environment),
        need=need,
        run_id=run_id,
        max_retries=asked.retries,
        created_at=now,
        ready_at=now,
    )


def _address(backend: str, address: str | None) -> str | None:
    if backend == "ray":
        from raytrain.runs.job_client import jobs_url

        return jobs_url(address)
    if address is not None:
        raise ConfigError(
            "--address with --backend local",
            why="a local process starts a Ray of its own",
            fix="leave one of them out; to join a cluster from here: `-- RECIPE --address HOST:6379`",
        )
    return None


def _package(words: Sequence[str], job_id: str) -> Path:
    """This folder as it is now: what happens to it while the job waits does not change the job."""
    from raytrain.cli.packaged import packed
    from raytrain.runs.packaging import write_zip
    from raytrain.storage.home import raytrain_home

    file = raytrain_home() / "queue" / job_id / "package.zip"
    write_zip(packed(words, Path.cwd()), file)
    return file


def environment_of(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(
                f"--env {pair}", why="it is a name, =, and a value", fix="for example --env HF_HUB_OFFLINE=1"
            )
        found[name] = value
    return found


def command_words(what: str, arguments: Sequence[str]) -> list[str]:
    """The words of a command line, whichever of its names the command was given."""
    return [_OTHER_NAMES.get(what, what), *arguments]


def check_words(words: Sequence[str]) -> None:
    """Parse the command line as it will be, so that a slip is told now and not when its turn has come."""
    from raytrain.cli.main import command_line
    from raytrain.config.recipe import nearest

    what, rest = words[0], list(words[1:])
    if what not in LONG_COMMANDS:
        near = nearest(what, LONG_COMMANDS)
        raise ConfigError(
            f"`{what}` is nothing that waits in a queue",
            why=f"long commands are: {', '.join(LONG_COMMANDS)}",
            fix=f"did you mean `{near}`?" if near else "give any other command here, without the queue",
        )
    if "--fresh" in rest:
        raise ConfigError(
            "--fresh in a queue",
            why="every retry would begin anew instead of resuming",
            fix="name the new run with --run-id NAME",
        )
    command_line(what).commands[what].make_context(what, rest)  # raises what the command line itself would


def with_cost_confirmed(words: Sequence[str], *, yes: bool, as_json: bool) -> list[str]:
    """The words, with --yes where the estimate was confirmed here: nobody is asked when the job starts."""
    from raytrain.cli.costs import confirm_cost, num_runs_of

    given = recipe_arguments(words)
    if given is None or "yes" not in given:
        return list(words)
    from raytrain.training.spec import load_spec

    spec = load_spec(given["recipe"], given["overrides"])
    num_runs = num_runs_of(words[0], given["recipe"], given["overrides"])
    confirm_cost(spec, yes=yes or given["yes"], as_json=as_json, num_runs=num_runs)
    is_asked = spec.cost.confirm_above is not None and not given["yes"]
    return [*words, "--yes"] if is_asked else list(words)


def recipe_arguments(words: Sequence[str]) -> dict[str, Any] | None:
    """The parameters by name of a command line that takes a recipe of training; None for another command."""
    return arguments_of(words) if words[0] in _TAKE_A_RECIPE else None


def arguments_of(words: Sequence[str]) -> dict[str, Any]:
    """The parameters by name of a command line."""
    from raytrain.cli.main import command_line

    command = command_line(words[0]).commands[words[0]]
    return dict(command.make_context(words[0], list(words[1:])).params)


def what_it_makes(words: Sequence[str]) -> tuple[str | None, Need]:
    """The run's id and what it takes, where a recipe says so beforehand. ConfigError for a recipe with faults."""
    from raytrain.runs.queue.job import Need

    given = recipe_arguments(words)
    if given is None:
        return None, Need()
    from raytrain.cli.queued_search import search_of, trials_at_once
    from raytrain.training.spec import load_spec

    spec, search = load_spec(given["recipe"], given["overrides"]), search_of(words[0], given)
    each, count = spec.scaling.worker_resources, spec.scaling.max_workers
    if search is not None:
        count *= trials_at_once(search)
    run_id = _run_id(words[0], given, spec, search)
    return run_id, Need(each["CPU"] * count, each.get("GPU", 0.0) * count)


def _run_id(what: str, given: Mapping[str, Any], spec: RunSpec, search: TuneRecipe | None) -> str:
    if what == "run":
        from raytrain.pipeline.section import load_pipeline

        return load_pipeline(given["recipe"], given["overrides"]).run_id
    if search is not None:
        return search.run_id
    return given["run_id"] or spec.run_id


def _new_id(words: Sequence[str]) -> str:
    about = Path(words[1]).stem if len(words) > 1 else ""
    name = re.sub(r"[^a-z0-9-]+", "-", f"{words[0]}-{about}".lower()).strip("-")[:60]
    return f"{name}-{secrets.token_hex(3)}"


def scheduler_of(store: QueueStore, cpus: float | None, gpus: float | None, console: Console) -> Scheduler:
    """With both back ends; every change is told on the console."""
    import socket

    from raytrain.runs.queue.local import LocalBackend
    from raytrain.runs.queue.ray_jobs import RayBackend
    from raytrain.runs.queue.scheduler import Scheduler, room_here

    def told(line: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, highlight=False, soft_wrap=True)

    backends: Any = {"local": LocalBackend(socket.gethostname()), "ray": RayBackend()}
    return Scheduler(store, backends, room_here(cpus, gpus), told)
