"""Jobs outlive the server in their folder, and what was not complete then ends with an error."""

import gc
import json
import os
from pathlib import Path

import pytest

from engine.api import jobs
from engine.api.errors import ApiError, Cancelled, Detail, InvalidRequest
from engine.api.jobs import COMPLETED, IN_PROGRESS, Answer, Job, JobFolder


def test_a_complete_job_comes_back_as_it_was(tmp_path: Path) -> None:
    job = Job("owner", "a fox", 7, "https://example.com/hook")
    job.start()
    job.say("half of it")
    job.complete(Answer(200, {"seed": 7}))
    JobFolder(tmp_path).keep(job)
    (back,) = JobFolder(tmp_path).restored().values()
    assert back == job and back.done.is_set()
    assert not back.failed and back.metrics()["inference_time"] >= 0


@pytest.mark.parametrize("started", [False, True])
def test_an_unfinished_job_comes_back_without_an_answer(tmp_path: Path, started: bool) -> None:
    job = Job("owner", "a fox", 7)
    if started:
        job.start()
    JobFolder(tmp_path).keep(job)
    back = JobFolder(tmp_path).restored()[job.request_id]
    assert back == job and back.answer is None and not back.done.is_set()


@pytest.mark.parametrize("content", ["", "{", "null", "[]", "{}", '{"request_id": "x"}'])
def test_a_damaged_file_costs_no_other(tmp_path: Path, content: str) -> None:
    job = Job("owner", "a fox", 7)
    job.complete(Answer(200, {}))
    JobFolder(tmp_path).keep(job)
    (tmp_path / "4d0f6a3c-0000-4000-8000-000000000000.json").write_text(content)
    (tmp_path / f"{job.request_id}.abcd.part").write_text("half")
    assert list(JobFolder(tmp_path).restored()) == [job.request_id]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(("entry", "value"), [("created", None), ("created", "now"), ("finished", "x"), ("logs", {}), ("request_id", 3),
                                              ("prompt", []), ("answer", {"status": "x", "body": None}), ("answer", {}), ("status", None),
                                              ("seed", "a")])
def test_a_file_with_an_entry_of_another_type_costs_no_other(tmp_path: Path, entry: str, value: object) -> None:
    whole, damaged = Job("owner", "a fox", 7), Job("owner", "a fox", 8)
    for job in (whole, damaged):
        JobFolder(tmp_path).keep(job)
    file = tmp_path / f"{damaged.request_id}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), entry: value}))
    assert list(JobFolder(tmp_path).restored()) == [whole.request_id]


def test_only_the_servers_own_user_reads_a_job(tmp_path: Path) -> None:
    JobFolder(tmp_path).keep(Job("owner", "a fox", 7, "https://example.com/secret"))
    (file,) = tmp_path.iterdir()
    assert os.name == "nt" or file.stat().st_mode & 0o077 == 0


def test_a_file_does_not_speak_for_another_request(tmp_path: Path) -> None:
    job = Job("owner", "a fox", 7)
    JobFolder(tmp_path).keep(job)
    (tmp_path / f"{job.request_id}.json").rename(tmp_path / "4d0f6a3c-0000-4000-8000-000000000000.json")
    assert JobFolder(tmp_path).restored() == {}


def test_the_oldest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "KEPT", 3)
    kept = [Job("owner", str(number), number, created=9.0 - number, finished=1.0 + number) for number in range(5)]
    for job in kept:
        JobFolder(tmp_path).keep(job)
    assert [job.seed for job in JobFolder(tmp_path).restored().values()] == [2, 3, 4]
    assert len(list(tmp_path.iterdir())) == 3


def test_servers_that_share_a_user_folder_do_not_share_jobs(tmp_path: Path) -> None:
    first = JobFolder.claimed(tmp_path)
    first.keep(Job("owner", "a fox", 7))
    second, third = JobFolder.claimed(tmp_path), JobFolder.claimed(tmp_path)
    assert [folder.folder.name for folder in (first, second, third)] == ["requests", "requests_2", "requests_3"]
    assert len(first.restored()) == 1 and not second.restored()
    del first
    gc.collect()
    assert len(JobFolder.claimed(tmp_path).restored()) == 1


def test_a_job_moves_forward_only() -> None:
    job = Job("owner", "a fox", 7)
    job.start()
    job.complete(Answer.of(Cancelled()))
    job.start()
    assert job.status == COMPLETED != IN_PROGRESS and job.failed
    assert job.answer is not None and json.dumps(job.answer.body)


@pytest.mark.parametrize(("error", "said"), [
    (Cancelled(), {"error": str(Cancelled()), "error_type": "client_cancelled"}),
    (InvalidRequest([Detail(("body", "x"), "no", "value_error")]), {"error": "no", "error_type": "value_error"})])
def test_a_status_names_the_failure(error: ApiError, said: dict[str, str]) -> None:
    job = Job("owner", "a fox", 7)
    assert job.failure() == {}
    job.complete(Answer.of(error))
    assert job.failure() == said


def test_logs_end_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_LOG_LINES", 2)
    job = Job("owner", "a fox", 7)
    for number in range(5):
        job.say(str(number))
    assert [line["message"] for line in job.logs] == ["0", "1"]
    assert set(job.logs[0]) == {"message", "level", "source", "timestamp"}


def test_random_seeds_are_exact_in_javascript() -> None:
    seeds = {jobs.random_seed() for _ in range(100)}
    assert len(seeds) == 100 and max(seeds) < 2**53
