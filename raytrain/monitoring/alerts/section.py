"""alerts.yaml: who is told of what, when, and what is looked at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import time
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import Field, model_validator

from raytrain.config.document import Form
from raytrain.config.recipe import build, load_recipe, nearest
from raytrain.config.section import Section
from raytrain.errors import ConfigError
from raytrain.monitoring.alerts.alert import AlertKind, Severity
from raytrain.storage.home import raytrain_home

ALERTS = Form("alerts file", "webhooks, emails or watch", "jobs/alerts/", "docs/alerts-reference.md")
FILE_NAME = "alerts.yaml"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_TIME = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IS_SECRET = (
    "it is a secret: keep it in a file of mode 600 and name that in `{0}_file`, or in an environment variable and "
    "name that in `{0}_env`"
)


class QuietHours(Section):
    """When a channel waits. What it would have told is told when they end."""

    start: str
    """`HH:MM`, between quotes."""
    end: str
    """`HH:MM`; where it is not after `start`, of the next day."""
    days: Annotated[list[Day], Field(min_length=1)] | None = None
    """On which they start; null = every day."""
    timezone: str = "UTC"
    """As `Europe/Berlin`."""
    still: Severity | None = "critical"
    """What is this grave or graver is told at once all the same; null = nothing is."""

    @model_validator(mode="after")
    def _are_hours(self) -> QuietHours:
        for key in ("start", "end"):
            if not _TIME.fullmatch(getattr(self, key)):
                raise ValueError(f'`{key}` is no time of day: write it as "22:00", between quotes')
        if self.start == self.end:
            raise ValueError("`start` and `end` are the same: write `00:00` to `23:59` for a whole day")
        if self.zone is None:
            near = nearest(self.timezone, available_timezones())
            raise ValueError(f"`timezone` {self.timezone} is not known; " + (f"did you mean {near}?" if near else
                             "where no zone is known, the package tzdata has them"))  # fmt: skip
        return self

    @property
    def zone(self) -> ZoneInfo | None:
        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return None

    @property
    def hours(self) -> tuple[time, time]:
        return time.fromisoformat(self.start), time.fromisoformat(self.end)


class ChannelSection(Section):
    """What every channel is told by."""

    name: Name
    """As deliveries are known by; keep it, or what waits for it is left."""
    at_least: Severity = "warning"
    """What is milder is not told here."""
    kinds: list[AlertKind] = Field(default_factory=list)
    """Only of these; empty = of all."""
    quiet_hours: QuietHours | None = None
    """When nothing is told that can wait."""


class WebhookSection(ChannelSection):
    """A URL that alerts are posted to. The URL itself is a secret, and is neither written here nor told anywhere."""

    LOOKED_FOR: ClassVar[Mapping[str, str]] = {
        "url": _IS_SECRET.format("url"),
        "webhook": _IS_SECRET.format("url"),
    }

    format: Literal["json", "slack"] = "json"
    """`slack` is what Slack's incoming webhooks take, and Mattermost's."""
    url_env: str | None = None
    """Environment variable that has the URL."""
    url_file: Path | None = None
    """File of mode 600 that has the URL."""
    ca_file: Path | None = None
    """Certificates (PEM) that the server's is held against; null = those that every browser knows."""
    allow_http: bool = False
    """Whether another machine may be told over `http://`, in clear."""

    @model_validator(mode="after")
    def _one_place(self) -> WebhookSection:
        check_places("url", self.url_env, self.url_file, is_needed=True)
        return self


class EmailSection(ChannelSection):
    """Mail through a server that takes it by SMTP."""

    LOOKED_FOR: ClassVar[Mapping[str, str]] = {"password": _IS_SECRET.format("password")}

    host: Annotated[str, Field(min_length=1)]
    """Name of the server."""
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    """587 for starttls, 465 for tls, 25 or another for none."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is encrypted; `none` takes no login, except on this machine."""
    ca_file: Path | None = None
    """Certificates (PEM) that the server's is held against."""
    user: str | None = None
    """Who logs in; null = nobody does."""
    password_env: str | None = None
    """Environment variable that has the password."""
    password_file: Path | None = None
    """File of mode 600 that has the password."""
    sender: Annotated[str, Field(pattern=r"^[^@\s<>,]+@[^@\s<>,]+$")]
    """Address that it comes from."""
    to: Annotated[list[Annotated[str, Field(pattern=r"^[^@\s<>,]+@[^@\s<>,]+$")]], Field(min_length=1)]
    """Addresses that it goes to."""

    @model_validator(mode="after")
    def _fits(self) -> EmailSection:
        check_places("password", self.password_env, self.password_file, is_needed=self.user is not None)
        has_password = self.password_env is not None or self.password_file is not None
        if has_password and self.user is None:
            raise ValueError("a password is named, and no `user`")
        if has_password and self.security == "none" and self.host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("`security: none` would send the password in clear; take starttls or tls")
        return self


class LogSection(Section):
    """Every alert as a line of JSON in a file. There is always one."""

    at_least: Severity = "info"
    """What is milder is not written."""
    kinds: list[AlertKind] = Field(default_factory=list)
    """Only these; empty = all."""
    file: Path | None = None
    """null = alerts.jsonl in RAYTRAIN_HOME."""


class RetrySection(Section):
    """What becomes of what could not be delivered."""

    first_s: Annotated[float, Field(gt=0)] = 10.0
    """So long it waits after the first failure, then twice as long each time."""
    longest_s: Annotated[float, Field(gt=0)] = 600.0
    """Longest wait."""
    give_up_after_s: Annotated[float, Field(gt=0)] = 7 * 86400.0
    """So long after it was taken in no more is tried. It stays in the list; `raytrain alerts retry` tries once more."""

    @model_validator(mode="after")
    def _in_order(self) -> RetrySection:
        if not self.first_s <= self.longest_s <= self.give_up_after_s:
            raise ValueError("`first_s` is at most `longest_s`, and that at most `give_up_after_s`")
        return self


class EndpointSection(Section):
    """A server that is asked whether it is ready."""

    LOOKED_FOR: ClassVar[Mapping[str, str]] = {
        "key": _IS_SECRET.format("key"),
        "api_key": _IS_SECRET.format("key"),
    }

    name: Name
    """As alerts call it."""
    url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")]
    """Where `raytrain serve` answers, without a path: `http://127.0.0.1:8000`."""
    key_env: str | None = None
    """Environment variable with an operator's API key, for which the server also tells what is wrong."""
    key_file: Path | None = None
    """File of mode 600 with the key."""
    ca_file: Path | None = None
    """Certificates (PEM) that the server's is held against."""
    after_looks: Annotated[int, Field(ge=1)] = 2
    """So many looks in a row must find it not ready before anybody is told."""

    @model_validator(mode="after")
    def _one_place(self) -> EndpointSection:
        check_places("key", self.key_env, self.key_file, is_needed=False)
        return self


class MonthSection(Section):
    """What all runs together may take in a calendar month (UTC)."""

    money: Annotated[float, Field(gt=0)] | None = None
    """By the prices in the recipes' `cost:`."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    """Of `money`; runs with prices in another one do not count."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours of one GPU."""
    tell_at: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        default_factory=lambda: [0.8, 1.0]
    )
    """Shares of it at which somebody is told."""

    @model_validator(mode="after")
    def _has_limit(self) -> MonthSection:
        if self.money is None and self.gpu_hours is None:
            raise ValueError("it has neither `money` nor `gpu_hours`")
        return self


class WatchSection(Section):
    """What `raytrain alerts watch` looks at."""

    every_s: Annotated[float, Field(ge=1)] = 30.0
    """Seconds between two looks."""
    runs: bool = True
    """Runs of the records database that fail, searches whose budget is used, windows of watches that drift."""
    registry: str | None = None
    """Folder or URI of the registry whose gate and signatures are looked at; null = RAYTRAIN_HOME/registry."""
    audit_every_s: Annotated[float, Field(ge=0)] = 86400.0
    """So often everything in the registry is verified, which reads all of it; 0 = never."""
    endpoints: list[EndpointSection] = Field(default_factory=list)
    """Servers that are asked."""
    month: MonthSection | None = None
    """What a month may take."""


class AlertsSection(Section):
    """Who is told of what, and what is looked at."""

    webhooks: list[WebhookSection] = Field(default_factory=list)
    """URLs that are posted to."""
    emails: list[EmailSection] = Field(default_factory=list)
    """Mail."""
    log: LogSection = LogSection()
    """The file that has them all."""
    repeat_after_s: Annotated[float, Field(ge=0)] = 3600.0
    """What is said again of the same within this time is counted, and told only where it is graver."""
    retry: RetrySection = RetrySection()
    """When it is tried again."""
    watch: WatchSection = WatchSection()
    """What is looked at."""

    @model_validator(mode="after")
    def _names_differ(self) -> AlertsSection:
        names = [one.name for one in (*self.webhooks, *self.emails)]
        if "log" in names:
            raise ValueError("`log` is the name of the file's own channel; choose another")
        for what, found in (("channels", names), ("endpoints", [one.name for one in self.watch.endpoints])):
            if len(set(found)) < len(found):
                raise ValueError(f"two {what} have one name")
        return self


def check_places(what: str, env: str | None, file: Path | None, *, is_needed: bool) -> None:
    """Raises ValueError, which shows none of what was written, where a secret is not in exactly one place."""
    if env is not None and file is not None:
        raise ValueError(f"`{what}_env` and `{what}_file` are both named; take one")
    if is_needed and env is None and file is None:
        raise ValueError(f"neither `{what}_env` nor `{what}_file` says where the {what} is")
    if env is not None and not _VARIABLE.fullmatch(env):
        raise ValueError(f"`{what}_env` takes the name of an environment variable, not the {what} itself")
    if file is not None and "://" in str(file).replace(":/", "://"):
        raise ValueError(f"`{what}_file` takes the path of a file, not the {what} itself")


def load_alerts(path: Path | None = None) -> AlertsSection:
    """The file at `path`, else alerts.yaml in RAYTRAIN_HOME, else what needs none: the log alone.

    Raises ConfigError with file, line and key of each fault, and without anything that may be a secret.
    """
    from raytrain.monitoring.alerts.redaction import Redactor

    place = path or raytrain_home() / FILE_NAME
    if path is None and not place.exists():
        return AlertsSection()
    try:
        return build(AlertsSection, load_recipe(place, None, form=ALERTS))
    except ConfigError as error:
        clean = Redactor().text
        # The fault may stand at what was written in a wrong place; its cause would be printed with a traceback.
        raise ConfigError(clean(error.what), why=clean(error.why), fix=error.fix) from None
