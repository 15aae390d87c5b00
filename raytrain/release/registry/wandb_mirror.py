"""A registry's mirror at W&B: a collection of models for each name, with versions, metrics, lineage, tags, aliases.

Each of our versions becomes a run, whose summary has the metrics, and a version of the collection, which that run made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError
from raytrain.release.registry.mirror import TAGS, Shown, Sight, Told, told_of
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.wandb_run import (
    TYPE,
    files_folder,
    flat,
    native_tags,
    run_id,
    start,
    target_of,
    write,
)

_OF_ITSELF = {"latest"}
"""W&B lets it name the newest version."""
_TIMEOUT_S = 10


class WandbMirror:
    """Of any number of names, in one project."""

    label = "W&B"

    def __init__(self, place: str) -> None:
        self._target = target_of(place)
        self._mode = start()
        import wandb
        from requests import RequestException
        from wandb.sdk.lib.service.service_connection import WandbApiFailedError
        from wandb.sdk.mailbox.mailbox_handle import ServerResponseError

        self._base_url = str(wandb.setup().settings.base_url)
        self.place = f"{self._base_url} ({place})"
        self.option = f"--wandb {place}"
        self.faults: tuple[type[Exception], ...] = (
            wandb.errors.Error,
            WandbApiFailedError,
            ServerResponseError,
            RequestException,
            TimeoutError,
        )

    @property
    def is_offline(self) -> bool:
        return self._mode == "offline"

    def write_files(self, registry: Registry, name: str) -> list[str]:
        """Every version of a name as files that `wandb sync` uploads; returns what was written.

        Nobody is asked what W&B has already: each call writes them all, as they are now.
        """
        folder = files_folder()
        folder.mkdir(parents=True, exist_ok=True)
        return [f"{one}: {write(one, self._target, folder, 'offline')}" for one in told_of(registry, name)]

    def look(self, name: str) -> Sight:
        versions: list[Shown] = []
        aliases: dict[str, str] = {}
        for one in sorted(self._artifacts(name), key=lambda one: int(one.version.removeprefix("v"))):
            versions.append(Shown(one.version, _facts(one), one))
            aliases |= {alias: one.version for alias in one.aliases if alias not in _OF_ITSELF}
        return Sight(versions, aliases)

    def create(self, told: Told) -> None:
        """Metrics first, each of which W&B confirms; what a run streams behind them may be lost unheard."""
        run = self._api.create_run(
            run_id=run_id(told), project=self._target.project, entity=self._target.entity
        )
        run.summary.update(told.metrics)
        with tempfile.TemporaryDirectory(prefix="raytrain-") as folder:
            write(told, self._target, Path(folder), "online")

    def delete(self, _name: str, shown: Shown, /) -> None:
        shown.handle.delete(delete_aliases=True)

    def set_fact(self, _name: str, shown: Shown, key: str, value: str | None, /) -> None:
        artifact = shown.handle
        group, _, rest = key.partition(".")
        before = artifact.metadata.get(group)
        content = {**(before if isinstance(before, dict) else {}), rest: value}
        content = {key: one for key, one in content.items() if one is not None}
        if key == TAGS:
            ours_before, ours = (
                set(native_tags(flat(artifact.metadata))),
                set(native_tags({TAGS: value or ""})),
            )
            artifact.tags = sorted(set(artifact.tags) - ours_before | ours)
        metadata = {key: one for key, one in artifact.metadata.items() if key != group}
        artifact.metadata = metadata | ({group: content} if content else {})
        artifact.save()

    def set_alias(self, _name: str, alias: str, shown: Shown, /) -> None:
        shown.handle.aliases = sorted({*shown.handle.aliases, alias})
        shown.handle.save()

    def delete_alias(self, _name: str, alias: str, shown: Shown, /) -> None:
        shown.handle.aliases = sorted({*shown.handle.aliases} - {alias})
        shown.handle.save()

    def _artifacts(self, name: str) -> list[Any]:
        import wandb

        pages = self._api.artifacts(TYPE, f"{self._target}/{name}", per_page=200)
        found: list[Any] = []
        try:
            found.extend(pages)
        except ValueError as error:
            # So it tells, and not more exactly, that there is no such project or collection.
            if type(error) is not ValueError or found:
                raise wandb.errors.CommError(str(error)) from error
        return found

    @cached_property
    def _api(self) -> Any:
        """Raises ConfigError where nobody is logged in, offline, or what `faults` names."""
        import requests
        import wandb

        if self.is_offline:
            raise ConfigError(
                "W&B is offline, so nobody can say what it has",
                why="WANDB_MODE=offline",
                fix="unset WANDB_MODE; `raytrain registry publish` also writes files offline, for `wandb sync`",
            )
        # Its client says of a server that is down, after a while, that a process is busy.
        requests.get(self._base_url, timeout=_TIMEOUT_S)
        with _logged_in():
            return wandb.Api(overrides={"base_url": self._base_url}, timeout=_TIMEOUT_S)


@contextmanager
def _logged_in() -> Iterator[None]:
    import wandb

    try:
        yield
    except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
        # The first is also raised where the server does not answer, or not as it should.
        answer = getattr(error.__cause__, "response", None)
        is_refused = answer is not None and answer.http_status in (401, 403)
        if isinstance(error, wandb.errors.AuthenticationError) and not is_refused:
            raise
        raise ConfigError(
            "W&B does not know who asks",
            why=str(error).strip().split("\n")[0],
            fix="log in with `wandb login`, or set WANDB_API_KEY; WANDB_BASE_URL names a server of your own",
        ) from error


def _facts(artifact: Any) -> dict[str, str]:
    """What its metadata says; of tags only those that W&B shows as tags as well, where it can."""
    facts = flat(artifact.metadata)
    if TAGS in facts:
        hidden = set(native_tags(facts)) - set(artifact.tags)
        facts[TAGS] = ", ".join(one for one in facts[TAGS].split(", ") if one not in hidden)
    return facts
