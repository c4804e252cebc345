"""What asks a ComfyUI for a video: a client of its API like any other."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from nodes.api.app import HEALTH
from nodes.api.contract import CANCEL, REQUEST, STREAM, SUBMIT
from nodes.api.jobs.job import IN_QUEUE, Answer
from nodes.api.uploads.storage import INITIATE

from ..attempts import Attempt, Begun, Ended, Event, LogLine, Picture, Piece

PIECE_BYTES = 2**20
QUIET_SECONDS = 60.0  # its stream sends a sign of life every five
LONGEST_EVENT = 2**24  # bytes; all log lines of a job


class Broken(Exception):
    """The ComfyUI does not answer as one that can make videos: it was restarted, or something stands between."""


class Client:
    """Speaks with the ComfyUI at `url`, which answers to `key`."""

    def __init__(self, url: str, key: str) -> None:
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=QUIET_SECONDS)
        self._session = aiohttp.ClientSession(url, headers={"Authorization": f"Key {key}"}, timeout=timeout, read_bufsize=LONGEST_EVENT)
        self._uploaded: dict[str, str] = {}  # addresses of the gateway, and the same files' addresses here

    async def close(self) -> None:
        await self._session.close()

    async def health(self) -> dict[str, Any]:
        return dict(await self._json("GET", HEALTH))

    async def stats(self) -> dict[str, Any]:
        return dict(await self._json("GET", "/system_stats"))

    async def loras(self) -> list[str]:
        return list(await self._json("GET", "/models/loras"))

    def has(self, address: str) -> bool:
        return address in self._uploaded

    async def upload(self, address: str, file: Path, name: str) -> None:
        """Send a file that the gateway knows by `address`."""
        place = await self._json("POST", INITIATE, json={"file_name": name})
        with file.open("rb") as content:
            await self._json("PUT", place["upload_url"], data=content)
        self._uploaded[address] = place["file_url"]

    async def submit(self, attempt: Attempt) -> str | Answer:
        """The request's id here, or why it is none."""
        loras = [{**lora, "path": self._uploaded.get(lora["path"], lora["path"])} for lora in attempt.request.get("loras", [])]
        async with self._session.post(SUBMIT, json={**attempt.request, "loras": loras}, headers=attempt.headers) as reply:
            return str((await reply.json())["request_id"]) if reply.status == 200 else await _answer(reply)

    async def cancel(self, request_id: str) -> None:
        async with self._session.put(CANCEL.format(request_id=request_id)):
            pass

    async def follow(self, request_id: str) -> AsyncIterator[Event]:
        """What happens to the request, to the end: its log, its clip so far, the pieces of its video, its answer."""
        running = False
        async with self._session.get(STREAM.format(request_id=request_id), params={"logs": "1", "preview": "1"}) as stream:
            if stream.status != 200:
                raise Broken(f"its status is answered by {stream.status}")
            async for line in stream.content:
                if not line.startswith(b"data: "):
                    continue
                state = json.loads(line.removeprefix(b"data: "))
                if state["status"] != IN_QUEUE and not running:
                    running = True
                    yield Begun()
                for entry in state.get("logs", []):
                    yield LogLine(entry["message"], entry["level"], entry["source"])
                if picture := state.get("preview"):
                    yield Picture(picture)
        async for event in self._result(request_id):
            yield event

    async def _result(self, request_id: str) -> AsyncIterator[Event]:
        async with self._session.get(REQUEST.format(request_id=request_id)) as reply:
            answer = await _answer(reply)
        if answer.status == 200:
            async with self._session.get(answer.body["video"]["url"]) as video:
                video.raise_for_status()
                async for piece in video.content.iter_chunked(PIECE_BYTES):
                    yield Piece(piece)
        yield Ended(answer)

    async def _json(self, method: str, path: str, **more: Any) -> Any:
        async with self._session.request(method, path, **more) as reply:
            reply.raise_for_status()
            return await reply.json(content_type=None)


async def _answer(reply: aiohttp.ClientResponse) -> Answer:
    """As the gateway passes it on. Broken for what is no answer to a request of the gateway's."""
    body = await reply.json()
    if reply.status in (400, 401, 404) or body.get("error_type") == "runner_disconnected":
        raise Broken(f"it answers {reply.status}: {body.get('detail')}")
    if reply.status < 400:
        return Answer(reply.status, body)
    headers = {name: value for name, value in reply.headers.items() if name.startswith("X-Fal-") and name != "X-Fal-Request-Id"}
    details = body["detail"]
    if isinstance(details, list):
        return Answer(reply.status, body, headers, "; ".join(str(each["msg"]) for each in details), str(details[0]["type"]))
    return Answer(reply.status, body, headers, str(details), str(body["error_type"]))
