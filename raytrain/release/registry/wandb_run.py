"""One released version as a W&B run and an artifact of type model: written the same online and offline."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raytrain.errors import ConfigError
from raytrain.release.registry.mirror import TAGS, Told
from raytrain.runs.sinks.extra import require_extra
from raytrain.storage.home import raytrain_home

TYPE = "model"
_FOR_A_WHILE = ("decision.", TAGS)
"""Facts that change: they stand with the artifact, and not in the run's config."""
_TAG = re.compile(r"[-\w]+(?: +[-\w]+)*", re.ASCII)
DEFAULTS = {
    # A person waits, and runs the command again: it should not take minutes to say that nobody answers.
    **dict.fromkeys((f"WANDB__{one}_RETRY_MAX" for one in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")), "1"),
    "WANDB_HTTP_TIMEOUT": "10",
    "WANDB_INIT_TIMEOUT": "30",
    "WANDB_FINISH_TIMEOUT": "30",
    "WANDB_ERROR_REPORTING": "false",
    # Its words go to the streams that belong to the command, and this machine is none of its business.
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_DISABLE_CODE": "true",
    **dict.fromkeys((f"WANDB__DISABLE_{one}" for one in ("STATS", "META", "MACHINE_INFO")), "true"),
    "WANDB__SAVE_REQUIREMENTS": "false",
}


@dataclass(frozen=True)
class Target:
    """Where at W&B."""

    entity: str
    project: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}"


def target_of(place: str) -> Target:
    """Raises ConfigError where this is not ENTITY/PROJECT, or W&B is not installed."""
    require_extra("wandb", "--wandb")
    entity, slash, project = place.partition("/")
    if not (entity and slash and project) or re.search(r"[/\\#?%:\s]", project):
        raise ConfigError(
            f"--wandb {place}: that is no project",
            why="a project is named by its user or team and its own name",
            fix="write ENTITY/PROJECT, as in my-team/registry",
        )
    return Target(entity, project)


def start() -> Literal["online", "offline"]:
    """W&B's client with settings for a command; WANDB_… of the environment go first. Raises ConfigError."""
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    import wandb

    mode = wandb.setup().settings.mode
    if mode == "disabled":
        raise ConfigError(
            "W&B is disabled, so nothing can be shown there",
            why="WANDB_MODE=disabled",
            fix="unset WANDB_MODE, or write files for later with WANDB_MODE=offline",
        )
    return "offline" if mode in ("offline", "dryrun") else "online"


def run_id(told: Told) -> str:
    """The same whenever the same release is shown."""
    entry = told.released.entry
    return hashlib.sha256(f"{told.name} {entry.token or entry.number}".encode()).hexdigest()[:24]


def write(told: Told, target: Target, folder: Path, mode: Literal["online", "offline"]) -> str:
    """The run with metrics and journal's entry, and the version. Returns the folder of its files.

    Raises what W&B raises where it does not take them; offline nobody is asked.
    """
    import wandb

    config = {key: value for key, value in told.facts.items() if not key.startswith(_FOR_A_WHILE)}
    run: Any = wandb.init(
        entity=target.entity,
        project=target.project,
        id=run_id(told),
        name=str(told),
        job_type="release",
        config=nested(config),
        dir=str(folder),
        mode=mode,
        resume="allow" if mode == "online" else None,
        reinit="create_new",
    )
    try:
        run.summary.update(told.metrics)
        logged = run.log_artifact(
            _artifact(told, Path(run.dir).parent), aliases=list(told.aliases), tags=native_tags(told.facts)
        )
        if mode == "online":
            logged.wait(timeout=run.settings.finish_timeout)
    except ValueError as error:  # so it tells that an artifact was not taken
        run.finish(exit_code=1)
        raise wandb.errors.CommError(str(error)) from error
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()
    return str(Path(run.dir).parent)


def _artifact(told: Told, folder: Path) -> Any:
    """Its content is the journal's entry, by which W&B knows a version again. Weights stay in the registry."""
    import wandb

    file = folder / "entry.json"
    file.write_text(json.dumps(vars(told.released.entry), indent=1, sort_keys=True), encoding="utf-8")
    # W&B refuses infinities here; the run has them.
    metrics = {key: value for key, value in told.metrics.items() if math.isfinite(value)}
    made: Any = wandb.Artifact(
        told.name,
        TYPE,
        description=told.released.entry.why,
        metadata={**nested(told.facts), **({"metrics": metrics} if metrics else {})},
    )
    made.add_file(str(file), name="release/entry.json", policy="immutable", skip_cache=True)
    return made


def files_folder() -> Path:
    """Where offline runs are written to, below `wandb`."""
    return Path(os.environ.get("WANDB_DIR") or raytrain_home())


def nested(facts: Mapping[str, str]) -> dict[str, Any]:
    """`made_from.dataset` as W&B's pages fold it: one object a group."""
    found: dict[str, Any] = {}
    for key, value in facts.items():
        group, _, rest = key.partition(".")
        found.setdefault(group, {})[rest] = value
    return found


def flat(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The reverse, also of what others wrote."""
    found: dict[str, str] = {}
    for group, content in metadata.items():
        if isinstance(content, dict):
            found |= {f"{group}.{key}": str(value) for key, value in content.items()}
        else:
            found[group] = str(content)
    return found


def native_tags(facts: Mapping[str, str]) -> list[str]:
    """Those that W&B takes as tags of a version; letters beyond ASCII and signs stand in its metadata only."""
    return [one for one in facts.get(TAGS, "").split(", ") if _TAG.fullmatch(one)]
