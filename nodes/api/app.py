"""The HTTP edge for the clients of the hosted endpoint: which address, who asks, and every error in the endpoint's own form."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web
from pydantic import BaseModel

from ..engine.log import log
from . import contract
from .calls import Call, Service
from .contract import APP, ENDPOINT, Cancellation
from .errors import (
    ApiError,
    BadRequest,
    Cancelled,
    InternalError,
    KeysMissing,
    NotFound,
    StillInProgress,
    Unauthorized,
)
from .headers import QUEUE, QUEUE_AT_FAL, Target
from .jobs.job import COMPLETED, IN_QUEUE, Job
from .jobs.repeats import Repeats
from .openapi import document
from .settings import Settings
from .trust import stranger
from .uploads import handlers as uploads
from .uploads.storage import without_secret

OPENAPI, JWKS, HEALTH = "/fal/openapi.json", "/fal/.well-known/jwks.json", "/fal/health"
STREAM_SECONDS = 0.2
PING_SECONDS = 5.0  # proxies cut a stream that says nothing for a minute
HANG_UP_SECONDS = 1.0  # until it is noticed that a waiting client is gone


async def run(call: Call) -> web.Response:
    """The synchronous way: the answer is the video, or what kept it from being made. A call that is sent again meanwhile waits for the same job."""
    order = await call.order()
    async with call.repeats.job(order, lambda: call.submitted(order), call.service.cancel) as job:
        while job.status != COMPLETED and not call.is_gone():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(job.done.wait(), HANG_UP_SECONDS)
        if call.is_gone():
            raise Cancelled
    return _result(job)


async def submit(call: Call) -> web.Response:
    job = await call.submitted(await call.order())
    return _model(job, contract.submitted(job, call.queue_url, call.service.queue_position(job)))


async def status(call: Call) -> web.Response:
    job = call.job()
    return _json(job, call.state(job), 200 if job.status == COMPLETED else 202)


async def stream(call: Call) -> web.StreamResponse:
    """The status as server-sent events, one for each change, the last one COMPLETED; each holds the log lines that are new, since fal's JavaScript
    client adds them up. With `preview=1` the clip is looked at meanwhile, and an event holds its picture where that is new."""
    job = call.job()
    events = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Fal-Request-Id": job.request_id,
                                         "X-Accel-Buffering": "no"})  # nginx would hold the events back until there are pages of them
    await events.prepare(call.request)
    with contextlib.suppress(ConnectionError), job.looked_at() if call.wants("preview") else contextlib.nullcontext():  # who listened is gone
        await _send_states(call, job, events)
        await events.write_eof()
    return events


async def _send_states(call: Call, job: Job, events: web.StreamResponse) -> None:
    sent, lines, seen, sent_at = "", 0, "", time.monotonic()
    while True:
        complete, have, picture = job.status == COMPLETED, len(job.logs), job.picture if call.wants("preview") else ""
        state = json.dumps(call.state(job, lines, picture if picture != seen else ""))
        if have > lines and job.status != IN_QUEUE or state != sent:
            await events.write(f"data: {state}\n\n".encode())
            lines, seen = have if job.status != IN_QUEUE else lines, picture
            sent, sent_at = json.dumps(call.state(job, lines)), time.monotonic()
        elif time.monotonic() - sent_at >= PING_SECONDS:
            await events.write(b": still there\n\n")
            sent_at = time.monotonic()
        if complete:
            return
        ahead = call.service.queue_position(job) if job.status == IN_QUEUE else 0  # who is far behind is told of its place less often
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(job.done.wait(), min(STREAM_SECONDS * (1 + ahead), PING_SECONDS))


async def result(call: Call) -> web.Response:
    job = call.job()
    if job.status != COMPLETED:
        raise StillInProgress
    return _result(job)


async def cancel(call: Call) -> web.Response:
    try:
        job = call.job()
    except NotFound:
        return web.json_response(contract.body(Cancellation(status="NOT_FOUND")), status=404)
    if job.status == COMPLETED:
        return _model(job, Cancellation(status="ALREADY_COMPLETED"), 400)
    call.service.cancel(job)
    return _model(job, Cancellation(status="CANCELLATION_REQUESTED"), 202)


async def openapi(call: Call) -> web.Response:
    return web.json_response(document(call.base_url))


async def jwks(call: Call) -> web.Response:
    return web.json_response(call.service.jwks())


async def health(call: Call) -> web.Response:
    return web.json_response(contract.body(call.service.health()))


Handler = Callable[[Call], Awaitable[web.StreamResponse]]
HANDLERS: dict[str, Handler] = {
    contract.RUN: run, contract.SUBMIT: submit, contract.STATUS: status, contract.STREAM: stream, contract.REQUEST: result, contract.CANCEL: cancel,
    f"{contract.REQUEST}/response": result, HEALTH: health, **uploads.HANDLERS}
KEYLESS: dict[str, Handler] = {OPENAPI: openapi, JWKS: jwks, **uploads.WITH_SECRET}  # who asks for these needs no key
METHODS = contract.METHODS | uploads.METHODS


def _pattern(path: str) -> re.Pattern[str]:
    """What answers to a path of the contract: with a slash behind it too, and with the whole name of the model in it."""
    either = re.escape(path).replace(re.escape(f"/{APP}/requests"), f"/(?:{re.escape(APP)}|{re.escape(ENDPOINT)})/requests")
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", either) + "/?")


ROUTES = [(METHODS.get(path, "GET"), _pattern(path), handler) for path, handler in (HANDLERS | KEYLESS).items()]


def answered_paths() -> tuple[str, ...]:
    """The patterns of a server's paths that are the API's: whatever is below them gets its answer in the endpoint's form."""
    return "/fal-ai", "/fal-ai/{path:.*}", f"{QUEUE}/{{path:.*}}", "/fal", "/fal/{path:.*}"


class App:
    """Finds who asks for what, and answers in the endpoint's own forms whatever happens."""

    def __init__(self, settings: Settings, service: Service) -> None:
        self.settings, self.service, self.repeats = settings, service, Repeats()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ApiError as error:
            return web.json_response(error.body(), status=error.status, headers=error.headers())
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 clients understand no other form
            log.exception("API: %s %s", request.method, without_secret(request.path))
            failure = InternalError(f"{type(error).__name__}. The server's log says more.")
            return web.json_response(failure.body(), status=failure.status, headers=failure.headers())

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        target = Target.of(request.path.removeprefix("/api"), request.rel_url.raw_query_string, request.headers)
        handler, names = _route(request.method, target.path)
        owner = "" if handler in KEYLESS.values() else self._owner(request)
        if handler is None:
            raise NotFound(f"{request.method} {target.path[:200]}")
        base_url = self._base_url(request)
        return await handler(Call(request, self.service, self.settings, self.repeats, owner, base_url,
                                  QUEUE_AT_FAL if target.at_fal else base_url + QUEUE, parse_qs(target.query), names))

    def _owner(self, request: web.Request) -> str:
        why = stranger(request.remote, request.headers)
        owner = self.settings.owner(request.headers.get("Authorization", ""), local=not why)
        if owner is None:
            raise Unauthorized if self.settings.keys else KeysMissing(why)
        return owner

    def _base_url(self, request: web.Request) -> str:
        if self.settings.public_url:
            return self.settings.public_url.rstrip("/")
        try:
            return str(request.url.origin())
        except ValueError as error:
            raise BadRequest("The header Host holds no host.") from error


def _route(method: str, path: str) -> tuple[Handler | None, dict[str, str]]:
    """What answers, and what the path names: a request's id, a file."""
    for allowed, pattern, handler in ROUTES:
        if allowed == method and (match := pattern.fullmatch(path)):
            return handler, match.groupdict()
    return None, {}


def _result(job: Job) -> web.Response:
    assert job.answer is not None
    return _json(job, job.answer.body, job.answer.status, job.answer.headers)


def _model(job: Job, answer: BaseModel, code: int = 200) -> web.Response:
    return _json(job, contract.body(answer), code)


def _json(job: Job, body: dict[str, Any], code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=code, headers={"X-Fal-Request-Id": job.request_id, **(headers or {})})
