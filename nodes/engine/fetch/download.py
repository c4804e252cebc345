"""LoRA downloads: only where the owner allows them, resumable, and only of safetensors files."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.abc import AbstractResolver

from .addresses import AddressRefused, check_url
from .cache import Entry, locked
from .partial_file import in_thread
from .redirects import checked_session
from .rules import DownloadFailed, DownloadRefused, DownloadRules
from .sources import RepoFile, WebFile
from .transfer import Log, Transfer, only_file


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
                                  "Name a file from its loras folder, or ask its owner to set downloads.enabled.")
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
                source = RepoFile(source.repo, await only_file(session, source, self.rules), source.revision)
            return await Transfer(session, source, entry, self.rules, log).file()
