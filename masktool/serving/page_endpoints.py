"""The page at ``/``, its files, and the figures for Prometheus."""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from masktool.serving.metrics import CONTENT_TYPE
from masktool.serving.service import Service

FILES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.mjs": "text/javascript; charset=utf-8",
    "back-end.mjs": "text/javascript; charset=utf-8",
}
"""The page's files, which examples/browser uses too, but for its own back-end.mjs."""
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""What the page may do: run and load what this server sends, and nothing else."""


class PageEndpoints:
    """The page and the figures.

    Args:
        service: what is served.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        folder = resources.files(__package__) / "page"
        self.contents = {name: (folder / name).read_bytes() for name in FILES}

    def routes(self) -> list[Route]:
        """Returns the routes."""
        return [
            Route("/", self.page, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            *(Route(f"/{name}", self.page, methods=["GET"]) for name in FILES),
        ]

    async def page(self, request: Request) -> Response:
        """Sends a file of the page."""
        name = request.url.path.removeprefix("/") or "index.html"
        headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
        return Response(self.contents[name], headers=headers, media_type=FILES[name])

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002 - as endpoints are called
        """Sends the figures."""
        return Response(self.service.write_metrics(), media_type=CONTENT_TYPE)
