"""The cache: one download for many who ask, a file that changed is checked again, names fit every file system."""

import asyncio
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from engine.fetch import cache
from engine.fetch.cache import Entry, file_name, locked
from engine.fetch.download import Downloader
from file_host import LORA, OTHER, SHA, Host, rules, run, same_port, until


def test_two_fetches_at_once_download_once(tmp_path: Path):
    host = Host()

    async def use() -> list[Path]:
        downloader = Downloader(tmp_path, rules(host))
        return await asyncio.gather(*(downloader.fetch(host.file(), lines.append) for _ in range(4)))

    lines: list[str] = []
    paths = run(host, use)
    assert len(set(paths)) == 1 and len(host.requests) == 1 and not any("another process" in line for line in lines)


def test_two_processes_download_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    host = Host()
    tries: list[str] = []
    lines: list[str] = []

    class Counted(FileLock):
        def acquire(self, *args: Any, **kwargs: Any) -> Any:
            tries.append(self.lock_file)
            return super().acquire(*args, **kwargs)

    monkeypatch.setattr(cache, "LOCK_POLL", 0.01)
    monkeypatch.setattr(cache, "FileLock", Counted)

    async def use() -> list[Path]:
        async with locked(Entry(tmp_path, host.file().url).lock, lambda: None):
            waiting = asyncio.ensure_future(Downloader(tmp_path, rules(host)).fetch(host.file(), lines.append))
            await until(lambda: len(tries) >= 5)
            assert not host.requests and lines == [f"{host.file()}: another process is downloading it, waiting"]
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
        facts = outside.stat()
        values = {"from": "x", "file": "../outside.safetensors", "bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns, "sha256": ""}
        record.write_text(json.dumps(values))

    first, second = same_port(host, tmp_path / "cache", lambda: None, spoil)
    assert first == second and len(host.requests) == 2


@pytest.mark.parametrize("wanted", [
    "../../etc/passwd", "..\\..\\x.safetensors", "C:\\x", "a:b", "a\0b", "a\r\nb", "CON", "nul.safetensors", "com1.x.safetensors", "COM\u00b9.x",
    "", ".", "..", ".hidden", "x. . ",
    "a" * 500, "\u00e9" * 500, "\U0001f600" * 90, "<>|?*\"", "e\u0301", "-rf", "\ud800", "\u202egnp"])
def test_names_are_safe_on_every_file_system(wanted: str):
    name = file_name(wanted, SHA)
    assert len(name.encode()) <= 120 and re.fullmatch(rf"[\w.()+ -]+-{SHA[:16]}\.safetensors", name)
    assert not name.startswith((".", " ")) and not re.match(r"(con|prn|aux|nul|com\d|lpt\d)\.", name, re.IGNORECASE)
