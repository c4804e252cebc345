"""The addresses of the storage: what a client asks to send a file."""

import json
import re

from aiohttp import web

from ..calls import Call
from ..errors import BadRequest
from .storage import COMPLETE, FILE, INITIATE, INITIATE_PARTS, PART


async def initiate(call: Call) -> web.Response:
    """Where to send a file, and what it will be called."""
    try:
        asked = json.loads(await call.body())
        name = asked.get("file_name") or "lora.safetensors"
    except (ValueError, AttributeError, RecursionError):
        raise BadRequest('The body should be JSON such as {"file_name": "style.safetensors"}.') from None
    url = call.base_url + call.service.uploads.begin(str(name)[:500], call.owner)
    return web.json_response({"upload_url": url, "file_url": url})


async def receive(call: Call) -> web.Response:
    await call.service.uploads.receive(call.names["token"], call.request.content, call.request.content_length)
    return web.json_response({})


async def receive_part(call: Call) -> web.Response:
    if not re.fullmatch(r"[1-9]\d{0,4}", part := call.names["part"]):
        raise BadRequest("The part should be a number from 1.")
    etag = await call.service.uploads.receive_part(call.names["token"], int(part), call.request.content)
    return web.json_response({"partNumber": int(part), "etag": etag}, headers={"ETag": etag})


async def complete(call: Call) -> web.Response:
    await call.service.uploads.complete(call.names["token"])
    return web.json_response({})


HANDLERS = {INITIATE: initiate, INITIATE_PARTS: initiate}
WITH_SECRET = {COMPLETE: complete, PART: receive_part, FILE: receive}
METHODS = {INITIATE: "POST", INITIATE_PARTS: "POST", COMPLETE: "POST", PART: "PUT", FILE: "PUT"}
