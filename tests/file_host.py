"""A server of files on loopback for the downloader's tests: it counts what it sends, hangs up, lies and stalls as it is told."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from safetensors.torch import save

from engine.fetch.download import Downloader
from engine.fetch.rules import DownloadFailed, DownloadRefused, DownloadRules
from engine.fetch.sources import RepoFile, WebFile
from web_server import served

LORA = save({"lora_A": torch.arange(150_000, dtype=torch.float32), "lora_B": torch.ones(3)}, {"made": "here"})
OTHER = save({"lora_A": torch.zeros(200_000)})
SHA = hashlib.sha256(LORA).hexdigest()
SECRET = "hf_verysecret"


async def until(holds: Callable[[], bool]) -> None:
    """Waits for what nobody announces."""
    async def seen() -> None:
        while not holds():
            await asyncio.sleep(0.01)
    await asyncio.wait_for(seen(), 60)


async def arrived(folder: Path, size: int) -> None:
    await until(lambda: sum(path.stat().st_size for path in folder.glob("*.part")) >= size)


class Host:
    """A server of files that counts what it sends. `handle` may answer first; None leaves the file to the server.

    With `cut_after` it hangs up after so many bytes, once they are in `folder`: bytes that nobody has read yet go with the connection.
    """

    def __init__(self, content: bytes = LORA, etag: str = '"one"', headers: dict[str, str] | None = None) -> None:
        self.content, self.etag, self.headers = content, etag, headers or {}
        self.handle: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
        self.requests: list[web.Request] = []
        self.sent = 0
        self.cut_after: int | None = None
        self.folder = Path()
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.handle and (answer := await self.handle(request)) is not None:
            return answer
        begin, headers = 0, {**self.headers, **({"ETag": self.etag} if self.etag else {})}
        if (asked := request.headers.get("Range")) and request.headers.get("If-Range") == self.etag:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {begin}-{len(self.content) - 1}/{len(self.content)}"
        response = web.StreamResponse(status=206 if begin else 200, headers={**headers, "Content-Length": str(len(self.content) - begin)})
        await response.prepare(request)
        body = self.content[begin:] if self.cut_after is None else self.content[begin:begin + self.cut_after]
        self.sent += len(body)
        await response.write(body)
        if self.cut_after is not None:
            await arrived(self.folder, begin + len(body))
            assert request.transport is not None
            request.transport.close()
        return response

    def file(self, path: str = "file.safetensors") -> WebFile:
        return WebFile(f"http://127.0.0.1:{self.port}/{path}")


def run(host: Host, use: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def answered() -> Any:
        app = web.Application()
        app.router.add_get("/{path:.*}", host.answer)
        async with served(app) as host.port:
            return await use()
    return asyncio.run(answered())


def rules(host: Host, **options: Any) -> DownloadRules:
    return DownloadRules(**{"enabled": True, "allowed_hosts": (f"127.0.0.1:{host.port}",), "networks": ("127.0.0.1/32",), "plain_http": True,
                            "hub": f"http://127.0.0.1:{host.port}", **options})


def fetch(host: Host, folder: Path, source: RepoFile | WebFile | str = "file.safetensors", lines: list[str] | None = None, **options: Any) -> Path:
    async def use() -> Path:
        host.folder = folder
        wanted = host.file(source) if isinstance(source, str) else source
        return await Downloader(folder, rules(host, **options)).fetch(wanted, ([] if lines is None else lines).append)
    return run(host, use)


def same_port(host: Host, folder: Path, *steps: Callable[[], None], **options: Any) -> list[Path | Exception]:
    """A fetch of the same address after each step; what came of each."""
    async def use() -> list[Path | Exception]:
        host.folder = folder
        results: list[Path | Exception] = []
        for step in steps:
            step()
            try:
                results.append(await Downloader(folder, rules(host, **options)).fetch(host.file(), lambda text: None))
            except (DownloadRefused, DownloadFailed) as error:
                results.append(error)
        return results
    return run(host, use)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir() if path.suffix not in (".lock",))


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


async def streamed(request: web.Request, content: bytes, **headers: str) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(content)
    return response


def refused(host: Host, folder: Path, pattern: str, kind: type[Exception] = DownloadRefused, **options: Any) -> None:
    with pytest.raises(kind, match=pattern):
        fetch(host, folder, **options)
    assert leftovers(folder) == []
