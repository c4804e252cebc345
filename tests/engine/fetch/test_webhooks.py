"""Webhooks: what is sent, when it is sent again, and that nothing that goes wrong reaches the sender. Against a real HTTP server on loopback."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from engine.fetch.rules import WebhookRules
from engine.fetch.webhooks import deliver
from web_server import served

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
OPEN: dict[str, Any] = {"networks": ("127.0.0.1/32",), "plain_http": True}
PATIENT = {"seconds": 60.0, "total_seconds": 300.0, "pauses": (0.0, 0.01)}
PAYLOAD = {"request_id": "1", "status": "OK", "payload": {"video": {"url": "x"}}}


def send(handler: Handler, payload: Any = PAYLOAD, signed: Any = lambda body: {}, **rules: Any) -> tuple[bool, list[str]]:
    async def run() -> tuple[bool, list[str]]:
        app = web.Application()
        app.router.add_post("/services/path-secret", handler)
        lines: list[str] = []
        async with served(app) as port:
            url = f"http://127.0.0.1:{port}/services/path-secret?token=query-secret"
            return await deliver(url, payload, WebhookRules(**{**OPEN, **PATIENT, **rules}), lines.append, signed=signed), lines
    return asyncio.run(run())


def answering(*statuses: int, **headers: str) -> tuple[Handler, list[Any]]:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.content_type, await request.json()))
        return web.Response(status=statuses[min(len(seen), len(statuses)) - 1], headers=headers, text="ignored")
    return handler, seen


def test_the_payload_arrives_once():
    handler, seen = answering(204)
    assert send(handler) == (True, [])
    assert seen == [("application/json", PAYLOAD)]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_may_pass_is_tried_again(status: int):
    handler, seen = answering(status, status, 200)
    taken, lines = send(handler)
    assert taken and len(seen) == 3 and len(lines) == 2
    assert not any("secret" in line for line in lines)


def test_three_attempts_are_enough():
    handler, seen = answering(500)
    taken, lines = send(handler)
    assert not taken and len(seen) == 3 and all("500" in line for line in lines)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410])
def test_what_stays_is_not_tried_again_and_redirects_are_not_followed(status: int):
    handler, seen = answering(status, Location="/services/path-secret")
    taken, lines = send(handler)
    assert not taken and len(seen) == 1 and str(status) in lines[0]


async def silent(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


@pytest.mark.parametrize("limit", ["seconds", "total_seconds"])
def test_an_attempt_is_given_up_when_its_time_or_that_of_all_is_over(limit: str):
    taken, lines = send(silent, pauses=(), **{limit: 0.1})
    assert not taken and len(lines) == 1 and "within 0" in lines[0]


def test_a_slow_webhook_is_given_up():
    seen = []

    async def slow(request: web.Request) -> web.Response:
        seen.append(1)
        return await silent(request)

    pauses = (0.01,) * 100
    taken, lines = send(slow, seconds=0.05, total_seconds=0.5, pauses=pauses)
    assert not taken and len(seen) < len(pauses) + 1 and "within 0.5 s" in lines[-1]


def test_the_body_of_the_answer_is_not_waited_for():
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x" * 2**16)
        return await silent(request)

    assert send(endless) == (True, [])


def test_a_server_that_hangs_up_is_no_error():
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    taken, lines = send(hang_up)
    assert not taken and len(lines) == 3


@pytest.mark.parametrize("url", ["https://127.0.0.1/hook-secret", "https://localhost/hook-secret", "http://example.com/?secret",
    "https://u:secret@example.com/", "secret",
                                 "https://169.254.169.254/secret", "https://example.com:8080/secret", ""])
def test_addresses_that_are_not_allowed_get_nothing(url: str):
    lines: list[str] = []
    assert asyncio.run(deliver(url, PAYLOAD, WebhookRules(), lines.append)) is False
    assert len(lines) == 1 and "secret" not in lines[0]


@pytest.mark.parametrize("payload", [{"a": object()}, {1j: 2}])
def test_a_payload_that_is_no_json_is_no_error(payload: Any):
    handler, seen = answering(200)
    taken, lines = send(handler, payload)
    assert not taken and not seen and "JSON" in lines[0]


def test_an_address_nobody_answers_is_no_error():
    lines: list[str] = []
    rules = WebhookRules(hosts=("127.0.0.1:9",), pauses=(0.0,), **OPEN)
    assert asyncio.run(deliver("http://127.0.0.1:9/", PAYLOAD, rules, lines.append)) is False
    assert len(lines) == 2


def test_times_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="greater than 0"):
        WebhookRules(seconds=0)


def test_each_attempt_is_signed_anew():
    """Verifiers refuse what is older than five minutes, and the last attempt comes after two hours."""
    seen: list[tuple[bytes, str]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((await request.read(), request.headers["Signature"]))
        return web.Response(status=500 if len(seen) < 3 else 200)

    numbers = iter("123")
    taken, _ = send(handler, signed=lambda body: {"Signature": f"{len(body)} {next(numbers)}"})
    assert taken and [signature for _, signature in seen] == [f"{len(seen[0][0])} {number}" for number in "123"]


def test_a_webhook_that_is_down_is_tried_ten_times_within_two_hours():
    rules = WebhookRules()
    assert len(rules.pauses) == 9 and 3600 < sum(rules.pauses) + 10 * rules.seconds <= rules.total_seconds == 7200
