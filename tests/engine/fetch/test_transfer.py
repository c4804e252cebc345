"""A transfer: it goes on where it broke off, and keeps nothing but whole safetensors files within the limits. Against a real HTTP server."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from safetensors.torch import load_file

from engine.fetch import partial_file
from engine.fetch.download import Downloader
from engine.fetch.rules import DownloadFailed, DownloadRefused
from engine.fetch.sources import RepoFile, WebFile
from file_host import LORA, OTHER, SECRET, SHA, Host, arrived, fetch, leftovers, refused, rules, run, same_port, silent, streamed


def test_a_file_comes_whole_with_a_readable_name_and_is_not_fetched_again(tmp_path: Path):
    host = Host()
    lines: list[str] = []
    host.headers["Content-Disposition"] = 'attachment; filename="My LoRA (high).safetensors"'

    async def use() -> list[Path]:
        downloader = Downloader(tmp_path / "new", rules(host))
        return [await downloader.fetch(host.file("api/download/models/7?type=Model"), lines.append) for _ in range(2)]

    first, second = run(host, use)
    assert first == second and first.name == f"My LoRA (high)-{SHA[:16]}.safetensors"
    assert first.read_bytes() == LORA and len(host.requests) == 1
    assert torch.equal(load_file(first)["lora_B"], torch.ones(3))
    assert leftovers(tmp_path / "new") == [".json", ".safetensors"] and SHA in lines[-1]


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
        await response.write((8_000_000).to_bytes(8, "little") + b'{"')
        while True:
            await response.write(b"x" * 2**16)

    host.handle = endless
    refused(host, tmp_path, "at most 1000000", max_bytes=1_000_000)


@pytest.mark.parametrize(("content", "pattern"), [
    (b"\x80\x02}q\x00(X\x06\x00\x00\x00weightq\x01" + b"0" * 10**6, "no safetensors file"), (b"PK\x03\x04" + b"0" * 10**6, "no safetensors file"),
    (b"<!DOCTYPE html>" + b" " * 10**6, "no safetensors file"), ((2).to_bytes(8, "little") + b"[]" + b"0" * 10**6, "no safetensors file"),
    ((2).to_bytes(8, "little") + b"{}" + b"0" * 10**6, "no tensors")])
def test_what_is_no_safetensors_file_is_refused_after_its_first_bytes(content: bytes, pattern: str, tmp_path: Path):
    host = Host()

    async def slow(request: web.Request) -> web.StreamResponse:
        await streamed(request, content[:40])
        return await silent(request)

    host.handle = slow
    refused(host, tmp_path, pattern)


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


@pytest.mark.parametrize(("handler", "kind", "pattern"), [
    (silent, DownloadFailed, "did not answer"), (hang_up, DownloadFailed, "connection broke"), (status(500), DownloadFailed, "answered 500"),
    (status(429), DownloadFailed, "answered 429"), (status(404), DownloadRefused, "answered 404"), (status(401), DownloadRefused, "must set a token"),
    (status(403), DownloadRefused, "token"), (status(204), DownloadRefused, "204"), (page, DownloadRefused, "web page"),
    (compressed, DownloadFailed, "compressed"),
    (away, DownloadRefused, "not among the hosts"), (part_unasked, DownloadFailed, "a part")])
def test_every_fault_is_one_of_two_errors_without_secrets(handler: Any, kind: type[Exception], pattern: str, tmp_path: Path):
    host = Host()
    host.handle = handler
    with pytest.raises(kind, match=pattern) as raised:
        fetch(host, tmp_path, f"x.safetensors?token={SECRET}", tokens={"127.0.0.1": SECRET}, stall_seconds=0.1 if handler is silent else 60)
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert leftovers(tmp_path) == []


def test_a_server_that_is_not_there(tmp_path: Path):
    host = Host()
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        fetch(host, tmp_path, WebFile("http://127.0.0.1:9/x"), allowed_hosts=("127.0.0.1:9", "127.0.0.1"), hub="http://127.0.0.1")


def test_a_full_disk_is_told_before_the_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(partial_file, "SPARE_BYTES", 2**60)
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
