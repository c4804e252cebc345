"""What a gateway promises of an accepted job: one answer, of the first worker that can give it, in the order of arrival, whatever ends meanwhile."""

import asyncio
import gc
import json
import os
import struct
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from gateways import Gateway, done, running, until
from simulated import video

from cluster.attempts import Picture
from cluster.gateway.errors import NoWorkers
from cluster.gateway.jobs import ClusterJob
from cluster.gateway.service import _take
from cluster.gateway.videos import Arriving, Videos
from cluster.settings import ClusterSettings, ResultRules
from nodes.api.errors import InvalidRequest, NotFound, QueueFull
from nodes.api.headers import Preferences
from nodes.api.jobs.job import COMPLETED, IN_PROGRESS, IN_QUEUE, Job


def smallest_lora() -> bytes:
    header = json.dumps({"blocks.0.lora_A.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def test_a_good_answer_names_the_gateways_own_video(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            job = await gateway.submit(seed=7)
            await done(job)
            assert job.answer is not None and job.answer.status == 200
            (_, attempt), = gateway.pool.attempts
            path = gateway.service.videos.path(job.request_id)
            assert path is not None and path.read_bytes() == video(attempt)
            assert job.answer.body["video"]["url"] == f"http://gateway/videos/{job.request_id}/clip.mp4"
            assert job.answer.body["seed"] == 7 and job.metrics()["inference_time"] >= 0
            assert [line["message"] for line in job.logs] == ["Sampler: 1 of 1", f"Save Video: {len(video(attempt))} bytes"]
    asyncio.run(use())


def test_a_clip_is_kept_for_who_looks_at_it(tmp_path: Path) -> None:
    async def use() -> None:
        job = ClusterJob("", 1)
        async with Videos(tmp_path, ResultRules()).arriving(job.request_id) as video:
            await _take(Picture("data:1"), job, video)
            assert job.picture == ""
            with job.looked_at():
                await _take(Picture("data:2"), job, video)
                assert job.picture == "data:2"
    asyncio.run(use())


@pytest.mark.parametrize("seed", [None, 5])
def test_a_job_whose_worker_is_lost_begins_again_elsewhere_with_its_seed_and_its_place(tmp_path: Path, seed: int | None) -> None:
    async def use() -> None:
        async with running(tmp_path, "w1", "w2") as gateway:
            gateway.pool.free.clear()
            first, second = await gateway.submit("first", seed=seed), await gateway.submit("second")
            behind = await gateway.submit("behind")
            await until(lambda: first.status == second.status == IN_PROGRESS)
            gateway.pool.kill("w1")
            await until(lambda: first.status == IN_QUEUE)
            assert gateway.service.queue_position(first) == 0 and gateway.service.queue_position(behind) == 1
            assert "w1" not in gateway.service.dispatcher.workers, "who is lost gets no job"
            gateway.pool.free.set()
            await done(first, second, behind)
            attempts = [attempt for _, attempt in gateway.pool.attempts]
            assert [attempt.request["prompt"] for attempt in attempts] == ["first", "second", "first", "behind"]
            assert attempts[0].request == attempts[2].request and attempts[0].lease != attempts[2].lease
            assert all(job.answer is not None and job.answer.status == 200 for job in (first, second, behind))
    asyncio.run(use())


def test_a_job_that_loses_two_workers_ends_as_disconnected(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, "w1", "w2", "w3") as gateway:
            job = await gateway.submit("it kills")
            await done(job)
            assert job.answer is not None and (job.answer.status, job.answer.error_type) == (503, "runner_disconnected")
            assert len(gateway.pool.attempts) == 2 and set(gateway.service.dispatcher.workers) == {"w3"}
            await done(await gateway.submit("another"))
    asyncio.run(use())


@pytest.mark.parametrize(("prompt", "status"), [("it fails", 500), ("unsafe", 422)])
def test_a_job_that_fails_by_itself_is_not_tried_again(tmp_path: Path, prompt: str, status: int) -> None:
    async def use() -> None:
        async with running(tmp_path, "w1", "w2") as gateway:
            job = await gateway.submit(prompt)
            await done(job)
            assert job.answer is not None and job.answer.status == status and len(gateway.pool.attempts) == 1
            assert len(gateway.service.videos) == 0 and len(gateway.service.dispatcher.workers) == 2
    asyncio.run(use())


def test_cancel_works_while_it_waits_while_it_runs_and_while_its_worker_is_lost(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, "w1", "w2") as gateway:
            gateway.pool.free.clear()
            jobs = [await gateway.submit(str(number)) for number in range(3)]
            await until(lambda: jobs[0].status == jobs[1].status == IN_PROGRESS)
            gateway.service.cancel(jobs[2])
            gateway.service.cancel(jobs[0])
            jobs[1].unwanted = True  # as a cancel that comes just when the worker is lost
            gateway.pool.kill("w2")
            await done(*jobs)
            assert [job.answer.status for job in jobs if job.answer] == [499, 499, 499]
            gateway.pool.free.set()
            await done(after := await gateway.submit("after"))
            assert after.answer is not None and after.answer.status == 200, "the worker is free"
            assert len(gateway.pool.attempts) == 3, "nobody tried what nobody wants"
    asyncio.run(use())


def test_a_start_timeout_ends_what_waits_and_leaves_what_runs(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            gateway.pool.free.clear()
            soon = Preferences(start_seconds=0.15)
            runs, waits = await gateway.submit(preferences=soon), await gateway.submit(preferences=soon)
            await done(waits)
            assert waits.answer is not None and (waits.answer.status, waits.answer.error_type) == (504, "startup_timeout")
            gateway.pool.free.set()
            await done(runs)
            assert runs.answer is not None and runs.answer.status == 200
    asyncio.run(use())


def test_a_low_priority_waits_behind_all_others(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            gateway.pool.free.clear()
            jobs = [await gateway.submit(prompt, preferences=Preferences(low=prompt == "low")) for prompt in ("running", "low", "a", "b")]
            assert [gateway.service.queue_position(job) for job in jobs[1:]] == [2, 0, 1]
            gateway.pool.free.set()
            await done(*jobs)
            assert [attempt.request["prompt"] for _, attempt in gateway.pool.attempts] == ["running", "a", "b", "low"]
    asyncio.run(use())


def test_limits_are_per_key_and_for_all_and_say_when_to_come_back(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, settings=ClusterSettings(max_waiting=2, max_queued=3)) as gateway:
            with pytest.raises(NoWorkers) as none:
                await gateway.submit()
            assert none.value.status == 503 and none.value.headers()["X-Fal-Retryable"] == "true"
            gateway.pool.join(gateway.service.dispatcher, "w")
            gateway.pool.free.clear()
            for owner in ("a", "a"):
                await gateway.submit(owner=owner)
            for owner, limit in (("a", "max_waiting"), ("", "")):
                if limit:
                    with pytest.raises(QueueFull, match=limit):
                        await gateway.submit(owner=owner)
                else:
                    await gateway.submit(owner="b")
            await gateway.submit(owner="c")
            with pytest.raises(QueueFull, match="max_queued"):
                await gateway.submit(owner="d")
    asyncio.run(use())


def test_another_keys_job_is_not_there(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            job = await gateway.submit(owner="a")
            assert gateway.service.job(job.request_id, "a") is job
            with pytest.raises(NotFound):
                gateway.service.job(job.request_id, "b")
            await done(job)
    asyncio.run(use())


@pytest.mark.parametrize(("path", "message"), [
    ("missing.safetensors", "no LoRA"), ("https://huggingface.co/x/y/resolve/main/z.safetensors", "switched off"),
    ("../style.safetensors", "no path"), ("http://127.0.0.1/x", "switched off")])
def test_a_lora_that_no_worker_has_or_may_fetch_is_refused(tmp_path: Path, path: str, message: str) -> None:
    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            with pytest.raises(InvalidRequest, match=message):
                await gateway.submit(loras=[{"path": path}])
            assert not gateway.service.store.jobs
            for spelling in ("style", "folder\\motion.safetensors"):
                await done(await gateway.submit(loras=[{"path": spelling}]))
    asyncio.run(use())


def test_a_gateway_that_comes_back_goes_on_where_the_other_was(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, "w1", "w2") as gateway:
            complete = await gateway.submit("complete", owner="a", seed=1)
            await done(complete)
            gateway.pool.free.clear()
            left = [await gateway.submit(f"left {number}", preferences=Preferences(low=number == 2)) for number in range(5)]
            await until(lambda: len(gateway.pool.attempts) == 3)
            assert isinstance(gateway, Gateway)
        with pytest.raises(KeyError):
            gateway.pool._ends["w1"]
        async with running(tmp_path) as second:
            await until(lambda: len(second.service.line) == 5)
            assert [second.service.queue_position(second.service.job(job.request_id, "")) for job in left] == [0, 1, 4, 2, 3]
            again = second.service.job(complete.request_id, "a")
            assert again.answer == complete.answer and again.status == COMPLETED and second.service.videos.path(complete.request_id)
            second.pool.join(second.service.dispatcher, "w3")
            jobs = [second.service.job(job.request_id, "") for job in left]
            await done(*jobs)
            assert [attempt.request["prompt"] for _, attempt in second.pool.attempts] == [f"left {number}" for number in (0, 1, 3, 4, 2)]
            assert [job.seed for job in jobs] == [job.seed for job in left]
            leases = {attempt.lease for pool in (gateway.pool, second.pool) for _, attempt in pool.attempts}
            assert len(leases) == 3 + 5, "a lease is never valid again"
    asyncio.run(use())


def test_an_answer_is_on_the_disk_before_anybody_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            kept, store = asyncio.Event(), gateway.service.store
            write = store._write

            async def keep(job: Any) -> None:
                if job.answer is not None:
                    await kept.wait()
                write(job.request_id, json.dumps(job.record()))

            monkeypatch.setattr(store, "keep", keep)
            job = await gateway.submit()
            await until(lambda: job.answer is not None)
            await asyncio.sleep(0.02)
            assert job.status != COMPLETED and not job.done.is_set()
            kept.set()
            await done(job)
    asyncio.run(use())


def test_a_second_gateway_on_a_folder_is_refused(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, "w"):
            with pytest.raises(OSError, match="--state"):
                async with running(tmp_path, "w"):
                    pass
    asyncio.run(use())


def test_of_a_private_job_no_text_stays(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            job = await gateway.submit("a secret", preferences=Preferences(private=True))
            await done(job)
            assert job.answer is not None and job.answer.body["prompt"] == "a secret"
            assert gateway.pool.attempts[0][1].headers["X-Fal-Store-IO"] == "0"
    asyncio.run(use())
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"a secret" in file.read_bytes()]


def test_old_videos_make_room_for_new_ones_and_go_when_their_time_is_over(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, "w", settings=ClusterSettings(results=ResultRules(max_bytes=600))) as gateway:
            videos = gateway.service.videos
            jobs = [await gateway.submit(str(number)) for number in range(4)]
            await done(*jobs)
            await until(lambda: len(videos) == 2)
            assert [videos.path(job.request_id) is not None for job in jobs] == [False, False, True, True] and videos.total == 512
            assert len(list(videos.folder.iterdir())) == 2
            brief = await gateway.submit("brief", preferences=Preferences(video_seconds=0.01))
            await done(brief)
            await until(lambda: brief.request_id in videos._sizes)  # which nobody has looked through yet
            await asyncio.sleep(0.02)
            videos.delete_what_is_over()
            assert videos.path(brief.request_id) is None and videos.path(jobs[3].request_id) is not None
    asyncio.run(use())


def test_an_upload_address_of_a_strange_host_stops_nobody(tmp_path: Path) -> None:
    """Of such an address only the secret in it counts, so its host may be what no host can be."""
    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            uploads, content = gateway.service.uploads, smallest_lora()
            path = uploads.begin("style.safetensors")
            stream = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
            stream.feed_data(content)
            stream.feed_eof()
            await uploads.receive(path.split("/")[-2], stream, len(content))
            job = await gateway.submit(loras=[{"path": f"http://[{path}"}])
            await done(job, await gateway.submit("behind"))
    asyncio.run(use())


def test_a_cancel_between_the_line_and_the_worker_is_heard(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            gateway.pool.free.clear()
            job, dispatcher = await gateway.submit(), gateway.service.dispatcher
            while dispatcher.handed_out == 0:
                await asyncio.sleep(0)
            assert not gateway.pool.attempts, "it has left the line, and no worker has it"
            gateway.service.cancel(job)
            await done(job)
            assert job.answer is not None and job.answer.status == 499
            gateway.pool.free.set()
            await done(await gateway.submit("after"))
    asyncio.run(use())


def test_a_video_that_the_disk_does_not_take_is_an_error_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(video: Arriving) -> None:
        raise OSError(28, "No space left on device")

    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            monkeypatch.setattr(Arriving, "finish", full)
            job = await gateway.submit()
            told = list[Job]()
            monkeypatch.setattr(gateway.service._messenger, "tell", told.append)
            await done(job)
            assert job.answer is not None and job.answer.status == 500 and job.video is None and told == [job]
            await until(lambda: gateway.service.dispatcher.workers["w"].job is None)
            assert gateway.service.answers == {500: 1}
    asyncio.run(use())


def test_nothing_of_a_forgotten_job_stays_in_memory(tmp_path: Path) -> None:
    async def use() -> None:
        async with running(tmp_path, "w", settings=ClusterSettings(kept_jobs=1)) as gateway:
            async def forgotten() -> "weakref.ref[Job]":
                job = await gateway.submit(preferences=Preferences(start_seconds=86400))
                await done(job, await gateway.submit("the only one that is kept"))
                await until(lambda: job.request_id not in gateway.service.store.jobs)
                return weakref.ref(job)

            there = await forgotten()
            await until(lambda: gc.collect() >= 0 and there() is None)
    asyncio.run(use())


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_names_are_on_the_disk_as_the_content_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut right after an answer may take what was renamed and whose folder was not synced."""
    synced, real = list[tuple[str, set[str]]](), os.fsync

    def fsync(file: int) -> None:
        real(file)
        place = Path(f"/proc/self/fd/{file}").readlink()
        synced.append((place.name, {entry.suffix for entry in place.iterdir()} if place.is_dir() else set()))

    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            monkeypatch.setattr(os, "fsync", fsync)
            job = await gateway.submit()
            assert synced and synced[-1][0] == "requests" and ".json" in synced[-1][1]
            await done(job)
            assert any(name == "videos" and ".mp4" in suffixes for name, suffixes in synced) and synced[-1][0] == "requests"
    asyncio.run(use())


def test_a_folder_among_the_videos_keeps_no_gateway_from_starting(tmp_path: Path) -> None:
    """Such as lost+found, where the videos have a disk of their own."""
    (tmp_path / "videos" / "lost+found").mkdir(parents=True)

    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            await done(await gateway.submit())
    asyncio.run(use())


def test_a_video_that_cannot_be_deleted_does_not_end_the_deleting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted")

    async def use() -> None:
        async with running(tmp_path, "w") as gateway:
            jobs = [await gateway.submit(str(number), preferences=Preferences(video_seconds=0.01)) for number in range(2)]
            await done(*jobs)
            await until(lambda: len(gateway.service.videos) == 2)
            await asyncio.sleep(0.02)
            with monkeypatch.context() as disk:
                disk.setattr(Path, "unlink", unlink)
                assert [gateway.service.videos.path(job.request_id) for job in jobs] == [None, None]
    asyncio.run(use())
