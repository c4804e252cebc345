"""Jobs outlive the server in their folder, and what was not complete then ends with an error."""

import json
from pathlib import Path

import pytest

from engine.api import jobs
from engine.api.errors import Cancelled
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
def test_an_unfinished_job_comes_back_with_an_error_and_stays_so(tmp_path: Path, started: bool) -> None:
    job = Job("owner", "a fox", 7)
    if started:
        job.start()
    JobFolder(tmp_path).keep(job)
    for _ in range(2):
        back = JobFolder(tmp_path).restored()[job.request_id]
        assert (back.status, back.answer.status, back.answer.body["error_type"]) == (COMPLETED, 500, "runner_disconnected")


@pytest.mark.parametrize("content", ["", "{", "null", "[]", "{}", '{"request_id": "x"}'])
def test_a_damaged_file_costs_no_other(tmp_path: Path, content: str) -> None:
    job = Job("owner", "a fox", 7)
    job.complete(Answer(200, {}))
    JobFolder(tmp_path).keep(job)
    (tmp_path / "4d0f6a3c-0000-4000-8000-000000000000.json").write_text(content)
    (tmp_path / f"{job.request_id}.abcd.part").write_text("half")
    assert list(JobFolder(tmp_path).restored()) == [job.request_id]
    assert not list(tmp_path.glob("*.part"))


def test_a_file_does_not_speak_for_another_request(tmp_path: Path) -> None:
    job = Job("owner", "a fox", 7)
    JobFolder(tmp_path).keep(job)
    (tmp_path / f"{job.request_id}.json").rename(tmp_path / "4d0f6a3c-0000-4000-8000-000000000000.json")
    assert JobFolder(tmp_path).restored() == {}


def test_the_oldest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "KEPT", 3)
    kept = [Job("owner", str(number), number, created=float(number)) for number in range(5)]
    for job in kept:
        JobFolder(tmp_path).keep(job)
    assert [job.seed for job in JobFolder(tmp_path).restored().values()] == [2, 3, 4]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_job_moves_forward_only() -> None:
    job = Job("owner", "a fox", 7)
    job.start()
    job.complete(Answer.of(Cancelled()))
    job.start()
    assert job.status == COMPLETED != IN_PROGRESS and job.failed
    assert json.dumps(job.answer.body)


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
