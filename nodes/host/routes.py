"""The pack's own addresses on ComfyUI's server."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from server import PromptServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve(method: str, path: str, handler: Handler) -> None:
    """Answer requests for `path` by `method`, "*" for any, and for the same below /api. Without a server, as in a script that imports ComfyUI,
    nothing happens."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.routes.route(method, path)(handler)
