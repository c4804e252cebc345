"""The HTTP edge for the clients of the hosted endpoint: which address, who asks, and every error in the endpoint's own form."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from pydantic import BaseModel

from ..engine.fetch.addresses import AddressRefused, check_url
from ..engine.log import log
from . import contract
from .contract import APP, ENDPOINT, MAX_BODY_BYTES, METHODS, QUEUE, Cancellation, TextToVideoInput
from .errors import ApiError, BadRequest, Cancelled, Detail, InternalError, InvalidRequest, NotFound, PayloadTooLarge, StillInProgress, Unauthorized
from .jobs import COMPLETED, IN_QUEUE, Job
from .openapi import document
from .settings import Settings
from .trust import is_local

PROXY, OPENAPI = "/fal/proxy", "/fal/openapi.json"
FAL_HOSTS = {"fal.run": "", "queue.fal.run": QUEUE}  # where the clients think they are, and which of our addresses that is
STREAM_SECONDS = 0.2
PING_SECONDS = 5.0  # proxies cut a stream that says nothing for a minute
HANG_UP_SECONDS = 1.0  # until it is noticed that a waiting client is gone


class Service(Protocol):
    """Whoever makes the videos: this ComfyUI, or many."""

    async def submit(self, request: TextToVideoInput, owner: str, base_url: str, webhook: str | None = None) -> Job:
        """A job that waits. ApiError where it cannot."""

    def job(self, request_id: str, owner: str) -> Job:
        """NotFound for what is not there, and for what is another key's."""

    def cancel(self, job: Job) -> None:
        """Its result is Cancelled soon, unless it is complete already."""

    def queue_position(self, job: Job) -> int:
        """How many are ahead of it."""


@dataclass(frozen=True)
class Call:
    """One request to the API: whose it is, for which job, and the address that the caller knows the server by."""

    request: web.Request
    service: Service
    settings: Settings
    owner: str
    base_url: str
    query: dict[str, list[str]]
    request_id: str

    def job(self) -> Job:
        return self.service.job(self.request_id, self.owner)

    def parameter(self, name: str) -> str:
        return self.query.get(name, [""])[-1]

    async def submitted(self) -> Job:
        request = contract.parse(await self._body())
        return await self.service.submit(request, self.owner, self.base_url, self._webhook())

    async def _body(self) -> bytes:
        try:
            body = await self.request.clone(client_max_size=MAX_BODY_BYTES + 1).read()
        except web.HTTPRequestEntityTooLarge as error:
            raise PayloadTooLarge(MAX_BODY_BYTES) from error
        except web.RequestPayloadError as error:
            raise BadRequest("The body is not encoded as its headers say.") from error
        if len(body) > MAX_BODY_BYTES:  # versions of aiohttp differ in whether the limit itself is too large
            raise PayloadTooLarge(MAX_BODY_BYTES)
        return body

    def _webhook(self) -> str | None:
        if not (url := self.parameter("fal_webhook")):
            return None
        try:
            check_url(url, self.settings.webhooks.addresses)
        except AddressRefused as error:
            raise InvalidRequest([Detail(("query", "fal_webhook"), str(error), "value_error")]) from error
        return url

    def state(self, job: Job, first_line: int = 0) -> dict[str, Any]:
        with_logs = self.parameter("logs").lower() in ("1", "true")
        position = self.service.queue_position(job) if job.status == IN_QUEUE else 0
        return contract.body(contract.state(job, self.base_url, position, with_logs, first_line))


async def run(call: Call) -> web.Response:
    """The synchronous way: the answer is the video, or what kept it from being made."""
    job = await call.submitted()
    while job.status != COMPLETED:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(job.done.wait(), HANG_UP_SECONDS)
        if call.request.transport is None or call.request.transport.is_closing():
            call.service.cancel(job)  # nobody else knows its id
            raise Cancelled
    return _result(job)


async def submit(call: Call) -> web.Response:
    job = await call.submitted()
    return _model(job, contract.submitted(job, call.base_url, call.service.queue_position(job)))


async def status(call: Call) -> web.Response:
    job = call.job()
    return _json(job, call.state(job), 200 if job.status == COMPLETED else 202)


async def stream(call: Call) -> web.StreamResponse:
    """The status as server-sent events, one for each change, the last one COMPLETED; each holds the log lines that are new, since fal's JavaScript
    client adds them up."""
    job, sent, lines, sent_at = call.job(), "", 0, time.monotonic()
    events = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Fal-Request-Id": job.request_id})
    await events.prepare(call.request)
    while True:
        complete, have = job.status == COMPLETED, len(job.logs)
        state = json.dumps(call.state(job, lines))
        if have > lines and job.status != IN_QUEUE or state != sent:
            await events.write(f"data: {state}\n\n".encode())
            lines = have if job.status != IN_QUEUE else lines
            sent, sent_at = json.dumps(call.state(job, lines)), time.monotonic()
        elif time.monotonic() - sent_at >= PING_SECONDS:
            await events.write(b": still there\n\n")
            sent_at = time.monotonic()
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
        return web.json_response(contract.body(Cancellation(status="NOT_FOUND")), status=404)
    if job.status == COMPLETED:
        return _model(job, Cancellation(status="ALREADY_COMPLETED"), 400)
    call.service.cancel(job)
    return _model(job, Cancellation(status="CANCELLATION_REQUESTED"), 202)


HANDLERS: dict[str, Callable[[Call], Awaitable[web.StreamResponse]]] = {
    contract.RUN: run, contract.SUBMIT: submit, contract.STATUS: status, contract.STREAM: stream, contract.REQUEST: result, contract.CANCEL: cancel,
    f"{contract.REQUEST}/response": result}


def _pattern(path: str) -> re.Pattern[str]:
    """What answers to a path of the contract: with a slash behind it too, and with the whole name of the model in it."""
    either = re.escape(path).replace(re.escape(f"/{APP}/requests"), f"/(?:{re.escape(APP)}|{re.escape(ENDPOINT)})/requests")
    return re.compile(either.replace(re.escape("{request_id}"), "(?P<request_id>[^/]+)") + "/?")


ROUTES = [(METHODS.get(path, "GET"), _pattern(path), handler) for path, handler in HANDLERS.items()]


class App:
    """Finds who asks for what, and answers in the endpoint's own forms whatever happens."""

    def __init__(self, settings: Settings, service: Service) -> None:
        self.settings, self.service = settings, service

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
            log.exception("API: %s %s", request.method, request.path)
            failure = InternalError(f"{type(error).__name__}. The server's log says more.")
            return web.json_response(failure.body(), status=failure.status, headers=failure.headers())

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(document(self._base_url(request)))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        owner = self.settings.owner(request.headers.get("Authorization", ""), is_local(request.remote, request.headers))
        if owner is None:
            raise Unauthorized
        path, query = _target(request)
        for method, pattern, handler in ROUTES:
            if method == request.method and (match := pattern.fullmatch(path)):
                request_id = match.groupdict().get("request_id", "")
                return await handler(Call(request, self.service, self.settings, owner, self._base_url(request), parse_qs(query), request_id))
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


def _result(job: Job) -> web.Response:
    assert job.answer is not None
    return _json(job, job.answer.body, job.answer.status, job.answer.headers)


def _model(job: Job, answer: BaseModel, code: int = 200) -> web.Response:
    return _json(job, contract.body(answer), code)


def _json(job: Job, body: dict[str, Any], code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=code, headers={"X-Fal-Request-Id": job.request_id, **(headers or {})})
