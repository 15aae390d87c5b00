"""A web page that needs nothing else: one file, one look, and a policy that lets its own style and script run alone."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property
from html import escape
from importlib import resources


@dataclass(frozen=True)
class StandalonePage:
    """`package` holds page.css and, where the page does something, page.js; the look that all pages share comes before
    them."""

    package: str
    title: str
    body: str
    """HTML in which every text of others is escaped."""
    allowed: str = ""
    """What the page may do beside that, as directives of a Content-Security-Policy."""

    @cached_property
    def style(self) -> str:
        return resource(__package__, "standalone.css") + resource(self.package, "page.css")

    @cached_property
    def script(self) -> str:
        has_one = resources.files(self.package).joinpath("page.js").is_file()
        return resource(self.package, "page.js") if has_one else ""

    @cached_property
    def policy(self) -> str:
        """The Content-Security-Policy: style and script are known by their digests."""
        told = (
            f"default-src 'none'; style-src '{_source_of(self.style)}'; "
            f"script-src '{_source_of(self.script)}'; base-uri 'none'; form-action 'none'"
        )
        return f"{told}; {self.allowed}" if self.allowed else told

    def html(self) -> str:
        """The whole page."""
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{self.policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n"
            f"<style>{self.style}</style>\n</head>\n<body>\n{self.body}\n"
            f"<script>{self.script}</script>\n</body>\n</html>\n"
        )


def resource(package: str, name: str) -> str:
    """A file that lies beside a package's code."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def _source_of(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
