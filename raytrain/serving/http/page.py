"""The web page at /: a prompt against two versions side by side, and what is served now.

It is the same for everybody and holds nothing of this server: its script asks what every client asks, with the key that
its user gives.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from raytrain.evaluation.decision.standalone import StandalonePage, resource

# Asks its own server and nobody else. No script can make HTML of a text.
_ALLOWED = "connect-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'"


def page_routes() -> APIRouter:
    """GET /."""
    page = StandalonePage(
        __package__, "raytrain: what is served", resource(__package__, "page.html"), _ALLOWED
    )
    content = page.html().encode()
    headers = {
        "content-security-policy": f"{page.policy}; frame-ancestors 'none'",
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
    }
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def show_page() -> Response:
        return Response(content, media_type="text/html; charset=utf-8", headers=headers)

    return routes
