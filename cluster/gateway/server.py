"""The gateway's HTTP server: the API's addresses, the videos, and what its owner looks at."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from aiohttp import web

from nodes.api.app import App, answered_paths
from nodes.api.errors import NotFound

from .service import VIDEO_URL, ClusterService

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PortInUse(Exception):
    """Somebody else listens there."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections at once. PortInUse names who to ask."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024)
    except OSError as error:
        raise PortInUse(f"The gateway cannot listen on {host} port {port} ({error.strerror}). Stop what listens there, or name another port: "
                        "--port NUMBER.") from None


@contextlib.asynccontextmanager
async def served(service: ClusterService, door: socket.socket, pages: Iterable[web.RouteDef] = ()) -> AsyncIterator["asyncio.Task[None]"]:
    """The API, the videos and `pages` are answered meanwhile. It gives the service's work: where that ends, nobody hands out jobs any more."""
    api, site = App(service.settings, service), web.Application()
    for path in answered_paths():
        for prefix in ("", "/api"):  # where ComfyUI has everything a second time
            site.router.add_route("*", prefix + path, api.answer)
    site.router.add_get(VIDEO_URL, _video(service))
    site.router.add_routes(pages)
    runner = web.AppRunner(site, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    work = asyncio.create_task(service.run())
    await web.SockSite(runner, door).start()
    try:
        yield work
    finally:
        work.cancel()
        await runner.cleanup()
        await asyncio.gather(work, return_exceptions=True)


def _video(service: ClusterService) -> Page:
    """Who knows a request's id may have its video, as with the hosted service's addresses."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if (file := service.videos.path(request.match_info["request_id"])) is None:
            error = NotFound("This video, which may have been deleted since,")
            return web.json_response(error.body(), status=error.status, headers=error.headers())
        return web.FileResponse(file, headers={"Content-Type": "video/mp4"})

    return answer
