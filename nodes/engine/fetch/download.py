"""LoRA downloads: only where the owner allows them, resumable, and only of safetensors files."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.abc import AbstractResolver

from .addresses import AddressRefused, check_url
from .cache import Entry, locked
from .partial_file import PartialFile, Progress, in_thread, megabytes
from .redirects import Answer, checked_session, followed
from .rules import DownloadFailed, DownloadRefused, DownloadRules
from .sources import RepoFile, WebFile, chosen

Log = Callable[[str], None]
MAX_LIST_BYTES = 8 * 2**20  # the hub's description of a repository with 50,000 files
SPARE_BYTES = 2**29  # what a download leaves free on the disk
CHUNK_BYTES = 2**20
LATER = (408, 425, 429)  # and 5xx: the server is busy, the request is right


class Downloader:
    """Fetches LoRA files into `folder` under `rules`; what has been fetched is served from there without asking anyone again.

    One per event loop; others, also in other processes, may use the same folder.
    """

    def __init__(self, folder: Path, rules: DownloadRules, resolver: AbstractResolver | None = None) -> None:
        self.folder, self.rules = folder, rules
        self._resolver = resolver
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def check(self, source: RepoFile | WebFile) -> None:
        """DownloadRefused where the rules alone rule a source out; no request is made."""
        if not self.rules.enabled:
            raise DownloadRefused(f"LoRA downloads are switched off on this server, so {source} is not fetched. "
                                  "Name a file from its loras folder, or ask its owner to switch downloads on.")
        try:
            check_url(source.address(self.rules.hub), self.rules.addresses)
        except AddressRefused as error:
            raise DownloadRefused(str(error)) from None

    async def fetch(self, source: RepoFile | WebFile, log: Log) -> Path:
        """The source's file in the cache folder, downloaded unless it is there.

        DownloadRefused for what the request must change, DownloadFailed for what may work later; both without secrets. Cancelling keeps what
        has come, and the next call goes on from there.
        """
        self.check(source)
        address = source.address(self.rules.hub)
        lock = self._locks.setdefault(address, asyncio.Lock())
        async with lock, self._readable_errors(source):
            await in_thread(self.folder.mkdir, parents=True, exist_ok=True)
            entry = Entry(self.folder, address)
            async with locked(entry.lock, lambda: log(f"{source}: another process is downloading it, waiting")):
                return await in_thread(entry.file) or await self._downloaded(source, entry, log)

    @asynccontextmanager
    async def _readable_errors(self, source: RepoFile | WebFile) -> AsyncIterator[None]:
        """Everything that goes wrong as one of the two errors. The causes are cut off: aiohttp's name whole addresses, with their tokens."""
        try:
            yield
        except AddressRefused as error:
            raise DownloadRefused(str(error)) from None
        except DownloadFailed:
            raise
        except asyncio.TimeoutError:
            raise DownloadFailed(f"{source}: the server did not answer within {self.rules.connect_seconds:g} s, or sent nothing for "
                                 f"{self.rules.stall_seconds:g} s. Try again: what has come is kept.") from None
        except aiohttp.ClientSSLError as error:
            raise DownloadFailed(f"{source}: {error.host} has no certificate that this server trusts. Check the address.") from None
        except aiohttp.ClientConnectorError as error:
            raise DownloadFailed(f"{source}: {error.host} cannot be reached ({error.os_error.strerror}). Try again later.") from None
        except aiohttp.ClientError as error:
            raise DownloadFailed(f"{source}: the connection broke ({type(error).__name__}). Try again: what has come is kept.") from None
        except OSError as error:
            raise DownloadFailed(f"{source}: it cannot be kept ({error.strerror or type(error).__name__}). Check the server's disk.") from None

    async def _downloaded(self, source: RepoFile | WebFile, entry: Entry, log: Log) -> Path:
        limits = aiohttp.ClientTimeout(total=None, connect=self.rules.connect_seconds, sock_connect=self.rules.connect_seconds,
                                       sock_read=self.rules.stall_seconds)
        async with checked_session(self.rules.addresses, limits, self._resolver) as session:
            if isinstance(source, RepoFile) and not source.weight_name:
                source = RepoFile(source.repo, await self._only_file(session, source), source.revision)
            url = source.address(self.rules.hub)
            tokens = self.rules.tokens_for(url)
            have, etag = entry.resumable()
            if have:
                ranged = {"Range": f"bytes={have}-", "If-Range": etag}
                async with followed(session, url, self.rules.addresses, ranged, tokens) as answer:
                    if _goes_on(answer, have, etag):
                        return await self._received(answer, have, source, entry, log)
                entry.forget()
            async with followed(session, url, self.rules.addresses, {}, tokens) as answer:
                if answer.response.status == 206:
                    raise DownloadFailed(f"{source}: {answer.response.url.raw_host} sent a part of the file instead of all of it.")
                return await self._received(answer, 0, source, entry, log)

    async def _only_file(self, session: aiohttp.ClientSession, source: RepoFile) -> str:
        """The name of a repository's only .safetensors file."""
        async with followed(session, source.address(self.rules.hub), self.rules.addresses, {}, self.rules.tokens_for(self.rules.hub)) as answer:
            _check_status(answer, source)
            body = bytearray()
            async for chunk in answer.response.content.iter_chunked(CHUNK_BYTES):
                body += chunk
                if len(body) > MAX_LIST_BYTES:
                    raise DownloadRefused(f"{source} lists more than {megabytes(MAX_LIST_BYTES)} of files. Name one as weight_name.")
        try:
            names = [entry["rfilename"] for entry in json.loads(body)["siblings"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DownloadFailed(f"{source}: the hub's list of its files cannot be read. Name one as weight_name.") from None
        return chosen((name for name in names if isinstance(name, str)), source.repo)

    async def _received(self, answer: Answer, have: int, source: RepoFile | WebFile, entry: Entry, log: Log) -> Path:
        """All of the file, or what follows the first `have` bytes, from a response; a part that proves to be wrong is removed at once."""
        _check_status(answer, source)
        if answer.response.status == 206:
            log(f"{source}: going on at {megabytes(have)}")
        else:
            have = 0
            entry.begin(_strong_etag(answer))
        length = answer.response.content_length
        promised = None if length is None else have + length
        try:
            sha256 = await self._streamed(answer, entry, promised, Progress(log, str(source), promised))
        except DownloadRefused as error:
            entry.forget()
            raise DownloadRefused(f"{source}: {error}") from None
        linked = _linked_sha256(answer)
        if linked not in ("", sha256):
            entry.forget()
            raise DownloadFailed(f"{source} arrived damaged: its sha256 is {sha256}, the server names {linked}. Try again.")
        path = await in_thread(entry.finish, _wanted_name(answer, source), sha256, str(source))
        log(f"{source}: {megabytes(path.stat().st_size)}, sha256 {sha256}")
        return path

    async def _streamed(self, answer: Answer, entry: Entry, promised: int | None, progress: Progress) -> str:
        """The sha256 of the part and all that follows it."""
        partial = PartialFile(entry.part, self.rules.max_bytes, promised)
        try:
            await in_thread(partial.recall)
            self._check_space((promised or 0) - partial.size)
            async for chunk in answer.response.content.iter_chunked(CHUNK_BYTES):
                await in_thread(partial.add, chunk)
                progress.at(partial.size)
            return partial.finished()
        finally:
            partial.close()

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < needed + SPARE_BYTES:
            raise DownloadFailed(f"the server's disk has {megabytes(free)} free; this download needs {megabytes(needed)} and leaves "
                                 f"{megabytes(SPARE_BYTES)}. Its owner must free space.")


def _goes_on(answer: Answer, have: int, etag: str) -> bool:
    """Whether an answer to a request for the rest can be used: not where it is another part, or a part of another file."""
    if answer.response.status != 206:
        return answer.response.status != 416
    begins = re.match(r"bytes (\d+)-", answer.response.headers.get("Content-Range", ""))
    return begins is not None and int(begins[1]) == have and _strong_etag(answer) == etag


def _strong_etag(answer: Answer) -> str:
    """The final response's own ETag; empty for a weak one, which does not promise the same bytes (RFC 9110, 8.8.3)."""
    etag = answer.response.headers.get("ETag", "")
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]+"', etag) else ""


def _check_status(answer: Answer, source: RepoFile | WebFile) -> None:
    response = answer.response
    if response.status in LATER or response.status >= 500:
        raise DownloadFailed(f"{source}: {response.url.raw_host} answered {response.status}. Try again later.")
    if response.status in (401, 403):
        raise DownloadRefused(f"{source}: {response.url.raw_host} answered {response.status}. It does not exist, or this server's owner must set "
                              "a token for that host and accept the model's terms there.")
    if response.status not in (200, 206):
        raise DownloadRefused(f"{source}: {response.url.raw_host} answered {response.status}. Check the path and weight_name.")
    if response.content_type == "text/html":
        raise DownloadRefused(f"{source} is a web page, not a file: use the address of its download button. "
                              "If that leads to a login, this server's owner must set a token for the host.")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadFailed(f"{source}: {response.url.raw_host} sent it compressed although that was not asked for.")


def _linked_sha256(answer: Answer) -> str:
    """What Hugging Face sends with its redirect (https://huggingface.co/docs/huggingface_hub, get_hf_file_metadata); empty where nobody does."""
    linked = (answer.header("X-Linked-Etag") or "").removeprefix("W/").strip('"').lower()
    return linked if re.fullmatch(r"[0-9a-f]{64}", linked) else ""


def _wanted_name(answer: Answer, source: RepoFile | WebFile) -> str:
    """What the server calls the file, or else the end of the address that was asked first."""
    disposition = answer.response.content_disposition
    return (disposition and disposition.filename) or unquote(str(source).rsplit("/", 1)[-1])
