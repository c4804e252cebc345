"""Web servers of this machine: one for what the endpoint fetches and tells, and one around any aiohttp application."""

import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

TOKEN = "hf_a_token_that_nobody_may_read"


@contextlib.asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[int]:
    """The port on which `app` answers meanwhile."""
    server = TestServer(app, host="127.0.0.1")
    await server.start_server(shutdown_timeout=0.1)
    try:
        assert server.port is not None
        yield server.port
    finally:
        await server.close()


class Web:
    """A web server of this machine: gives files to who has the token, keeps what is posted to it, and is slow where it is `held` up."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.posted: list[tuple[str, dict[str, Any]]] = []
        self.received: list[tuple[dict[str, str], bytes]] = []  # headers and body of each of `posted`
        self.down: set[str] = set()  # where nothing is taken
        self.arrived = threading.Condition()
        self.held: dict[str, threading.Event] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.wait_for(self.path)
                content = outer.files.get(self.path.partition("?")[0])
                allowed = content is not None and self.headers.get("Authorization") == f"Bearer {TOKEN}"
                self.send_response(200 if allowed else 404)
                self.send_header("Content-Length", str(len(content) if allowed and content else 0))
                self.end_headers()
                self.wfile.write(content if allowed and content else b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with outer.arrived:
                    outer.posted.append((self.path, json.loads(body)))
                    outer.received.append((dict(self.headers), body))
                    outer.arrived.notify_all()
                outer.wait_for(self.path)
                with contextlib.suppress(OSError):  # who asked may be gone by now
                    self.send_response(503 if self.path in outer.down else 200)
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_for(self, path: str) -> None:
        if path in self.held:
            self.held[path].wait(300)

    @contextlib.contextmanager
    def holding(self, path: str) -> Iterator[None]:
        """Whoever asks for `path` meanwhile gets no answer before the end."""
        self.held[path] = threading.Event()
        yield
        self.held.pop(path).set()

    def message(self, path: str, times: int = 1) -> dict[str, Any]:
        """What was posted to `path`, as soon as it has come so often."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: sum(where == path for where, _ in self.posted) >= times, timeout=60)
        return next(body for where, body in self.posted if where == path)
