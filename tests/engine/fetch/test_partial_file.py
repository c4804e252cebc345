"""A file while it grows: writing threads are waited for, progress is told sparingly."""

import asyncio
import threading
from pathlib import Path

import pytest

from engine.fetch.partial_file import PartialFile, Progress, in_thread
from engine.fetch.rules import DownloadRefused
from file_host import until


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


def test_progress_is_told_sparingly():
    lines: list[str] = []
    now = [0.0]
    progress = Progress(lines.append, "x", 2**30, lambda: now[0])
    for size in range(0, 2**30, 2**20):
        progress.at(size)
    assert 18 <= len(lines) <= 20 and lines[0] == "x: 5 % of 1024.0 MB"
    progress = Progress(lines.append, "x", None, lambda: now[0])
    lines.clear()
    for second in range(1, 21):
        now[0] = second
        progress.at(second * 2**20)
    assert lines == [f"x: {size}.0 MB" for size in (5, 10, 15, 20)]


def test_what_is_promised_too_large_is_refused_before_its_file_is_opened(tmp_path: Path):
    with pytest.raises(DownloadRefused):
        PartialFile(tmp_path / "not_there.part", 10, 11)
