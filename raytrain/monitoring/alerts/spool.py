"""`raise_alert`: what anybody calls who has something to tell. It writes one small file, which outlives a kill, and
neither waits for a server or a database nor ever raises. Whoever delivers takes the files in."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from raytrain.monitoring.alerts.alert import Alert, alert_of
from raytrain.monitoring.alerts.redaction import Redactor
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import sync_folder

_log = logging.getLogger(__name__)
_MOST_WAITING = 10_000
"""Files; above it nobody has delivered for long, and the disk is worth more."""
_ENDING, _BAD_ENDING, _UNFINISHED = ".json", ".bad", ".tmp"
_STALE_S = 3600.0
_SPARE = 2_000
"""Characters: more than any secret has."""


def spool_folder() -> Path:
    return raytrain_home() / "alerts"


def raise_alert(alert: Alert, redactor: Redactor | None = None) -> bool:
    """Have people told. False, and a line in the log, where it cannot even be written down."""
    try:
        # Whoever takes it in knows the channels' own secrets: what is cut here must be none of them by half.
        clean = alert_of((redactor or Redactor()).alert(alert, spare=_SPARE).as_dict())
        folder = spool_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        waiting = sum(1 for _ in folder.iterdir())
        if waiting >= _MOST_WAITING:
            raise OSError(errno.ENOSPC, f"{waiting} alerts wait, and nobody delivers them")
        # Named by the time, so that they are taken in the order in which they came.
        place = folder / f"{time.time_ns():020d}-{clean.id}{_ENDING}"
        staged = place.with_suffix(_UNFINISHED)
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(json.dumps(clean.as_dict()).encode())
            stream.flush()
            os.fsync(stream.fileno())
        staged.rename(place)
        sync_folder(folder)
    except Exception as error:  # noqa: BLE001 - who has something to tell goes on with his work whatever happens here
        # Its text is not told: it may hold what could not be searched for secrets.
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        _log.error("an alert (%s) is lost: %s", getattr(alert, "kind", "?"), why)
        return False
    return True


def spooled() -> Iterator[tuple[Path, Alert]]:
    """What was raised on this machine and not taken in yet, the oldest first. Who has taken one in unlinks its file.

    A file that is no alert is set aside under another name, and told of.
    """
    for place in sorted(_listed()):
        try:
            alert = alert_of(json.loads(place.read_bytes()))
        except FileNotFoundError:
            continue  # another has taken it in
        except OSError as error:
            _log.error("%s cannot be read now: %s", place, error.strerror)
            continue
        except ValueError as error:
            _set_aside(place, error)
            continue
        yield place, alert


def _listed() -> list[Path]:
    try:
        found = list(spool_folder().iterdir())
    except FileNotFoundError:
        return []
    for one in found:
        # Of a writer that was killed: it never said that its alert is raised.
        if one.suffix == _UNFINISHED and _age_s(one) > _STALE_S:
            one.unlink(missing_ok=True)
    return [one for one in found if one.suffix == _ENDING]


def _age_s(place: Path) -> float:
    try:
        return time.time() - place.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _set_aside(place: Path, error: Exception) -> None:
    _log.error("%s is no alert and is set aside: %s", place, type(error).__name__)
    try:
        place.rename(place.with_suffix(_BAD_ENDING))
    except FileNotFoundError:
        return
