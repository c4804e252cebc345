"""LoRA sources and downloads: nothing leaves the folder, nothing but whole safetensors files is kept. Against a real HTTP server on loopback."""

import asyncio
import hashlib
import json
import os
import re
import threading
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from filelock import FileLock
from safetensors.torch import load_file, save

from engine.fetch import cache, download
from engine.fetch.cache import Entry, file_name, locked
from engine.fetch.download import Downloader
from engine.fetch.partial_file import Progress, in_thread
from engine.fetch.rules import HUB, DownloadFailed, DownloadRefused, DownloadRules
from engine.fetch.safetensors_header import HeaderCheck
from engine.fetch.sources import LocalFile, RepoFile, WebFile, local_file, lora_source

NAMES = ("wan/high.safetensors", "low.safetensors", "owner/name.safetensors", "sub\\windows.safetensors", "old.pt")
LORA = save({"lora_A": torch.arange(150_000, dtype=torch.float32), "lora_B": torch.ones(3)}, {"made": "here"})
OTHER = save({"lora_A": torch.zeros(200_000)})
SHA = hashlib.sha256(LORA).hexdigest()
SECRET = "hf_verysecret"


@pytest.mark.parametrize(("path", "name"), [
    ("low.safetensors", "low.safetensors"), ("low", "low.safetensors"), ("wan/high", "wan/high.safetensors"), ("wan\\high", "wan/high.safetensors"),
    ("sub/windows", "sub\\windows.safetensors"), ("owner/name", "owner/name.safetensors"), ("old.pt", "old.pt")])
def test_a_listed_name_is_a_local_file_with_either_slash_and_without_its_ending(path: str, name: str):
    assert lora_source(path, None, NAMES) == LocalFile(name)


@pytest.mark.parametrize(("path", "weight_name", "source"), [
    ("alibaba-pai/Wan2.2-Fun_x", None, RepoFile("alibaba-pai/Wan2.2-Fun_x")), ("a/b", "x.safetensors", RepoFile("a/b", "x.safetensors")),
    ("a/b", "sub/x", RepoFile("a/b", "sub/x.safetensors")), ("https://huggingface.co/a/b", "", RepoFile("a/b")),
    ("https://huggingface.co/a/b/", "x", RepoFile("a/b", "x.safetensors")),
    ("https://hf.co/a/b/tree/dev", "x.v1", RepoFile("a/b", "x.v1.safetensors", "dev")),
    ("https://huggingface.co/a/b/blob/main/s/x.safetensors", None, WebFile("https://huggingface.co/a/b/resolve/main/s/x.safetensors")),
    ("https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/x%20y.safetensors?download=true", "ignored",
     WebFile("https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/x%20y.safetensors?download=true")),
    ("https://civitai.com/api/download/models/1?type=Model&format=SafeTensor", None,
    WebFile("https://civitai.com/api/download/models/1?type=Model&format=SafeTensor"))])
def test_repositories_and_addresses(path: str, weight_name: str | None, source: RepoFile | WebFile):
    assert lora_source(path, weight_name, NAMES) == source


def test_addresses_of_repository_files():
    assert RepoFile("a/b", "s p/x.safetensors").address(HUB) == "https://huggingface.co/a/b/resolve/main/s%20p/x.safetensors"
    assert RepoFile("a/b", "", "refs%2Fpr%2F1").address(HUB) == "https://huggingface.co/api/models/a/b/revision/refs%2Fpr%2F1"


OUTSIDE = ["../secret", "..\\secret", "wan/../../secret", "wan\\..\\..\\secret", "/etc/passwd", "\\windows\\win.ini", "C:\\secret", "C:/secret",
    "c:secret",
           "\\\\server\\share\\x", "//server/share/x", "\\\\?\\C:\\x", "low.safetensors\0.png", "%2e%2e/secret", "%2e%2e%2fsecret", "..", ".",
           "./low", "wan//high",
           "wan/./high", "... /x", "~/x.safetensors", "low.safetensors::$DATA", "", " ", "x" * 9000, "owner/na..me", "a/b/c", "missing", "a/b.pt",
           "https:evil"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_spelling_leads_out_of_the_folder(path: str, tmp_path: Path):
    (tmp_path / "loras").mkdir()
    (tmp_path / "secret").touch()
    with pytest.raises(DownloadRefused):
        lora_source(path, None, NAMES)
    with pytest.raises((DownloadRefused, OSError)):
        local_file(path, [tmp_path / "loras"])


@pytest.mark.parametrize("name", ["../x", "..\\x.safetensors", "/x", "C:x", "a/\0", "x.pt", "x.CKPT", "a//b"])
def test_weight_names_stay_in_the_repository_and_are_no_pickles(name: str):
    with pytest.raises(DownloadRefused):
        lora_source("a/b", name, NAMES)


def test_links_out_of_the_folder_are_refused_and_others_followed(tmp_path: Path):
    inside, outside = tmp_path / "loras", tmp_path / "private.safetensors"
    (inside / "wan").mkdir(parents=True)
    outside.write_bytes(b"x")
    (inside / "real.safetensors").write_bytes(b"y")
    (inside / "out.safetensors").symlink_to(outside)
    (inside / "wan" / "in.safetensors").symlink_to(inside / "real.safetensors")
    (inside / "up").symlink_to(tmp_path, target_is_directory=True)
    for name in ("out.safetensors", "up/private.safetensors"):
        with pytest.raises(DownloadRefused, match="outside"):
            local_file(name, [tmp_path / "none", inside])
    assert local_file("wan/in.safetensors", [tmp_path / "none", inside]).read_bytes() == b"y"


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
    async def served() -> Any:
        app = web.Application()
        app.router.add_get("/{path:.*}", host.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host.port = runner.addresses[0][1]
        try:
            return await use()
        finally:
            await runner.cleanup()
    return asyncio.run(served())


def rules(host: Host, **options: Any) -> DownloadRules:
    return DownloadRules(**{"enabled": True, "allowed_hosts": (f"127.0.0.1:{host.port}",), "networks": ("127.0.0.1/32",), "plain_http": True,
                            "hub": f"http://127.0.0.1:{host.port}", **options})


def fetch(host: Host, folder: Path, source: RepoFile | WebFile | str = "file.safetensors", said: list[str] | None = None, **options: Any) -> Path:
    async def use() -> Path:
        host.folder = folder
        wanted = host.file(source) if isinstance(source, str) else source
        return await Downloader(folder, rules(host, **options)).fetch(wanted, ([] if said is None else said).append)
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


def test_a_file_comes_whole_with_a_readable_name_and_is_not_fetched_again(tmp_path: Path):
    host = Host()
    said: list[str] = []
    host.headers["Content-Disposition"] = 'attachment; filename="My LoRA (high).safetensors"'

    async def use() -> list[Path]:
        downloader = Downloader(tmp_path / "new", rules(host))
        return [await downloader.fetch(host.file("api/download/models/7?type=Model"), said.append) for _ in range(2)]

    first, second = run(host, use)
    assert first == second and first.name == f"My LoRA (high)-{SHA[:16]}.safetensors"
    assert first.read_bytes() == LORA and len(host.requests) == 1
    assert torch.equal(load_file(first)["lora_B"], torch.ones(3))
    assert leftovers(tmp_path / "new") == [".json", ".safetensors"] and SHA in said[-1]


def test_downloads_are_off_by_default_and_then_nobody_is_asked(tmp_path: Path):
    host = Host()
    with pytest.raises(DownloadRefused, match="switched off"):
        fetch(host, tmp_path / "none", enabled=False)
    assert not host.requests and not (tmp_path / "none").exists() and not DownloadRules().enabled


@pytest.mark.parametrize("url", ["https://example.com/x.safetensors", "http://huggingface.co/a/b/resolve/main/x", "https://huggingface.co:8443/x",
    "file:///etc/passwd",
                                 "https://bucket.account.r2.cloudflarestorage.com/x", "https://u:p@civitai.com/x", "https://127.0.0.1/x",
                                 "https://cdn.hf.co/x"])
def test_only_the_hosts_of_the_rules_are_asked(url: str, tmp_path: Path):
    with pytest.raises(DownloadRefused):
        asyncio.run(Downloader(tmp_path, DownloadRules(enabled=True)).fetch(WebFile(url), print))


def cut(host: Host, after: int | None) -> Callable[[], None]:
    def step() -> None:
        host.cut_after = after
    return step


def test_a_download_goes_on_where_it_broke_off(tmp_path: Path):
    host = Host()
    broken, whole = same_port(host, tmp_path, cut(host, 250_000), cut(host, None))
    assert isinstance(broken, DownloadFailed) and "kept" in str(broken)
    assert isinstance(whole, Path) and whole.read_bytes() == LORA and host.sent == len(LORA)
    assert host.requests[1].headers["Range"] == "bytes=250000-" and host.requests[1].headers["If-Range"] == '"one"'


def test_a_changed_file_starts_over(tmp_path: Path):
    host = Host()

    def change() -> None:
        host.cut_after, host.content, host.etag = None, OTHER, '"two"'

    broken, whole = same_port(host, tmp_path, cut(host, 250_000), change)
    assert isinstance(broken, DownloadFailed) and isinstance(whole, Path) and whole.read_bytes() == OTHER


@pytest.mark.parametrize("lie", [{"Content-Range": "bytes 5-/99"}, {"ETag": '"two"'}, {"Content-Range": "nonsense"}, {"status": 416}])
def test_a_part_that_does_not_fit_starts_over(lie: dict[str, Any], tmp_path: Path):
    host = Host()

    async def lies(request: web.Request) -> web.Response | None:
        if "Range" not in request.headers:
            return None
        honest = {"ETag": host.etag, "Content-Range": f"bytes 250000-{len(LORA) - 1}/{len(LORA)}"}
        return web.Response(body=OTHER, status=lie.get("status", 206),
        headers={**honest, **{key: value for key, value in lie.items() if key != "status"}})

    def resume() -> None:
        host.cut_after, host.handle = None, lies

    _, whole = same_port(host, tmp_path, cut(host, 250_000), resume)
    assert isinstance(whole, Path) and whole.read_bytes() == LORA


@pytest.mark.parametrize("etag", ["", 'W/"weak"', '"two'])
def test_without_a_strong_etag_it_starts_over(etag: str, tmp_path: Path):
    host = Host(etag=etag)
    _, whole = same_port(host, tmp_path, cut(host, 250_000), cut(host, None))
    assert isinstance(whole, Path) and whole.read_bytes() == LORA and "Range" not in host.requests[1].headers


def test_cancelling_keeps_what_has_come(tmp_path: Path):
    host = Host()

    async def half(request: web.Request) -> web.StreamResponse | None:
        if "Range" in request.headers:
            return None
        response = web.StreamResponse(headers={"ETag": host.etag, "Content-Length": str(len(LORA))})
        await response.prepare(request)
        await response.write(LORA[:300_000])
        return await silent(request)

    async def use() -> Path:
        host.handle = half
        downloader = Downloader(tmp_path, rules(host))
        task = asyncio.ensure_future(downloader.fetch(host.file(), lambda text: None))
        await arrived(tmp_path, 300_000)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await downloader.fetch(host.file(), lambda text: None)

    assert run(host, use).read_bytes() == LORA
    assert host.requests[1].headers["Range"] == "bytes=300000-"


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


async def streamed(request: web.Request, content: bytes, **headers: str) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(content)
    return response


def refused(host: Host, folder: Path, told: str, kind: type[Exception] = DownloadRefused, **options: Any) -> None:
    with pytest.raises(kind, match=told):
        fetch(host, folder, **options)
    assert leftovers(folder) == []


def test_a_promise_that_is_too_large_is_refused_before_the_body(tmp_path: Path):
    host = Host()
    refused(host, tmp_path, f"{len(LORA)} bytes or more; this server takes at most 1000", max_bytes=1000)


def test_an_endless_body_stops_at_the_limit(tmp_path: Path):
    host = Host()

    async def endless(request: web.Request) -> web.StreamResponse:
        host.sent = 0
        response = web.StreamResponse()
        await response.prepare(request)
        header = b'{"x": {"data_offsets": [0, 99999999999]}}'
        await response.write(len(header).to_bytes(8, "little") + header)
        while True:
            await response.write(b"\0" * 2**16)
            host.sent += 2**16

    host.handle = endless
    refused(host, tmp_path, "this server takes at most 4294967296")
    assert host.sent < 2**25


def test_an_endless_tail_stops_where_the_header_says_the_file_ends(tmp_path: Path):
    host = Host()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = await streamed(request, LORA)
        while True:
            await response.write(b"\0" * 2**16)
            host.sent += 2**16

    host.handle = endless
    refused(host, tmp_path, f"needs {len(LORA)} bytes")
    assert host.sent < 2**25


def test_a_promise_that_does_not_fit_the_header_is_refused_before_the_rest(tmp_path: Path):
    host = Host()

    async def slow(request: web.Request) -> web.StreamResponse:
        await streamed(request, LORA[:1000], **{"Content-Length": "200000"})
        return await silent(request)

    host.handle = slow
    refused(host, tmp_path, "it has 200000")


def test_an_endless_header_stops_at_the_limit(tmp_path: Path):
    host = Host()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write((90_000_000).to_bytes(8, "little") + b'{"')
        while True:
            await response.write(b"x" * 2**16)

    host.handle = endless
    refused(host, tmp_path, "at most 1000000", max_bytes=1_000_000)


@pytest.mark.parametrize(("content", "told"), [
    (b"\x80\x02}q\x00(X\x06\x00\x00\x00weightq\x01" + b"0" * 10**6, "no safetensors file"), (b"PK\x03\x04" + b"0" * 10**6, "no safetensors file"),
    (b"<!DOCTYPE html>" + b" " * 10**6, "no safetensors file"), ((2).to_bytes(8, "little") + b"[]" + b"0" * 10**6, "no safetensors file"),
    ((2).to_bytes(8, "little") + b"{}" + b"0" * 10**6, "no tensors")])
def test_what_is_no_safetensors_file_is_refused_after_its_first_bytes(content: bytes, told: str, tmp_path: Path):
    host = Host()

    async def slow(request: web.Request) -> web.StreamResponse:
        await streamed(request, content[:40])
        return await silent(request)

    host.handle = slow
    refused(host, tmp_path, told)


def headed(header: bytes, body: int = 0) -> bytes:
    return len(header).to_bytes(8, "little") + header + b"\0" * body


@pytest.mark.parametrize("header", [
    b"{", b"[1]", b'{"x": 1}', b'{"x": {}}', b'{"x": {"data_offsets": [0]}}', b'{"x": {"data_offsets": [0, true]}}',
    b'{"x": {"data_offsets": [0, 1.0]}}',
    b'{"x": {"data_offsets": [4, 8]}}', b'{"x": {"data_offsets": [0, -1]}}', b'{"x": {"data_offsets": [0, 8]}, "y": {"data_offsets": [4, 12]}}',
    b"{}", b"{" * 200_000,
    b'{"__metadata__": {}}', b'{"x": {"data_offsets": [-8, 0]}}', b"{\xff}"])
def test_headers_that_make_no_sense_are_refused(header: bytes):
    with pytest.raises(DownloadRefused):
        HeaderCheck().add(headed(header))


@pytest.mark.parametrize("length", [0, 1, 100_000_001, 2**63])
def test_lengths_no_header_has_are_refused(length: int):
    with pytest.raises(DownloadRefused):
        HeaderCheck().add(length.to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_cancelled_thread_is_waited_for(times: int):
    begun, may_end, done = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        assert may_end.wait(60)
        done.append("written")

    async def use() -> None:
        task = asyncio.ensure_future(in_thread(slow))
        try:
            await until(begun.is_set)
            for _ in range(times):
                task.cancel()
                for _ in range(20):  # turns of the loop, more than a cancellation needs
                    await asyncio.sleep(0)
                assert not task.done()
        finally:
            may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done == ["written"]

    asyncio.run(use())


def test_a_header_is_understood_however_it_is_cut():
    check = HeaderCheck()
    for index in range(400):
        check.add(LORA[index:index + 1])
    assert check.file_bytes == len(LORA)


@pytest.mark.parametrize("content", [LORA[:-1], LORA[:200_000], LORA + b"x"])
def test_a_file_of_another_size_than_its_header_says_is_refused(content: bytes, tmp_path: Path):
    host = Host(content)
    refused(host, tmp_path / "a", "truncated")

    async def without_length(request: web.Request) -> web.StreamResponse:
        return await streamed(request, content)

    host.handle = without_length
    refused(host, tmp_path / "b", "truncated")


@pytest.mark.parametrize("content", [b"", b"123", LORA[:100]])
def test_a_file_that_ends_in_its_header_is_refused(content: bytes, tmp_path: Path):
    refused(Host(content), tmp_path, "truncated")


def test_a_content_length_that_promises_more_than_comes_is_a_fault_of_the_network(tmp_path: Path):
    host = Host(headers={"Connection": "close"})
    host.cut_after = 1000
    with pytest.raises(DownloadFailed, match="broke"):
        fetch(host, tmp_path)


def test_a_server_that_stalls_is_given_up(tmp_path: Path):
    host, begun = Host(), []

    async def stalls(request: web.Request) -> web.StreamResponse:
        await streamed(request, LORA[:1000], **{"Content-Length": str(len(LORA)), "ETag": host.etag})
        await arrived(tmp_path, 1000)
        begun.append(True)
        return await silent(request)

    host.handle = stalls
    while not begun:  # on a busy machine even the first bytes may come too late
        with pytest.raises(DownloadFailed, match="sent nothing for 0.1 s"):
            fetch(host, tmp_path, stall_seconds=0.1)
    assert leftovers(tmp_path) == [".etag", ".part"]


@pytest.mark.parametrize("first", ["hop", "last"])
def test_a_file_with_another_checksum_than_the_hub_names_is_refused(first: str, tmp_path: Path):
    host = Host(OTHER, headers={"X-Linked-Etag": f'"{SHA}"'} if first == "last" else {})

    async def redirect(request: web.Request) -> web.Response | None:
        if first == "last" or request.path == "/cdn":
            return None
        return web.Response(status=302, headers={"Location": "/cdn", "X-Linked-Etag": f'"{SHA}"'})

    host.handle = redirect
    refused(host, tmp_path, "damaged", DownloadFailed)
    host.content = LORA
    assert fetch(host, tmp_path).read_bytes() == LORA


def test_two_fetches_at_once_download_once(tmp_path: Path):
    host = Host()

    async def use() -> list[Path]:
        downloader = Downloader(tmp_path, rules(host))
        return await asyncio.gather(*(downloader.fetch(host.file(), said.append) for _ in range(4)))

    said: list[str] = []
    paths = run(host, use)
    assert len(set(paths)) == 1 and len(host.requests) == 1 and not any("another process" in line for line in said)


def test_two_processes_download_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    host = Host()
    tries: list[str] = []
    said: list[str] = []

    class Counted(FileLock):
        def acquire(self, *args: Any, **kwargs: Any) -> Any:
            tries.append(self.lock_file)
            return super().acquire(*args, **kwargs)

    monkeypatch.setattr(cache, "LOCK_POLL", 0.01)
    monkeypatch.setattr(cache, "FileLock", Counted)

    async def use() -> list[Path]:
        async with locked(Entry(tmp_path, host.file().url).lock, lambda: None):
            waiting = asyncio.ensure_future(Downloader(tmp_path, rules(host)).fetch(host.file(), said.append))
            await until(lambda: len(tries) >= 5)
            assert not host.requests and said == [f"{host.file()}: another process is downloading it, waiting"]
        return list(await asyncio.gather(waiting, Downloader(tmp_path, rules(host)).fetch(host.file(), print)))

    paths = run(host, use)
    assert len(set(paths)) == 1 and len(host.requests) == 1


def test_a_cancelled_fetch_leaves_the_others_theirs(tmp_path: Path):
    host = Host()

    async def use() -> Path | BaseException:
        downloader = Downloader(tmp_path, rules(host))
        tasks = [asyncio.ensure_future(downloader.fetch(host.file(), lambda text: None)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        return (await asyncio.gather(*tasks, return_exceptions=True))[2]

    assert run(host, use).read_bytes() == LORA


def touched(path: Path) -> None:
    os.utime(path, (1, 1))


def damaged(path: Path) -> None:
    path.write_bytes(OTHER)


@pytest.mark.parametrize(("change", "requests"), [(touched, 1), (damaged, 2), (Path.unlink, 2)])
def test_a_cached_file_that_changed_is_checked_again(change: Callable[[Path], None], requests: int, tmp_path: Path):
    host = Host()
    name = tmp_path / f"file-{SHA[:16]}.safetensors"
    first, second = same_port(host, tmp_path, lambda: None, lambda: change(name))
    assert first == second == name and name.read_bytes() == LORA and len(host.requests) == requests


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"file": "../../x", "bytes": 1, "mtime_ns": 1, "sha256": ""}', "[" * 100])
def test_a_record_that_makes_no_sense_is_replaced(record: str, tmp_path: Path):
    host = Host()

    def spoil() -> None:
        next(tmp_path.glob("*.json")).write_text(record)

    first, second = same_port(host, tmp_path, lambda: None, spoil)
    assert first == second and len(host.requests) == 2
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["sha256"] == SHA


def test_a_record_leads_to_no_file_outside(tmp_path: Path):
    host, outside = Host(), tmp_path / "outside.safetensors"
    outside.write_bytes(OTHER)

    def spoil() -> None:
        record = next((tmp_path / "cache").glob("*.json"))
        found = outside.stat()
        values = {"from": "x", "file": "../outside.safetensors", "bytes": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": ""}
        record.write_text(json.dumps(values))

    first, second = same_port(host, tmp_path / "cache", lambda: None, spoil)
    assert first == second and len(host.requests) == 2


def test_the_token_goes_to_its_host_and_into_no_text(tmp_path: Path):
    host = Host(headers={"X-Linked-Etag": SHA})
    said: list[str] = []
    seen = []

    async def look(request: web.Request) -> web.Response | None:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=302, headers={"Location": f"/cdn?sig={SECRET}"}) if request.path != "/cdn" else None

    host.handle = look
    fetch(host, tmp_path, f"x.safetensors?token={SECRET}", said, tokens={"127.0.0.1": SECRET})
    fetch(host, tmp_path, "other.safetensors", said, tokens={"huggingface.co": SECRET})
    assert seen == [f"Bearer {SECRET}"] * 2 + [None] * 2 and SECRET not in " ".join(said)
    assert SECRET not in "".join(path.read_text() for path in tmp_path.glob("*.json")) and SECRET not in repr(rules(host, tokens={"h": SECRET}))
    assert SECRET not in repr(host.file(f"x?token={SECRET}"))


def test_over_http_a_token_goes_to_the_hub_alone(tmp_path: Path):
    """Whatever a request makes this server ask for unencrypted, a token for a public host is not in it."""
    host, seen = Host(), []

    async def look(request: web.Request) -> web.Response | None:
        seen.append(request.headers.get("Authorization"))
        return None

    async def use() -> Path:
        allowed = rules(host, allowed_hosts=(f"localhost:{host.port}", "huggingface.co"), networks=("127.0.0.0/8", "::1/128"),
                        tokens={"localhost": SECRET}, hub="https://huggingface.co")
        return await Downloader(tmp_path, allowed).fetch(WebFile(host.file("x").url.replace("127.0.0.1", "localhost")), print)

    host.handle = look
    run(host, use)
    assert seen == [None]


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def status(code: int) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, text=SECRET)
    return handler


async def page(request: web.Request) -> web.StreamResponse:
    return web.Response(text=f"<html>log in {SECRET}", content_type="text/html")


async def compressed(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})


async def away(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": f"http://127.0.0.1:1/?{SECRET}"})


async def part_unasked(request: web.Request) -> web.StreamResponse:
    return web.Response(status=206, body=LORA)


@pytest.mark.parametrize(("handler", "kind", "told"), [
    (silent, DownloadFailed, "did not answer"), (hang_up, DownloadFailed, "connection broke"), (status(500), DownloadFailed, "answered 500"),
    (status(429), DownloadFailed, "answered 429"), (status(404), DownloadRefused, "answered 404"), (status(401), DownloadRefused, "must set a token"),
    (status(403), DownloadRefused, "token"), (status(204), DownloadRefused, "204"), (page, DownloadRefused, "web page"),
    (compressed, DownloadFailed, "compressed"),
    (away, DownloadRefused, "not among the hosts"), (part_unasked, DownloadFailed, "a part")])
def test_every_fault_is_one_of_two_errors_without_secrets(handler: Any, kind: type[Exception], told: str, tmp_path: Path):
    host = Host()
    host.handle = handler
    with pytest.raises(kind, match=told) as raised:
        fetch(host, tmp_path, f"x.safetensors?token={SECRET}", tokens={"127.0.0.1": SECRET}, stall_seconds=0.1 if handler is silent else 60)
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert leftovers(tmp_path) == []


def test_a_server_that_is_not_there(tmp_path: Path):
    host = Host()
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        fetch(host, tmp_path, WebFile("http://127.0.0.1:9/x"), allowed_hosts=("127.0.0.1:9", "127.0.0.1"), hub="http://127.0.0.1")


def test_a_full_disk_is_told_before_the_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "SPARE_BYTES", 2**60)
    with pytest.raises(DownloadFailed, match="must free space"):
        fetch(Host(), tmp_path)


def test_a_folder_that_cannot_be_made_is_told_without_its_path(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadFailed, match="Check the server's disk") as raised:
        fetch(Host(), tmp_path / "file" / "cache")
    assert str(tmp_path) not in str(raised.value)


def hub(*names: str) -> Host:
    host = Host(headers={"X-Linked-Etag": f'"{SHA}"'})

    async def handle(request: web.Request) -> web.Response | None:
        if request.path.startswith("/api/models/"):
            return web.json_response({"siblings": [{"rfilename": name} for name in names]})
        return None

    host.handle = handle
    return host


def test_the_only_file_of_a_repository_is_found(tmp_path: Path):
    host = hub("README.md", "weights/high noise.safetensors", "old.ckpt")
    path = fetch(host, tmp_path, RepoFile("a/b"))
    assert path.name == f"high noise-{SHA[:16]}.safetensors"
    assert [request.path for request in host.requests] == ["/api/models/a/b/revision/main", "/a/b/resolve/main/weights/high noise.safetensors"]


def test_several_files_are_listed_and_a_name_chooses(tmp_path: Path):
    host = hub(*(f"{index:02}.safetensors" for index in range(30)))
    with pytest.raises(DownloadRefused, match=r"30 .safetensors files.*00.safetensors, .*19.safetensors and 10 more") as raised:
        fetch(host, tmp_path, RepoFile("a/b"))
    assert "20.safetensors" not in str(raised.value)
    assert fetch(host, tmp_path, RepoFile("a/b", "07.safetensors")).name == f"07-{SHA[:16]}.safetensors"


@pytest.mark.parametrize("names", [(), ("a.ckpt",), ("../../x.safetensors",), ("/x.safetensors",)])
def test_a_repository_without_a_usable_file_is_refused(names: tuple[str, ...], tmp_path: Path):
    with pytest.raises(DownloadRefused):
        fetch(hub(*names), tmp_path, RepoFile("a/b"))


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"siblings": [{}]}', '{"siblings": 1}', "[" * 100_000])
def test_a_list_that_cannot_be_read_is_a_failure(answer: str, tmp_path: Path):
    host = Host()

    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json")

    host.handle = handle
    with pytest.raises(DownloadFailed, match="cannot be read"):
        fetch(host, tmp_path, RepoFile("a/b"))


@pytest.mark.parametrize("wanted", [
    "../../etc/passwd", "..\\..\\x.safetensors", "C:\\x", "a:b", "a\0b", "a\r\nb", "CON", "nul.safetensors", "com1.x.safetensors", "COM\u00b9.x",
    "", ".", "..", ".hidden", "x. . ",
    "a" * 500, "\u00e9" * 500, "\U0001f600" * 90, "<>|?*\"", "e\u0301", "-rf", "\ud800", "\u202egnp"])
def test_names_are_safe_on_every_file_system(wanted: str):
    name = file_name(wanted, SHA)
    assert len(name.encode()) <= 120 and re.fullmatch(rf"[\w.()+ -]+-{SHA[:16]}\.safetensors", name)
    assert not name.startswith((".", " ")) and not re.match(r"(con|prn|aux|nul|com\d|lpt\d)\.", name, re.IGNORECASE)


def test_progress_is_told_sparingly():
    said: list[str] = []
    now = [0.0]
    progress = Progress(said.append, "x", 2**30, lambda: now[0])
    for size in range(0, 2**30, 2**20):
        progress.at(size)
    assert 18 <= len(said) <= 20 and said[0] == "x: 5 % of 1024.0 MB"
    progress = Progress(said.append, "x", None, lambda: now[0])
    said.clear()
    for second in range(1, 21):
        now[0] = second
        progress.at(second * 2**20)
    assert said == [f"x: {size}.0 MB" for size in (5, 10, 15, 20)]


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"stall_seconds": -1.0}, {"tokens": {"h": "a\nb"}}, {"hub": "http://huggingface.co"},
    {"hub": "https://mirror.example"},
                                     {"networks": ("x",)}, {"allowed_hosts": ("https://x",)}])
def test_rules_that_mean_nothing_are_refused(options: dict[str, Any]):
    with pytest.raises(ValueError):
        DownloadRules(**options)
