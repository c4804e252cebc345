"""One transfer from a server into the cache: whole, or going on where an earlier one broke off."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import aiohttp

from .cache import Entry
from .partial_file import PartialFile, Progress, check_space, in_thread, megabytes
from .redirects import Answer, followed
from .rules import DownloadFailed, DownloadRefused, DownloadRules
from .sources import RepoFile, WebFile, chosen

Log = Callable[[str], None]
MAX_LIST_BYTES = 8 * 2**20  # the hub's description of a repository with 50,000 files
CHUNK_BYTES = 2**20
LATER = (408, 425, 429)  # and 5xx: the server is busy, the request is right


async def only_file(session: aiohttp.ClientSession, source: RepoFile, rules: DownloadRules) -> str:
    """The name of a repository's only .safetensors file."""
    async with followed(session, source.address(rules.hub), rules.addresses, {}, rules.tokens_for(rules.hub)) as answer:
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


@dataclass(frozen=True)
class Transfer:
    """A `source` on its way into its `entry` of the cache."""

    session: aiohttp.ClientSession
    source: RepoFile | WebFile
    entry: Entry
    rules: DownloadRules
    log: Log

    async def file(self) -> Path:
        url = self.source.address(self.rules.hub)
        tokens = self.rules.tokens_for(url)
        have, etag = self.entry.resumable()
        if have:
            ranged = {"Range": f"bytes={have}-", "If-Range": etag}
            async with followed(self.session, url, self.rules.addresses, ranged, tokens) as answer:
                if _goes_on(answer, have, etag):
                    return await self._received(answer, have)
            self.entry.forget()
        async with followed(self.session, url, self.rules.addresses, {}, tokens) as answer:
            if answer.response.status == 206:
                raise DownloadFailed(f"{self.source}: {answer.response.url.raw_host} sent a part of the file instead of all of it.")
            return await self._received(answer, 0)

    async def _received(self, answer: Answer, have: int) -> Path:
        """All of the file, or what follows the first `have` bytes, from a response; a part that proves to be wrong is removed at once."""
        _check_status(answer, self.source)
        if answer.response.status == 206:
            self.log(f"{self.source}: going on at {megabytes(have)}")
        else:
            have = 0
            self.entry.begin(_strong_etag(answer))
        length = answer.response.content_length
        sha256 = await self._streamed(answer, None if length is None else have + length)
        path = await in_thread(self.entry.finish, _wanted_name(answer, self.source), sha256, str(self.source))
        self.log(f"{self.source}: {megabytes(path.stat().st_size)}, sha256 {sha256}")
        return path

    async def _streamed(self, answer: Answer, promised: int | None) -> str:
        """The sha256 of the part and all that follows it; what is refused or damaged is forgotten."""
        try:
            sha256 = await self._written(answer, promised, Progress(self.log, str(self.source), promised))
        except DownloadRefused as error:
            self.entry.forget()
            raise DownloadRefused(f"{self.source}: {error}") from None
        linked = _linked_sha256(answer)
        if linked not in ("", sha256):
            self.entry.forget()
            raise DownloadFailed(f"{self.source} arrived damaged: its sha256 is {sha256}, the server names {linked}. Try again.")
        return sha256

    async def _written(self, answer: Answer, promised: int | None, progress: Progress) -> str:
        partial = PartialFile(self.entry.part, self.rules.max_bytes, promised)
        try:
            await in_thread(partial.recall)
            check_space(self.entry.folder, (promised or 0) - partial.size)
            async for chunk in answer.response.content.iter_chunked(CHUNK_BYTES):
                await in_thread(partial.add, chunk)
                progress.at(partial.size)
            return partial.finished()
        finally:
            partial.close()


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
                              "a token for that host (downloads.tokens) and accept the model's terms there.")
    if response.status not in (200, 206):
        raise DownloadRefused(f"{source}: {response.url.raw_host} answered {response.status}. Check the path and weight_name.")
    if response.content_type == "text/html":
        raise DownloadRefused(f"{source} is a web page, not a file: use the address of its download button. "
                              "If that leads to a login, this server's owner must set a token for the host (downloads.tokens).")
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
