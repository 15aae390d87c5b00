"""`http:` of a serving config."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from raytrain.config.section import Section
from raytrain.errors import ConfigError
from raytrain.storage.home import raytrain_home


class RequestLogSection(Section):
    """`request_log:`: what is kept of what was asked, without personal data as far as it is found."""

    share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Of requests whose prompts and answers are kept; 0 = of none."""
    feedback: bool = False
    """Take POST /v1/feedback."""
    folder: str | None = None
    """Where the Parquet files go; null = serving/requests under RAYTRAIN_HOME."""
    flush_s: float = Field(default=30.0, gt=0)
    """Rows are in a file so soon."""

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self.share > 0 or self.feedback

    @property
    def place(self) -> Path:
        """Where the Parquet files go."""
        return Path(self.folder) if self.folder else raytrain_home() / "serving" / "requests"


class HttpSection(Section):
    """Where requests are taken, from whom, and how much of them."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on."""
    port: int = Field(default=8000, ge=1, le=65535)
    num_ingresses: int = Field(default=1, ge=1, le=64)
    """Processes that speak HTTP, behind Ray Serve's proxies. Where one dies the others go on; a key's limit is divided
    among them, and each counts what it answers, for metrics."""
    haproxy: bool | None = None
    """HAProxy, which comes with Ray for Linux, listens in the place of Ray Serve's own proxy, which costs a request
    some milliseconds. null = where it runs and `serve start` begins the cluster; one that it joins must have been
    started for it."""
    api_keys: str | None = None
    """File of the API keys' hashes; null = serving/keys.json under RAYTRAIN_HOME."""
    insecure: bool = False
    """Answer whoever asks, without a key; on a loopback address only."""
    open_metrics: bool = False
    """Show /metrics and the whole of /ready to those without an operator's key."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Of each key that has no limit of its own; null = as many as it asks."""
    max_body_bytes: int = Field(default=2 * 1024 * 1024, ge=1024)
    """Of a request; one that is longer is refused with 413 while it is read."""
    max_answers: int = Field(default=16, ge=1, le=1024)
    """To one request: prompts times n."""
    body_time_s: float = Field(default=30.0, gt=0)
    """A request that is not read by then is refused with 408."""
    answer_time_s: float = Field(default=300.0, gt=0)
    """From a request's arrival; what is not answered by then ends with 504."""
    stall_time_s: float = Field(default=30.0, gt=0)
    """A client that takes nothing of its stream for so long is let go."""
    cors_origins: tuple[str, ...] = ()
    """Web origins whose pages may ask; empty = none."""
    access_log: bool = True
    """One JSON line on stdout for each request, without prompts and answers."""
    request_log: RequestLogSection = Field(default_factory=RequestLogSection)

    @model_validator(mode="after")
    def _is_insecure_on_loopback_only(self) -> Self:
        if self.insecure and not is_loopback(self.host):
            raise ConfigError(
                f"http.insecure takes no requests on {self.host}",
                why="whoever reaches that address could ask without a key",
                fix="set http.host to 127.0.0.1, or leave http.insecure off and give out keys",
            )
        return self

    @property
    def key_file(self) -> Path:
        """Where the keys' hashes lie."""
        return Path(self.api_keys) if self.api_keys else raytrain_home() / "serving" / "keys.json"


def is_loopback(host: str) -> bool:
    """Whether an address, or the name `localhost`, is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
