"""What comes over connections that end, stall or lie leaves the disk as it was, and costs nobody else their files."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from wan22.api.errors import ApiError
from wan22.api.settings import Settings
from wan22.api.uploads import storage as uploads
from wan22.api.uploads.storage import ARRIVING, Uploads, without_secret
from wan22.engine.fetch.partial_file import SPARE_BYTES
from wan22.engine.fetch.rules import UploadRules

from app_server import served
from file_host import LORA, OTHER, until


class Body:
    """What a connection sends: chunks, then perhaps silence until `gate` opens, then perhaps an error."""

    def __init__(self, *chunks: bytes, gate: asyncio.Event | None = None, fault: Exception | None = None) -> None:
        self._chunks, self._gate, self._fault = chunks, gate, fault
        self.read = 0

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.read += 1
            yield chunk
        if self._gate:
            await self._gate.wait()
        if self._fault:
            raise self._fault


def begun(desk: Uploads, owner: str = "") -> str:
    return desk.begin("mine.safetensors", owner).split("/")[-2]


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


async def refusal(work: Awaitable[Any]) -> ApiError:
    with pytest.raises(ApiError) as refused:
        await work
    return refused.value


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk whose free bytes a test sets."""
    disk = SimpleNamespace(free=SPARE_BYTES + 2**40)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: disk)
    return disk


@pytest.mark.parametrize("parted", [False, True], ids=["whole", "in parts"])
def test_a_disk_that_fills_up_ends_an_upload_of_unknown_length(tmp_path: Path, disk: SimpleNamespace, parted: bool) -> None:
    class Filling(Body):
        async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
            yield LORA[:1000]
            disk.free = SPARE_BYTES + 500
            yield LORA[1000:2000]

    async def use() -> None:
        desk = Uploads(tmp_path, UploadRules())
        token = begun(desk)
        refused = await refusal(desk.receive_part(token, 1, Filling()) if parted else desk.receive(token, Filling(), None))
        assert refused.status == 500 and "free" in refused.text and left(tmp_path) == []
        disk.free += 2**40
        await desk.receive(token, Body(LORA), None)
        assert len(list(tmp_path.glob("*.safetensors"))) == 1

    asyncio.run(use())


@pytest.mark.parametrize("fault", [ConnectionResetError("gone"), OSError(28, "No space left on device", "/home/owner/models"), RuntimeError("?"),
                                   asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("parted", [False, True], ids=["whole", "in parts"])
def test_of_what_breaks_off_nothing_stays_and_it_may_come_again(tmp_path: Path, fault: Any, parted: bool) -> None:
    async def use() -> None:
        desk = Uploads(tmp_path, UploadRules())
        token, body = begun(desk), Body(LORA[:5000], fault=fault)
        with pytest.raises(BaseException) as raised:  # noqa: PT011 of every kind
            await (desk.receive_part(token, 1, body) if parted else desk.receive(token, body, None))
        assert "/home" not in str(raised.value) and left(tmp_path) == []
        await desk.receive(token, Body(LORA), None)

    asyncio.run(use())


def test_a_name_that_the_disk_refuses_leaves_nothing_and_names_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, *_: Any) -> None:
        raise OSError(28, "No space left on device", str(self.folder))

    monkeypatch.setattr(uploads.Entry, "finish", full)

    async def use() -> None:
        desk = Uploads(tmp_path, UploadRules())
        refused = await refusal(desk.receive(begun(desk), Body(LORA), None))
        assert "No space left" in refused.text and str(tmp_path) not in refused.text and left(tmp_path) == []

    asyncio.run(use())


def test_more_parts_than_may_be_are_refused_unread_even_where_they_are_empty(tmp_path: Path) -> None:
    async def use() -> None:
        desk, body = Uploads(tmp_path, UploadRules()), Body(b"")
        assert (await refusal(desk.receive_part(begun(desk), uploads.MOST_PARTS + 1, body))).status == 422
        assert body.read == 0 and left(tmp_path) == []

    asyncio.run(use())


def test_files_in_parts_share_the_room_of_one_file_of_their_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use() -> None:
        desk = Uploads(tmp_path, UploadRules(max_bytes=1000))
        first, second, other = begun(desk, "a"), begun(desk, "a"), begun(desk, "b")
        for token in (first, other):
            await desk.receive_part(token, 1, Body(b"x" * 600))
        for _ in range(2):
            await desk.receive_part(second, 1, Body(b"x" * 400))
        refused = await refusal(desk.receive_part(second, 2, Body(b"x")))
        assert refused.status == 422 and "uploads.max_bytes" in refused.text
        monkeypatch.setattr(uploads, "IDLE_SECONDS", -1.0)
        await desk.receive_part(begun(desk, "a"), 1, Body(b"x" * 1000))
        assert (await refusal(desk.complete(first))).status == 404, "its client was gone"

    asyncio.run(use())


def test_nobody_elses_upload_is_given_up_and_none_that_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_PENDING", 2)

    async def use() -> None:
        desk, gate = Uploads(tmp_path, UploadRules()), asyncio.Event()
        other, arriving = begun(desk, "b"), begun(desk, "a")
        task = asyncio.create_task(desk.receive(arriving, Body(LORA, gate=gate), None))
        await until(lambda: desk._pending[arriving].lock.locked())
        given_up, stays = begun(desk, "a"), begun(desk, "a")
        more = asyncio.create_task(desk.receive_part(stays, 1, Body(b"x", gate=gate)))
        await until(lambda: desk._pending[stays].lock.locked())
        with pytest.raises(ApiError) as full:
            begun(desk, "a")
        assert (full.value.status, full.value.headers()["X-Fal-Retryable"]) == (503, "true")
        gate.set()
        await asyncio.gather(task, more)
        for token, body in ((other, OTHER), (stays, OTHER)):
            await desk.receive(token, Body(body), None)
        assert (await refusal(desk.complete(given_up))).status == 404

    asyncio.run(use())


@pytest.mark.parametrize("parted", [False, True], ids=["whole", "in parts"])
def test_a_silent_connection_ends_and_its_client_may_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parted: bool) -> None:
    monkeypatch.setattr(uploads, "STALL_SECONDS", 0.05)

    async def use() -> None:
        desk = Uploads(tmp_path, UploadRules())
        token, body = begun(desk), Body(LORA[:5000], gate=asyncio.Event())
        stalled = await refusal(desk.receive_part(token, 1, body) if parted else desk.receive(token, body, None))
        assert (stalled.status, stalled.headers()["X-Fal-Retryable"]) == (504, "true") and left(tmp_path) == []
        await desk.receive(token, Body(LORA), None)

    asyncio.run(use())


def test_who_waited_for_another_to_complete_a_file_changes_nothing(tmp_path: Path) -> None:
    async def use() -> None:
        desk, gate = Uploads(tmp_path, UploadRules()), asyncio.Event()
        token = begun(desk)
        first = asyncio.create_task(desk.receive(token, Body(LORA, gate=gate), None))
        await until(lambda: desk._pending[token].lock.locked())
        later = [asyncio.create_task(work) for work in (desk.receive(token, Body(OTHER), None),
                                                        desk.receive_part(token, 1, Body(OTHER)), desk.complete(token))]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *later)
        file = await desk.file(f"http://h/fal/storage/files/{token}/x")
        assert file is not None and file.read_bytes() == LORA and not list((tmp_path / ARRIVING).iterdir())

    asyncio.run(use())


def test_who_waited_for_a_file_that_is_refused_is_told_that_it_is_gone(tmp_path: Path) -> None:
    async def use() -> None:
        desk, gate = Uploads(tmp_path, UploadRules()), asyncio.Event()
        token = begun(desk)
        first = asyncio.create_task(desk.receive(token, Body(LORA[:-1], gate=gate), None))
        await until(lambda: desk._pending[token].lock.locked())
        second = asyncio.create_task(desk.receive(token, Body(OTHER), None))
        await asyncio.sleep(0)
        gate.set()
        assert [(await refusal(task)).status for task in (first, second)] == [422, 404]
        assert left(tmp_path) == []

    asyncio.run(use())


def test_a_file_whose_time_changed_is_read_while_others_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use() -> None:
        desk = Uploads(tmp_path, UploadRules())
        token = begun(desk)
        await desk.receive(token, Body(LORA), None)
        loops: list[bool] = []
        monkeypatch.setattr(uploads.Entry, "file", lambda entry: loops.append(in_loop()))
        await refusal_of_file(desk, token)
        assert loops == [False]

    def in_loop() -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    async def refusal_of_file(desk: Uploads, token: str) -> None:
        with pytest.raises(ValueError, match="Upload it again"):
            await desk.file(f"http://h/fal/storage/files/{token}/x")

    asyncio.run(use())


def test_no_secret_of_an_upload_is_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Uploads, "complete", broken)
    with served(Settings(enabled=True), Uploads(tmp_path, UploadRules())) as server:
        secret = begun(server.desk.uploads)
        for path in (f"/fal/storage/files/{secret}/x/complete", f"/api/fal/storage/files/{secret}/x/complete"):
            assert requests.post(server.url + path.removeprefix("/api"), timeout=60).status_code == 500
            assert secret not in without_secret(path)
    assert "broken" in caplog.text and secret not in caplog.text
