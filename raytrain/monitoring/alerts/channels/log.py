"""Alerts as lines of JSON in a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.channels.channel import Failure, told_as_json
from raytrain.monitoring.alerts.routing import LOG
from raytrain.monitoring.alerts.section import LogSection
from raytrain.storage.home import raytrain_home


class LogChannel:
    """See `Channel`."""

    name = LOG

    def __init__(self, section: LogSection) -> None:
        self.file: Path = (section.file or raytrain_home() / "alerts.jsonl").expanduser()

    def secrets(self) -> list[str]:
        return []

    def send(self, alert: Alert, num_repeats: int) -> Failure | None:
        line = json.dumps(told_as_json(alert, num_repeats), ensure_ascii=False) + "\n"
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, line.encode("utf-8", "backslashreplace"))
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            return Failure(f"{self.file} cannot be written: {error.strerror}")
        return None
