"""The OpenAI-compatible chat server: what is sent, what is read, and what each fault says. Against a real HTTP server on loopback."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from engine.prompt.chat_server import ChatServer
from engine.prompt.expansion import ExpansionFailed, Request
from web_server import served

REQUEST = Request("be brief", "<prompt>fox</prompt>", seed=2**63 + 5)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def completion(content: Any) -> web.Response:
    return web.json_response({"choices": [{"message": {"role": "assistant", "content": content, "reasoning_content": "hm"}}]})


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    app.router.add_get("/v1/models", lambda _: asyncio.sleep(0, web.json_response({"data": [{"id": "first"}, {"id": "second"}]})))
    async with served(app) as port:
        yield f"http://127.0.0.1:{port}/v1"


def ask(handler: Handler, **options: Any) -> str:
    async def run() -> str:
        async with serving(handler) as url:
            return await ChatServer(url, **options).answer(REQUEST)
    return asyncio.run(run())


def test_messages_seed_and_key_are_sent_and_the_content_is_read():
    seen: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.Response:
        seen.update(await request.json(), key=request.headers.get("Authorization"))
        return completion("a fox trots")

    assert ask(handler, model="qwen", key="secret") == "a fox trots"
    assert seen["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "<prompt>fox</prompt>"}]
    assert seen["model"] == "qwen" and seen["key"] == "Bearer secret" and seen["stream"] is False
    assert 0 <= seen["seed"] < 2**31


def test_a_server_that_streams_all_the_same_is_understood():
    async def handler(_: web.Request) -> web.Response:
        pieces = [{"choices": [{"delta": {"role": "assistant"}}]}, {"choices": [{"delta": {"content": "a fox "}}]},
                  {"choices": [{"delta": {"content": "trots", "reasoning_content": None}}]},
                  {"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [{"delta": None}]},
                  {"choices": [], "usage": {}}]
        text = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + "data: [DONE]\n\n"
        return web.Response(text=text, content_type="text/event-stream")

    assert ask(handler, model="m") == "a fox trots"


def test_without_a_name_the_first_model_is_asked():
    async def handler(request: web.Request) -> web.Response:
        return completion((await request.json())["model"])

    assert ask(handler) == "first"


def test_a_server_that_takes_no_options_is_asked_without_them():
    async def handler(request: web.Request) -> web.Response:
        asked = await request.json()
        if "max_tokens" in asked:
            return web.json_response({"error": {"message": "Unsupported parameter: 'max_tokens'"}}, status=400)
        return completion(",".join(sorted(asked)))

    assert ask(handler, model="o9") == "messages,model"


async def silent(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return completion("late")


async def broken_json(_: web.Request) -> web.Response:
    return web.Response(text='{"choices": [', content_type="application/json")


async def a_page(_: web.Request) -> web.Response:
    return web.Response(text="<html>It works!</html>", content_type="text/html")


async def server_error(_: web.Request) -> web.Response:
    return web.json_response({"error": {"message": "CUDA out of memory", "type": "server_error"}}, status=500)


async def no_key(_: web.Request) -> web.Response:
    return web.json_response({"error": {"message": "Incorrect API key provided"}}, status=401)


async def huge(_: web.Request) -> web.Response:
    return completion("x" * (10 * 2**20))


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(b" " * 2**16)
    except ConnectionError:
        return response


async def other_shape(_: web.Request) -> web.Response:
    return web.json_response({"response": "a fox"})


async def a_list(_: web.Request) -> web.Response:
    return web.json_response([1, 2])


async def elsewhere(_: web.Request) -> web.Response:
    return web.Response(status=307, headers={"Location": "http://169.254.169.254/"})


async def hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return completion("never")


async def deep(_: web.Request) -> web.Response:
    return web.Response(text="[" * 200_000, content_type="application/json")


async def no_pieces(_: web.Request) -> web.Response:
    return web.Response(text='data: "x"\n\ndata: [DONE]\n\n', content_type="text/event-stream")


async def error_in_the_stream(_: web.Request) -> web.Response:
    return web.Response(text='data: {"error": {"message": "out of memory"}}\n\n', content_type="text/event-stream")


@pytest.mark.parametrize(("handler", "pattern"), [
    (deep, "not JSON"), (no_pieces, "without choices"), (error_in_the_stream, "out of memory"),
    (silent, "no answer within 0.5 s"), (broken_json, "not JSON"), (a_page, "It works"), (server_error, "500.*CUDA out of memory"),
    (no_key, "401.*Incorrect API key"), (huge, "more than 1 MB"), (endless, "more than 1 MB"), (other_shape, "without choices"),
    (a_list, "without choices"), (elsewhere, "307"), (hang_up, "cannot be reached"),
])
def test_each_fault_is_told(handler: Handler, pattern: str):
    with pytest.raises(ExpansionFailed, match=pattern):
        ask(handler, model="m", seconds=0.5 if handler is silent else 180)


def test_a_refused_connection_is_told():
    with pytest.raises(ExpansionFailed, match="cannot be reached.*running"):
        asyncio.run(ChatServer("http://127.0.0.1:9/v1").answer(REQUEST))


def test_an_empty_content_is_an_empty_answer():
    async def handler(_: web.Request) -> web.Response:
        return completion(None)

    assert ask(handler, model="m") == ""


def test_cancelling_closes_the_connection():
    async def run() -> None:
        asked, closed = asyncio.Event(), asyncio.Event()

        async def waiting(request: web.Request) -> web.Response:
            asked.set()
            try:
                return await silent(request)
            except asyncio.CancelledError:
                closed.set()
                raise

        async with serving(waiting) as url:
            task = asyncio.create_task(ChatServer(url, "m").answer(REQUEST))
            await asyncio.wait_for(asked.wait(), 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(closed.wait(), 60)

    asyncio.run(run())


@pytest.mark.parametrize("url", ["", "localhost:11434/v1", "ftp://127.0.0.1/v1", "http:///v1", "file:///etc/passwd"])
def test_a_url_that_is_none_is_told(url: str):
    with pytest.raises(ValueError, match="must look like"):
        ChatServer(url)


@pytest.mark.parametrize("url", ["http://user:hidden@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?token=hidden"])
def test_a_url_with_a_secret_is_refused_without_telling_it(url: str):
    with pytest.raises(ValueError, match="a place of its own") as caught:
        ChatServer(url)
    assert "hidden" not in str(caught.value)


def test_the_key_is_in_no_text():
    server = ChatServer("http://127.0.0.1:9/v1", key="hidden")
    with pytest.raises(ExpansionFailed) as caught:
        asyncio.run(server.answer(REQUEST))
    assert "hidden" not in str(caught.value) + repr(server)
