"""Requests from submitted to completed: they move forward only, their failure is named, their log ends somewhere."""

import json

import pytest
from wan22.api import contract
from wan22.api.errors import ApiError, Cancelled, Detail, InvalidRequest
from wan22.api.jobs import job as jobs
from wan22.api.jobs.job import COMPLETED, IN_PROGRESS, Answer, Job


def test_a_job_moves_forward_only() -> None:
    job = Job("owner", 7)
    job.start()
    job.complete(Answer.of(Cancelled()))
    job.start()
    assert job.status == COMPLETED != IN_PROGRESS and job.failed
    assert job.answer is not None and json.dumps(job.answer.body)


@pytest.mark.parametrize(("error", "names"), [
    (Cancelled(), {"error": str(Cancelled()), "error_type": "client_cancelled"}),
    (InvalidRequest([Detail(("body", "x"), "no", "value_error")]), {"error": "no", "error_type": "value_error"})])
def test_a_status_names_the_failure(error: ApiError, names: dict[str, str]) -> None:
    job = Job("owner", 7)
    job.start()
    assert not {"error", "error_type"} & set(contract.body(contract.state(job, "", 0, with_logs=False)))
    job.complete(Answer.of(error))
    state = contract.body(contract.state(job, "", 0, with_logs=False))
    assert {name: state[name] for name in names} == names


def test_logs_end_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_LOG_LINES", 2)
    job = Job("owner", 7)
    for number in range(5):
        job.say(str(number))
    assert [line["message"] for line in job.logs] == ["0", "1"]
    assert set(job.logs[0]) == {"message", "level", "source", "timestamp"}


def test_random_seeds_are_exact_in_javascript() -> None:
    seeds = {jobs.random_seed() for _ in range(100)}
    assert len(seeds) == 100 and max(seeds) < 2**53
