"""The HTTP edge for the clients of the hosted endpoint: fal-ai/wan/v2.2-a14b/text-to-video/lora on ComfyUI's own port."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

from .engine.api import answers
from .engine.api.callers import is_local
from .engine.api.errors import (
    ApiError,
    BadRequest,
    Cancelled,
    Detail,
    InternalError,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    StillInProgress,
    Unauthorized,
)
from .engine.api.jobs import COMPLETED, IN_QUEUE, Job
from .engine.api.openapi import document
from .engine.api.schema import APP, ENDPOINT, MAX_BODY_BYTES, parse
from .engine.api.settings import Settings
from .engine.fetch.addresses import AddressRefused, check_url
from .host import api, http
from .host.messages import log

QUEUE, PROXY, OPENAPI = "/queue", "/fal/proxy", "/fal/openapi.json"
FAL_HOSTS = {"fal.run": "", "queue.fal.run": QUEUE}  # where the clients think they are, and which of our addresses that is
STREAM_SECONDS = 0.2
PING_SECONDS = 5.0  # proxies cut a stream that says nothing for a minute
HANG_UP_SECONDS = 1.0  # until it is noticed that a waiting client is gone
STATUS_CODES = {COMPLETED: 200}


@dataclass(frozen=True)
class Call:
    """One request to the endpoint: whose it is, for which job, and the address that the caller knows the server by."""

    request: web.Request
    endpoint: api.Endpoint
    owner: str
    base_url: str
    query: dict[str, list[str]]
    request_id: str

    def job(self) -> Job:
        return self.endpoint.job(self.request_id, self.owner)

    def parameter(self, name: str) -> str:
        return self.query.get(name, [""])[-1]

    async def submitted(self) -> Job:
        request = parse(await self._body())
        return await self.endpoint.submit(request, self.owner, self.base_url, self._webhook())

    async def _body(self) -> bytes:
        body = bytearray()
        try:
            async for chunk in self.request.content.iter_chunked(2**16):
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise PayloadTooLarge(MAX_BODY_BYTES)
        except web.RequestPayloadError as error:
            raise BadRequest("The body is not encoded as its headers say.") from error
        return bytes(body)

    def _webhook(self) -> str | None:
        if not (url := self.parameter("fal_webhook")):
            return None
        try:
            check_url(url, self.endpoint.settings.webhooks.rules().addresses)
        except AddressRefused as error:
            raise InvalidRequest([Detail(("query", "fal_webhook"), str(error), "value_error")]) from error
        return url


async def run(call: Call) -> web.Response:
    """The synchronous way: the answer is the video, or what kept it from being made."""
    job = await call.submitted()
    while job.status != COMPLETED:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(job.done.wait(), HANG_UP_SECONDS)
        if call.request.transport is None or call.request.transport.is_closing():
            call.endpoint.cancel(job)  # nobody else knows its id
            raise Cancelled
    return _result(job)


async def submit(call: Call) -> web.Response:
    job = await call.submitted()
    return _json(job, answers.submitted(job, call.base_url, call.endpoint.queue_position(job)))


async def status(call: Call) -> web.Response:
    job = call.job()
    return _json(job, _state(call, job), STATUS_CODES.get(job.status, 202))


async def stream(call: Call) -> web.StreamResponse:
    """The status as server-sent events, one for each change, the last one COMPLETED; each holds the log lines that are new, since fal's JavaScript
    client adds them up."""
    job, told, lines, said_at = call.job(), "", 0, time.monotonic()
    events = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Fal-Request-Id": job.request_id})
    await events.prepare(call.request)
    while True:
        complete, have = job.status == COMPLETED, len(job.logs)
        state = json.dumps(_state(call, job, lines))
        if have > lines or state != told:
            await events.write(f"data: {state}\n\n".encode())
            told, lines, said_at = json.dumps(_state(call, job, have)), have, time.monotonic()
        elif time.monotonic() - said_at >= PING_SECONDS:
            await events.write(b": still there\n\n")
            said_at = time.monotonic()
        if complete:
            await events.write_eof()
            return events
        await asyncio.sleep(STREAM_SECONDS)


async def result(call: Call) -> web.Response:
    job = call.job()
    if job.status != COMPLETED:
        raise StillInProgress
    return _result(job)


async def cancel(call: Call) -> web.Response:
    try:
        job = call.job()
    except NotFound:
        return web.json_response(answers.cancellation(answers.NOT_FOUND), status=404)
    if job.status == COMPLETED:
        return _json(job, answers.cancellation(answers.ALREADY_COMPLETED), 400)
    call.endpoint.cancel(job)
    return _json(job, answers.cancellation(answers.CANCELLATION_REQUESTED), 202)


REQUESTS = rf"{QUEUE}/(?:{re.escape(APP)}|{re.escape(ENDPOINT)})/requests/(?P<request_id>[^/]+)"
ADDRESSES: list[tuple[str, re.Pattern[str], Callable[[Call], Awaitable[web.StreamResponse]]]] = [
    ("POST", re.compile(rf"/{re.escape(ENDPOINT)}/?"), run),
    ("POST", re.compile(rf"{QUEUE}/{re.escape(ENDPOINT)}/?"), submit),
    ("GET", re.compile(rf"{REQUESTS}/status"), status),
    ("GET", re.compile(rf"{REQUESTS}/status/stream"), stream),
    ("GET", re.compile(rf"{REQUESTS}(?:/response)?/?"), result),
    ("PUT", re.compile(rf"{REQUESTS}/cancel"), cancel),
]


def register() -> None:
    """Answer the endpoint's addresses where the owner switched them on, and say in the log what is missing for it."""
    try:
        settings = api.settings()
        edge = Edge(settings) if settings.enabled else None
    except (OSError, ValueError) as error:
        log.error("[Wan 2.2] the API stays off: %s", error)
        return
    if edge is not None:
        for path in ("/fal-ai/{path:.*}", f"{QUEUE}/fal-ai/{{path:.*}}", PROXY):
            http.serve("*", path, edge.answer)
        http.serve("GET", OPENAPI, edge.show_openapi)
        log.info("[Wan 2.2] API: POST /%s, for %s", ENDPOINT, "who sends a key" if settings.keys else "programs on this machine")
        for sentence in api.missing_models(api.chosen_models(settings.models)):
            log.warning("[Wan 2.2] API: %s", sentence)


class Edge:
    """Finds who asks for what, and answers in the endpoint's own forms whatever happens."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.endpoint = api.Endpoint(settings)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        return await self._guarded(request, self._answer)

    async def show_openapi(self, request: web.Request) -> web.StreamResponse:
        return await self._guarded(request, self._openapi)

    async def _guarded(self, request: web.Request, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        try:
            return await answer(request)
        except ApiError as error:
            return web.json_response(error.body(), status=error.status, headers=error.headers())
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 clients understand no other form
            log.exception("[Wan 2.2] API: %s %s", request.method, request.path)
            failed = InternalError(f"{type(error).__name__}. The server's log says more.")
            return web.json_response(failed.body(), status=failed.status, headers=failed.headers())

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(document(self._base_url(request)))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        owner = self.settings.owner(request.headers.get("Authorization", ""), is_local(request.remote, request.headers))
        if owner is None:
            raise Unauthorized
        path, query = _target(request)
        for method, address, handler in ADDRESSES:
            if method == request.method and (found := address.fullmatch(path)):
                request_id = found.groupdict().get("request_id", "")
                return await handler(Call(request, self.endpoint, owner, self._base_url(request), parse_qs(query), request_id))
        raise NotFound(f"{request.method} {path[:200]}")

    def _base_url(self, request: web.Request) -> str:
        if self.settings.public_url:
            return self.settings.public_url.rstrip("/")
        try:
            return str(request.url.origin())
        except ValueError as error:
            raise BadRequest("The header Host holds no host.") from error


def _target(request: web.Request) -> tuple[str, str]:
    """Path and query that are meant; behind the proxy address those of the header x-fal-target-url."""
    path = request.path.removeprefix("/api")
    if path != PROXY:
        return path, request.rel_url.raw_query_string
    try:
        target = urlsplit(request.headers.get("x-fal-target-url", ""))
    except ValueError as error:
        raise BadRequest("The header x-fal-target-url holds no address.") from error
    if target.hostname not in FAL_HOSTS:
        raise NotFound(f"The proxy's target at '{(target.hostname or '')[:100]}'")
    return FAL_HOSTS[target.hostname] + target.path, target.query


def _state(call: Call, job: Job, first_line: int = 0) -> dict[str, Any]:
    with_logs = call.parameter("logs").lower() in ("1", "true")
    position = call.endpoint.queue_position(job) if job.status == IN_QUEUE else 0
    return answers.state(job, call.base_url, position, with_logs, first_line)


def _result(job: Job) -> web.Response:
    assert job.answer is not None
    return _json(job, job.answer.body, job.answer.status, job.answer.headers)


def _json(job: Job, body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers={"X-Fal-Request-Id": job.request_id, **(headers or {})})
