"""Jobs outlive the server in their folder, and of those that are complete the oldest go."""

import asyncio
import gc
import json
import os
import random
import threading
from pathlib import Path

import pytest
from wan22.api.errors import ApiError, Cancelled, ContentPolicyViolation, Detail, InternalError, InvalidRequest, ModelsMissing
from wan22.api.headers import Preferences
from wan22.api.jobs import store as job_store
from wan22.api.jobs.job import Answer, Job
from wan22.api.jobs.store import JobStore


def keep(folder: Path, *jobs: Job) -> None:
    for job in jobs:
        asyncio.run(JobStore(folder).keep(job))


def restored(folder: Path) -> dict[str, Job]:
    store = JobStore(folder)
    store.restore()
    return store.jobs


def test_a_complete_job_comes_back_as_it_was(tmp_path: Path) -> None:
    job = Job("owner", 7, "https://example.com/hook")
    job.start()
    job.say("half of it")
    job.complete(Answer(200, {"seed": 7}))
    keep(tmp_path, job)
    (back,) = restored(tmp_path).values()
    assert back == job and back.done.is_set()
    assert not back.failed and back.metrics()["inference_time"] >= 0


def test_why_it_failed_comes_back(tmp_path: Path) -> None:
    job = Job("owner", 7)
    job.complete(Answer.of(Cancelled()))
    keep(tmp_path, job)
    (back,) = restored(tmp_path).values()
    assert back.answer == job.answer and back.answer is not None and back.answer.error_type == "client_cancelled"


@pytest.mark.parametrize("started", [False, True])
def test_an_unfinished_job_comes_back_without_an_answer(tmp_path: Path, started: bool) -> None:
    job = Job("owner", 7)
    if started:
        job.start()
    keep(tmp_path, job)
    back = restored(tmp_path)[job.request_id]
    assert back == job and back.answer is None and not back.done.is_set()


@pytest.mark.parametrize("content", ["", "{", "null", "[]", "{}", '{"request_id": "x"}'])
def test_a_damaged_file_costs_no_other(tmp_path: Path, content: str) -> None:
    job = Job("owner", 7)
    job.complete(Answer(200, {}))
    keep(tmp_path, job)
    (tmp_path / "4d0f6a3c-0000-4000-8000-000000000000.json").write_text(content)
    (tmp_path / f"{job.request_id}.abcd.part").write_text("half")
    assert list(restored(tmp_path)) == [job.request_id]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(("entry", "value"), [("started", "now"), ("finished", "x"), ("logs", {}), ("request_id", 3),
                                              ("video", []), ("answer", {"status": "x", "body": None}), ("answer", {}), ("status", None),
                                              ("seed", "a")])
def test_a_file_with_an_entry_of_another_type_costs_no_other(tmp_path: Path, entry: str, value: object) -> None:
    whole, damaged = Job("owner", 7), Job("owner", 8)
    keep(tmp_path, whole, damaged)
    file = tmp_path / f"{damaged.request_id}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), entry: value}))
    assert list(restored(tmp_path)) == [whole.request_id]


def test_only_the_servers_own_user_reads_a_job(tmp_path: Path) -> None:
    keep(tmp_path, Job("owner", 7, "https://example.com/secret"))
    (file,) = tmp_path.glob("*.json")
    assert os.name == "nt" or file.stat().st_mode & 0o077 == 0


def test_a_file_does_not_speak_for_another_request(tmp_path: Path) -> None:
    job = Job("owner", 7)
    keep(tmp_path, job)
    (tmp_path / f"{job.request_id}.json").rename(tmp_path / "4d0f6a3c-0000-4000-8000-000000000000.json")
    assert restored(tmp_path) == {}


@pytest.mark.parametrize("running", [False, True])
def test_the_oldest_are_forgotten_and_told(tmp_path: Path, running: bool) -> None:
    keep(tmp_path, *(Job("owner", number, finished=1.0 + number, answer=Answer(200, {})) for number in range(5)), Job("owner", 9))
    seeds: list[int] = []
    store = JobStore(tmp_path, 9 if running else 3, lambda job: seeds.append(job.seed))
    store.restore()
    if running:
        store._kept = 3
        store.forget_the_oldest()
    assert seeds == [0, 1]
    assert [job.seed for job in store.jobs.values()] == [2, 3, 4, 9]
    assert len(list(tmp_path.glob("*.json"))) == 4


@pytest.mark.parametrize("error", [None, ContentPolicyViolation("a secret"), ContentPolicyViolation("", "the prompt is about a secret"),
                                   InternalError("cannot read a secret"), ModelsMissing("a secret is no model"),
                                   InvalidRequest([Detail(("body", "x"), "no", "value_error", "a secret")]),
                                   InvalidRequest([Detail(("body", "x"), "no: a secret", "value_error", ctx={"error": "a secret"})])])
def test_of_a_private_job_no_text_is_on_the_disk(tmp_path: Path, error: ApiError | None) -> None:
    job = Job("owner", 7, preferences=Preferences(private=True))
    job.say("a secret")
    job.complete(Answer.of(error) if error else Answer(200, {"prompt": "a secret", "seed": 7, "video": {"url": "x"}}))
    keep(tmp_path, job)
    (file,) = tmp_path.glob("*.json")
    assert "a secret" not in file.read_text() and job.answer is not None
    (back,) = restored(tmp_path).values()
    assert back.answer is not None and back.answer.status == job.answer.status and back.answer.body.keys() == job.answer.body.keys()
    assert "a secret" in json.dumps(job.answer.body)
    if isinstance(error, InvalidRequest):
        named = [{name: detail[name] for name in ("loc", "type")} for answer in (back.answer, job.answer) for detail in answer.body["detail"]]
        assert named[0] == named[1]


def test_a_job_whose_webhook_waits_for_its_message_is_not_forgotten(tmp_path: Path) -> None:
    waits = Job("owner", 1, "https://example.com/hook", finished=1.0, answer=Answer(200, {}))
    keep(tmp_path, waits, *(Job("owner", number, finished=float(number), answer=Answer(200, {})) for number in (2, 3)))
    store = JobStore(tmp_path, 1)
    store.restore()
    assert [job.seed for job in store.jobs.values()] == [1, 3]
    waits = store.jobs[waits.request_id]
    waits.webhook = None
    asyncio.run(store.keep(waits))
    store.forget_the_oldest()
    assert [job.seed for job in store.jobs.values()] == [3]


def test_the_disk_is_not_waited_for_where_requests_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: threads.append(threading.get_ident()))
    keep(tmp_path, Job("owner", 7))
    assert threads and threading.get_ident() not in threads


def test_too_many_servers_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_store, "MOST_SERVERS", 2)
    servers = [JobStore.claimed(tmp_path) for _ in range(2)]
    with pytest.raises(OSError, match="2 servers"):
        JobStore.claimed(tmp_path)
    assert len(servers) == 2


def test_servers_that_share_a_user_folder_do_not_share_jobs(tmp_path: Path) -> None:
    first = JobStore.claimed(tmp_path)
    asyncio.run(first.keep(Job("owner", 7)))
    second, third = JobStore.claimed(tmp_path), JobStore.claimed(tmp_path)
    assert [store.folder.name for store in (first, second, third)] == ["requests", "requests_2", "requests_3"]
    assert not second.jobs
    del first
    gc.collect()
    assert len(JobStore.claimed(tmp_path).jobs) == 1


def test_what_is_counted_as_jobs_come_and_end_is_what_a_look_at_all_of_them_finds(tmp_path: Path) -> None:
    store: JobStore[Job] = JobStore(tmp_path, kept=4)
    chance = random.Random(7)

    async def live() -> None:
        for number in range(200):
            if chance.random() < 0.5 or not store.jobs:
                job = Job(chance.choice("abc"), number, chance.choice([None, "https://example.com/hook"]))
                store.add(job)
            else:
                job = chance.choice(list(store.jobs.values()))
                if job.answer is None:
                    job.complete(Answer(200, {}))
                elif chance.random() < 0.8:
                    job.webhook = None
                else:
                    store.forget(job)
                    continue
            await store.keep(job)
            store.forget_the_oldest()
            for owner in "abc":
                assert store.waiting(owner) == sum(job.owner == owner and job.answer is None for job in store.jobs.values())
            assert sum(job.answer is not None and not job.webhook for job in store.jobs.values()) <= 4

    asyncio.run(live())
    assert set(restored(tmp_path)) == set(store.jobs)
