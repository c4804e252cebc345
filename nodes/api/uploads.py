"""LoRA files that clients send: fal's storage as far as `fal.storage.upload` of its JavaScript client needs it, kept beside the downloads.

A client asks for an address, sends the file there, in one piece or in parts of 10 MB from 90 MB on, and names the same address as a LoRA's path.
The address holds a secret, so who has it needs no key to send the file: the clients send none.
"""

import asyncio
import contextlib
import hashlib
import json
import re
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import StreamReader, web

from ..engine.fetch.cache import Entry
from ..engine.fetch.partial_file import PartialFile, check_space, in_thread
from ..engine.fetch.rules import DownloadFailed, DownloadRefused, UploadRules
from .errors import BadRequest, Detail, InternalError, InvalidRequest, NotFound, SwitchedOff

if TYPE_CHECKING:
    from .app import Call

INITIATE, INITIATE_PARTS = "/fal/storage/upload/initiate", "/fal/storage/upload/initiate-multipart"
FILE = "/fal/storage/files/{token}/{file_name}"
PART, COMPLETE = f"{FILE}/{{part}}", f"{FILE}/complete"
CHUNK_BYTES = 2**20
MOST_PARTS = 10_000
MOST_PENDING = 64  # begun and not complete; then the oldest are given up
STALE_SECONDS = 86_400  # what a server left behind that stopped
ARRIVING = "arriving"  # the folder of what is not complete
_ADDRESS = re.compile(r"https?://[^/]+(?:/[^?#]*)?/fal/storage/files/(?P<token>[0-9a-f]{48})/[^/?#]+")


@dataclass
class _Pending:
    """A file on its way: what it is called, and its parts in bytes."""

    token: str
    file_name: str
    parts: dict[int, int] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Uploads:
    """Files below `folder`, each known by the secret in its address. One per event loop."""

    def __init__(self, folder: Path, rules: UploadRules) -> None:
        self.folder, self.rules = folder, rules
        self._pending: dict[str, _Pending] = {}

    def begin(self, file_name: str) -> str:
        """The path, below the server's address, that the file is sent to and known by. SwitchedOff where none is taken."""
        if not self.rules.enabled:
            raise SwitchedOff("Uploads are", "uploads.enabled")
        pending = _Pending(secrets.token_hex(24), file_name)
        self._pending[pending.token] = pending
        for token in list(self._pending)[:-MOST_PENDING]:
            self._drop(self._pending[token])
        shown = re.sub(r"[^A-Za-z0-9._-]", "_", re.split(r"[/\\]", file_name)[-1])[-80:].lstrip(".") or "lora.safetensors"
        return FILE.format(token=pending.token, file_name=shown)

    async def receive(self, token: str, content: StreamReader, promised: int | None) -> None:
        """The whole file. InvalidRequest as soon as it is too large or no safetensors file."""
        async with self._taken(token) as pending:
            file = self._arriving(pending)
            partial = PartialFile(file, self.rules.max_bytes, promised, setting="uploads.max_bytes")
            try:
                check_space(file.parent, promised or 0)
                async for chunk in content.iter_chunked(CHUNK_BYTES):
                    await in_thread(partial.add, chunk)
                sha256 = partial.finished()
            finally:
                partial.close()
            await in_thread(self._keep, pending, file, sha256)

    async def receive_part(self, token: str, part: int, content: StreamReader) -> str:
        """One of the parts that are put together at the end; its etag."""
        async with self._taken(token) as pending:
            pending.parts.pop(part, None)
            room = self.rules.max_bytes - sum(pending.parts.values())
            file, digest, size = self._arriving(pending, part), hashlib.sha256(), 0
            with file.open("wb") as written:
                async for chunk in content.iter_chunked(CHUNK_BYTES):
                    size += len(chunk)
                    if size > room or part > MOST_PARTS:
                        raise DownloadRefused(f"the file has more than {self.rules.max_bytes} bytes or {MOST_PARTS} parts; this server takes "
                                              "no more. Its owner can raise uploads.max_bytes.")
                    digest.update(chunk)
                    await in_thread(written.write, chunk)
            pending.parts[part] = size
            return f'"{digest.hexdigest()}"'

    async def complete(self, token: str) -> None:
        """Put the parts together, in the order of their numbers."""
        async with self._taken(token) as pending:
            total = sum(pending.parts.values())
            file = self._arriving(pending)
            check_space(file.parent, total)
            await in_thread(self._keep, pending, file, await in_thread(self._joined, pending, file, total))

    def _joined(self, pending: _Pending, file: Path, total: int) -> str:
        whole = PartialFile(file, self.rules.max_bytes, total, setting="uploads.max_bytes")
        try:
            for part in sorted(pending.parts):
                with self._arriving(pending, part).open("rb") as source:
                    while chunk := source.read(CHUNK_BYTES):
                        whole.add(chunk)
            return whole.finished()
        finally:
            whole.close()

    def file(self, address: str) -> Path | None:
        """The file that was sent to this address; None where it is none of ours. DownloadRefused where no complete file came or it is gone."""
        if (match := _ADDRESS.fullmatch(address)) is None:
            return None
        file = Entry(self.folder, match["token"]).file()
        if file is None:
            raise DownloadRefused("no complete file was sent to this upload address, or it was deleted since. Upload it again.")
        return file

    @contextlib.asynccontextmanager
    async def _taken(self, token: str) -> AsyncIterator[_Pending]:
        """The upload, for one at a time; what goes wrong as an answer for the client, and whatever cannot be used any more deleted."""
        pending = self._pending.get(token)
        if pending is None:
            raise NotFound("This upload")
        async with pending.lock:
            try:
                yield pending
            except DownloadRefused as error:
                self._drop(pending)
                raise InvalidRequest([Detail(("body",), str(error), "value_error")]) from None
            except (DownloadFailed, OSError) as error:
                raise InternalError(f"The file cannot be kept: {error}") from error

    def _arriving(self, pending: _Pending, part: int | None = None) -> Path:
        """An empty file for what comes, or the one of a part."""
        folder = self.folder / ARRIVING
        folder.mkdir(parents=True, exist_ok=True)
        if part is not None:
            return folder / f"{pending.token}.{part}"
        for file in folder.iterdir():
            with contextlib.suppress(OSError):  # another upload ends just now
                if time.time() - file.stat().st_mtime > STALE_SECONDS:
                    file.unlink()
        whole = folder / pending.token
        whole.write_bytes(b"")
        return whole

    def _keep(self, pending: _Pending, file: Path, sha256: str) -> None:
        entry = Entry(self.folder, pending.token)
        file.replace(entry.part)
        entry.finish(pending.file_name, sha256, "an upload")
        self._drop(pending)

    def _drop(self, pending: _Pending) -> None:
        self._pending.pop(pending.token, None)
        for file in (self.folder / ARRIVING).glob(f"{pending.token}*"):
            file.unlink(missing_ok=True)


async def initiate(call: "Call") -> web.Response:
    """Where to send a file, and what it will be called."""
    try:
        asked = json.loads(await call.body())
        name = asked.get("file_name") or "lora.safetensors"
    except (ValueError, AttributeError, RecursionError):
        raise BadRequest('The body should be JSON such as {"file_name": "style.safetensors"}.') from None
    url = call.base_url + call.service.uploads.begin(str(name)[:500])
    return web.json_response({"upload_url": url, "file_url": url})


async def receive(call: "Call") -> web.Response:
    await call.service.uploads.receive(call.names["token"], call.request.content, call.request.content_length)
    return web.json_response({})


async def receive_part(call: "Call") -> web.Response:
    if not re.fullmatch(r"[1-9]\d{0,4}", part := call.names["part"]):
        raise BadRequest("The part should be a number from 1.")
    etag = await call.service.uploads.receive_part(call.names["token"], int(part), call.request.content)
    return web.json_response({"partNumber": int(part), "etag": etag}, headers={"ETag": etag})


async def complete(call: "Call") -> web.Response:
    await call.service.uploads.complete(call.names["token"])
    return web.json_response({})


HANDLERS = {INITIATE: initiate, INITIATE_PARTS: initiate}
WITH_SECRET = {COMPLETE: complete, PART: receive_part, FILE: receive}
METHODS = {INITIATE: "POST", INITIATE_PARTS: "POST", COMPLETE: "POST", PART: "PUT", FILE: "PUT"}
