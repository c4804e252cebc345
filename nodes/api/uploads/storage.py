"""LoRA files that clients send: fal's storage as far as `fal.storage.upload` of its JavaScript client needs it, kept beside the downloads.

A client asks for an address, sends the file there, in one piece or in parts of 10 MB from 90 MB on, and names the same address as a LoRA's path.
The address holds a secret, so who has it needs no key to send the file: the clients send none.
"""

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import StreamReader

from ...engine.fetch.cache import Entry
from ...engine.fetch.partial_file import PartialFile, check_space, in_thread
from ...engine.fetch.rules import DownloadFailed, DownloadRefused, UploadRules
from ..errors import Detail, InternalError, InvalidRequest, NotFound, SwitchedOff, UploadsFull, UploadStalled

INITIATE, INITIATE_PARTS = "/fal/storage/upload/initiate", "/fal/storage/upload/initiate-multipart"
FILE = "/fal/storage/files/{token}/{file_name}"
PART, COMPLETE = f"{FILE}/{{part}}", f"{FILE}/complete"
CHUNK_BYTES = 2**20
MOST_PARTS = 10_000
MOST_PENDING = 64  # of one owner, begun and not complete; then the oldest that nothing comes for are given up
STALL_SECONDS = 60.0  # without a byte, and the connection is dead
IDLE_SECONDS = 600.0  # between two parts, and the client is gone
STALE_SECONDS = 86_400  # what a server left behind that stopped
ARRIVING = "arriving"  # the folder of what is not complete
_ADDRESS = re.compile(r"https?://[^/]+(?:/[^?#]*)?/fal/storage/files/(?P<token>[0-9a-f]{48})/[^/?#]+")
_SECRET = re.compile(r"(?<=/storage/files/)[^/]+")


@dataclass
class _Pending:
    """A file on its way: what it is called, whose it is, and its parts in bytes, also those that arrive just now."""

    token: str
    file_name: str
    owner: str
    parts: dict[int, int] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    used: float = field(default_factory=time.monotonic)
    size: int = 0

    def grow(self, part: int, more: int) -> None:
        self.parts[part] = self.parts.get(part, 0) + more
        self.size += more

    def forget(self, part: int) -> None:
        self.size -= self.parts.pop(part, 0)

    def is_idle(self) -> bool:
        return bool(self.parts) and not self.lock.locked() and time.monotonic() - self.used > IDLE_SECONDS


class Uploads:
    """Files below `folder`, each known by the secret in its address. One per event loop."""

    def __init__(self, folder: Path, rules: UploadRules) -> None:
        self.folder, self.rules = folder, rules
        self._pending: dict[str, _Pending] = {}

    def begin(self, file_name: str, owner: str = "") -> str:
        """The path, below the server's address, that the file is sent to and known by. SwitchedOff where none is taken, UploadsFull where too many
        of this owner arrive just now."""
        if not self.rules.enabled:
            raise SwitchedOff("Uploads are", "uploads.enabled")
        self._make_place(owner)
        pending = _Pending(secrets.token_hex(24), file_name, owner)
        self._pending[pending.token] = pending
        shown = re.sub(r"[^A-Za-z0-9._-]", "_", re.split(r"[/\\]", file_name)[-1])[-80:].lstrip(".") or "lora.safetensors"
        return FILE.format(token=pending.token, file_name=shown)

    def _make_place(self, owner: str) -> None:
        self._drop_idle()
        own = [pending for pending in self._pending.values() if pending.owner == owner]
        given_up = [pending for pending in own if not pending.lock.locked()][:max(0, len(own) + 1 - MOST_PENDING)]
        for pending in given_up:
            self._drop(pending)
        if len(own) - len(given_up) >= MOST_PENDING:
            raise UploadsFull(MOST_PENDING)

    async def receive(self, token: str, content: StreamReader, promised: int | None) -> None:
        """The whole file. InvalidRequest as soon as it is too large or no safetensors file; of one that breaks off nothing stays."""
        async with self._taken(token) as pending:
            if pending is None:
                return await _pass(content)
            file = self._arriving(pending)
            with _removed_unless_whole(file):
                await in_thread(self._keep, pending, file, await self._written(file, content, promised))

    async def _written(self, file: Path, content: StreamReader, promised: int | None) -> str:
        """The sha256 of what came."""
        check_space(file.parent, promised or 0)
        partial = PartialFile(file, self.rules.max_bytes, promised, setting="uploads.max_bytes")
        try:
            async for chunk in _chunks(content):
                await in_thread(_add, file.parent, partial.add, chunk)
            return partial.finished()
        finally:
            partial.close()

    async def receive_part(self, token: str, part: int, content: StreamReader) -> str:
        """One of the parts that are put together at the end; its etag."""
        digest = hashlib.sha256()
        async with self._taken(token) as pending:
            if pending is None:
                await _pass(content, digest.update)
            else:
                await self._add_part(pending, part, content, digest.update)
        return f'"{digest.hexdigest()}"'

    async def _add_part(self, pending: _Pending, part: int, content: StreamReader, seen: Callable[[bytes], None]) -> None:
        if part > MOST_PARTS:
            raise DownloadRefused(f"this server takes at most {MOST_PARTS} parts. Send larger ones.")
        self._drop_idle()
        pending.forget(part)
        file = self._arriving(pending, part)
        with _removed_unless_whole(file, lambda: pending.forget(part)), file.open("wb") as written:
            pending.grow(part, 0)
            async for chunk in _chunks(content):
                pending.grow(part, len(chunk))
                self._check_room(pending.owner)
                seen(chunk)
                await in_thread(_add, file.parent, written.write, chunk)

    def _check_room(self, owner: str) -> None:
        """DownloadRefused where an owner's parts, of all files that are not complete, are more than one file may have."""
        if sum(pending.size for pending in self._pending.values() if pending.owner == owner) > self.rules.max_bytes:
            raise DownloadRefused(f"the file, with others that came in parts and are not complete, has more than {self.rules.max_bytes} bytes; this "
                                  "server takes no more. Complete the others first, or ask its owner to raise uploads.max_bytes.")

    async def complete(self, token: str) -> None:
        """Put the parts together, in the order of their numbers."""
        async with self._taken(token) as pending:
            if pending is None:
                return
            file = self._arriving(pending)
            with _removed_unless_whole(file):
                check_space(file.parent, pending.size)
                await in_thread(self._keep, pending, file, await in_thread(self._joined, pending, file, pending.size))

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

    async def file(self, address: str) -> Path | None:
        """The file that was sent to this address; None where it is none of ours. DownloadRefused where no complete file came or it is gone."""
        if (match := _ADDRESS.fullmatch(address)) is None:
            return None
        file = await in_thread(Entry(self.folder, match["token"]).file)  # which reads all of it where its time changed
        if file is None:
            raise DownloadRefused("no complete file was sent to this upload address, or it was deleted since. Upload it again.")
        return file

    @contextlib.asynccontextmanager
    async def _taken(self, token: str) -> AsyncIterator[_Pending | None]:
        """The upload, for one at a time, None where it is complete; what goes wrong as an answer for the client, and whatever cannot be used any
        more deleted."""
        waited_for = self._pending.get(token)
        async with waited_for.lock if waited_for else contextlib.nullcontext():
            pending = self._pending.get(token)  # who waited may find it complete, or refused
            if pending is None and await in_thread(Entry(self.folder, token).file) is None:
                raise NotFound("This upload")
            try:
                yield pending
            except DownloadRefused as error:
                if pending:
                    self._drop(pending)
                raise InvalidRequest([Detail(("body",), str(error), "value_error")]) from None
            except DownloadFailed as error:
                raise InternalError(f"The file cannot be kept: {error}") from error
            except OSError as error:  # whose text names folders of the server
                raise InternalError(f"The file cannot be kept: {error.strerror or type(error).__name__}.") from error
            finally:
                if pending:
                    pending.used = time.monotonic()

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
        with _removed_unless_whole(entry.part):
            file.replace(entry.part)
            entry.finish(pending.file_name, sha256, "an upload")
        self._drop(pending)

    def _drop_idle(self) -> None:
        """Give up what came in parts and was never completed: nobody else may have the room that it takes."""
        for pending in [each for each in self._pending.values() if each.is_idle()]:
            self._drop(pending)

    def _drop(self, pending: _Pending) -> None:
        self._pending.pop(pending.token, None)
        for file in (self.folder / ARRIVING).glob(f"{pending.token}*"):
            file.unlink(missing_ok=True)


def _add(folder: Path, write: Callable[[bytes], object], chunk: bytes) -> None:
    """Each chunk where the disk has room: others write too, and not every client says how much it sends."""
    check_space(folder, len(chunk))
    write(chunk)


@contextlib.contextmanager
def _removed_unless_whole(file: Path, undo: Callable[[], None] = lambda: None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        undo()
        raise


async def _chunks(content: StreamReader) -> AsyncIterator[bytes]:
    """What comes, UploadStalled where nothing does: the other end is gone without a word, and who sends the file again waits for its turn."""
    chunks = aiter(content.iter_chunked(CHUNK_BYTES))
    while True:
        try:
            chunk = await asyncio.wait_for(anext(chunks), STALL_SECONDS)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:  # another class than TimeoutError in Python 3.10
            raise UploadStalled(STALL_SECONDS) from None
        yield chunk


async def _pass(content: StreamReader, seen: Callable[[bytes], None] = lambda chunk: None) -> None:
    """Read what nobody needs, so that who sends it gets its answer."""
    async for chunk in _chunks(content):
        seen(chunk)


def without_secret(path: str) -> str:
    """The path of a request as a log may show it."""
    return _SECRET.sub("...", path)
