"""A worker and its ComfyUI: one attempt at a time, stopped when it is not wanted, when nobody asks for it, and when somebody else comes."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from cluster.attempts import Attempt, Begun, Ended, Event, LogLine, Picture, Piece
from cluster.on_ray.actor import WorkerActor
from cluster.worker import worker as module
from cluster.worker.child import Child, Place, StartFailed, remove_the_dead
from cluster.worker.client import Broken, Client
from cluster.worker.worker import LeaseOver, Worker
from nodes.api.errors import Cancelled
from nodes.api.jobs.job import Answer

FAKE = Place(Path(__file__).with_name("fake_comfyui"), Path(sys.executable))
SOON = 20.0


@contextlib.asynccontextmanager
async def working() -> AsyncIterator[tuple[Worker, Child]]:
    child = Child(FAKE, {})
    try:
        await child.up(60)
        client = Client(child.url, child.key)
        yield Worker(client), child
        await client.close()
    finally:
        child.stop()


def attempt(prompt: str, lease: str = "lease", **more: object) -> Attempt:
    return Attempt("request", lease, {"prompt": prompt, "seed": 1, **more})


async def events(worker: Worker, lease: str = "lease") -> list[Event]:
    """All, to the end."""
    seen: list[Event] = []
    async def collect() -> None:
        while not seen or not isinstance(seen[-1], Ended):
            seen.extend(await worker.events(lease))
    await asyncio.wait_for(collect(), SOON)
    return seen


def answer(seen: list[Event]) -> int:
    assert isinstance(seen[-1], Ended)
    return seen[-1].answer.status


def test_one_comfyui_serves_one_attempt_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use() -> None:
        async with working() as (worker, child):
            await worker.begin(attempt("a fox, takes 0.6"))
            seen = await events(worker)
            pictures = [event.content for event in seen if isinstance(event, Picture)]
            assert pictures and all(picture.startswith("data:image/webp") for picture in pictures)
            kinds = [type(event) for event in seen]
            assert kinds[0] is Begun and kinds.count(LogLine) == 10 and kinds[-1] is Ended and answer(seen) == 200
            content = b"".join(event.content for event in seen if isinstance(event, Piece))
            assert isinstance(seen[-1], Ended) and len(content) == seen[-1].answer.body["video"]["file_size"]
            with pytest.raises(LeaseOver):
                await worker.events("another")

            for prompt, status in (("it fails", 500), ("unsafe", 422)):
                await worker.begin(attempt(prompt))
                assert answer(await events(worker)) == status

            await worker.begin(attempt("takes 100"))
            assert isinstance((await worker.events("lease"))[0], Begun)
            began = time.monotonic()
            await worker.cancel("lease")
            assert answer(await events(worker)) == 499

            await worker.cancel("later")  # as where the cancel overtakes its attempt
            await worker.begin(attempt("takes 100", "later"))
            assert answer(await events(worker, "later")) == 499

            await worker.begin(attempt("takes 100", "orphan"))
            await worker.begin(attempt("a fox", "next"))  # of a gateway that knows nothing of the orphan
            assert answer(await events(worker, "next")) == 200 and time.monotonic() - began < 60

            monkeypatch.setattr(module, "LEASE_SECONDS", 0.3)
            await worker.begin(attempt("takes 100", "forgotten"))
            assert worker._run is not None
            await asyncio.wait_for(worker._run._task, SOON)  # nobody asks any more
            await worker.begin(attempt("a fox", "after"))
            assert answer(await events(worker, "after")) == 200

            refused = attempt("a fox", "refused", num_frames=1)
            await worker.begin(refused)
            assert answer(await events(worker, "refused")) == 422

            await worker.begin(attempt("takes 100", "dies"))
            assert isinstance((await worker.events("dies"))[0], Begun)
            child.process.send_signal(signal.SIGKILL)
            with pytest.raises(Broken):
                await events(worker, "dies")
    asyncio.run(use())


def test_the_end_of_a_comfyui_is_told(tmp_path: Path) -> None:
    async def use() -> None:
        child, ended = Child(FAKE, {}), asyncio.Event()
        await child.up(60)
        loop = asyncio.get_running_loop()

        def tell() -> None:
            loop.call_soon_threadsafe(ended.set)

        child.tell(tell)
        assert not ended.is_set()
        child.process.kill()
        await asyncio.wait_for(ended.wait(), SOON)
        folder = child._folder
        child.stop()
        assert not folder.exists()
    asyncio.run(use())


def test_a_comfyui_that_ends_while_it_starts_says_why(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print('no such device'); raise SystemExit(3)")
    child = Child(Place(tmp_path, Path(sys.executable)), {})
    with pytest.raises(StartFailed, match="no such device"):
        asyncio.run(child.up(60))
    child.stop()


@pytest.mark.parametrize(("comfyui", "python", "cure"), [("nowhere", sys.executable, "--comfyui"), (".", "/nowhere/python", "--python")])
def test_where_there_is_nothing_to_start_it_is_named(tmp_path: Path, comfyui: str, python: str, cure: str) -> None:
    (tmp_path / "main.py").touch()
    with pytest.raises(StartFailed, match=f"(?s){'nowhere'}.*{cure}"):
        Child(Place(tmp_path / comfyui, Path(python)), {})


def test_only_folders_of_workers_that_are_gone_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    names = {f"wan22-worker-{os.getpid()}-a": True, "wan22-worker-999999999-b": False, "wan22-worker-x": True, "other": True}
    for name in names:
        (tmp_path / name).mkdir()
    remove_the_dead()
    assert {name: (tmp_path / name).exists() for name in names} == names


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_comfyui_ends_with_its_worker(tmp_path: Path) -> None:
    script = (f"import sys, time; sys.path[:0] = {sys.path!r}\nfrom pathlib import Path\nfrom cluster.worker.child import Child, Place\n"
              f"child = Child(Place(Path({str(FAKE.comfyui)!r}), Path(sys.executable)), {{}})\nprint(child.process.pid, flush=True)\ntime.sleep(600)")

    async def use() -> None:
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
        assert parent.stdout is not None
        child = int(await asyncio.wait_for(parent.stdout.readline(), SOON))
        parent.kill()
        await parent.wait()
        async def gone() -> None:
            while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
                await asyncio.sleep(0.05)
        await asyncio.wait_for(gone(), SOON)
    asyncio.run(use())
    remove_the_dead()


class Endless:
    """A ComfyUI whose job ends when it is cancelled, or `fails` as no other does."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.cancelled = fails, asyncio.Event()

    async def submit(self, attempt: Attempt) -> str:
        if self.fails:
            raise IndexError("what nobody thought of")
        return "id"

    async def cancel(self, request_id: str) -> None:
        self.cancelled.set()

    async def follow(self, request_id: str) -> AsyncIterator[Event]:
        yield Begun()
        await self.cancelled.wait()
        yield Ended(Answer.of(Cancelled()))


def test_the_end_of_an_orphan_is_nobodys_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes back too late, as after a network cut, must not take it for a cancel of the client's."""
    async def use() -> None:
        monkeypatch.setattr(module, "LEASE_SECONDS", 0.2)
        worker = Worker(cast(Client, Endless()))
        await worker.begin(attempt("a fox"))
        assert worker._run is not None
        await asyncio.wait_for(worker._run._task, SOON)
        with pytest.raises(LeaseOver):
            await worker.events("lease")
    asyncio.run(use())


def test_who_asks_is_not_told_of_the_end_that_another_made() -> None:
    async def use() -> None:
        worker = Worker(cast(Client, Endless()))
        await worker.begin(attempt("a fox"))
        await worker.events("lease")
        asked = asyncio.ensure_future(worker.events("lease"))
        await asyncio.sleep(0)
        await worker.clear()
        with pytest.raises(LeaseOver):
            await asyncio.wait_for(asked, SOON)
    asyncio.run(use())


def test_an_attempt_that_fails_as_no_other_does_is_broken_and_not_silent() -> None:
    async def use() -> None:
        worker = Worker(cast(Client, Endless(fails=True)))
        await worker.begin(attempt("a fox"))
        with pytest.raises(Broken, match="IndexError"):
            await worker.events("lease")
    asyncio.run(use())


class Taking:
    """A ComfyUI that keeps what is sent to it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def has(self, address: str) -> bool:
        return address in self.files

    async def upload(self, address: str, file: Path, name: str) -> None:
        self.files[address] = file.read_bytes()


def test_of_an_upload_that_broke_off_nothing_is_in_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def use() -> None:
        actor, client = WorkerActor({}, True), Taking()
        actor._worker = Worker(cast(Client, client))
        for pieces in ([b"ha"], [b"who", b"le", b""]):  # the gateway of the first one dies
            assert await actor.lacks(["address"]) == ["address"]
            for piece in pieces:
                await actor.receive("address", "style.safetensors", piece)
        assert client.files == {"address": b"whole"} and await actor.lacks(["address"]) == []
        assert list(tmp_path.iterdir()) == []
    asyncio.run(use())
