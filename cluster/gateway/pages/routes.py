"""What the cluster's owner looks at: `/cluster`, a page for browsers and JSON for programs, and `/metrics`.

One address for both forms, told apart by the header Accept, so that there is one to remember; `curl` gets JSON.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from nodes.api.errors import ApiError, Unauthorized

from ..server import Page
from ..service import ClusterService
from .door import CHALLENGE, check_caller, check_origin
from .metrics import registry
from .overview import Seat, overview
from .restart import RollingRestart

CLUSTER, RESTART, METRICS = "/cluster", "/cluster/restart", "/metrics"
PAGE = Path(__file__).with_name("page.html")
FRESH = {"Cache-Control": "no-store", "Vary": "Accept"}
CLOSED = {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Content-Security-Policy":
          "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; "
          "form-action 'none'; frame-ancestors 'none'"}


class Workers(Protocol):
    """The pool, as far as it is looked at."""

    @property
    def seats(self) -> Mapping[str, Seat]: ...

    async def restart_all(self) -> None: ...


class Pages:
    """Answers whoever may look."""

    def __init__(self, service: ClusterService, workers: Workers) -> None:
        self._service, self._workers = service, workers
        self._restart = RollingRestart(workers.restart_all)
        self._registry = registry(service, lambda: workers.seats.values())
        self._page = PAGE.read_text(encoding="utf-8")

    def routes(self) -> list[web.RouteDef]:
        return [web.get(CLUSTER, self._guarded(self._look)), web.get(f"{CLUSTER}/", self._guarded(self._look)),
                web.get(METRICS, self._guarded(self._metrics)), web.post(RESTART, self._guarded(self._begin_restart))]

    def _guarded(self, page: Page) -> Page:
        """The page for those who may see it, and errors in fal's form for others."""
        settings = self._service.settings

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                check_caller(settings, request.remote, request.headers)
                return await page(request)
            except ApiError as error:
                asked = CHALLENGE if isinstance(error, Unauthorized) and settings.keys else {}
                return web.json_response(error.body(), status=error.status, headers=error.headers() | asked | FRESH)

        return answer

    async def _look(self, request: web.Request) -> web.Response:
        if "text/html" in request.headers.get("Accept", ""):
            return web.Response(text=self._page, content_type="text/html", charset="utf-8", headers=FRESH | CLOSED)
        seats = self._workers.seats.values()
        return web.json_response(asdict(overview(self._service, seats, self._restart.seconds)), headers=FRESH)

    async def _metrics(self, request: web.Request) -> web.Response:
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encoder(self._registry), headers={"Content-Type": content_type} | FRESH)

    async def _begin_restart(self, request: web.Request) -> web.Response:
        """202 where it begins, 200 where one runs: fal's clients would send a 409 again."""
        check_origin(self._service.settings, request.headers)
        begins = self._restart.begin()
        leaving = [seat.name for seat in self._workers.seats.values() if seat.worker is not None and seat.worker.leaving]
        body = {"status": "STARTED" if begins else "RUNNING", "seconds": self._restart.seconds, "leaving": leaving}
        return web.json_response(body, status=202 if begins else 200, headers=FRESH)
