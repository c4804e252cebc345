"""Requests from submitted to completed: they move forward only, their failure is named, their log ends somewhere."""

import asyncio
import json

import pytest
from wan22.api import contract, jobs
from wan22.api.errors import ApiError, Cancelled, Detail, InvalidRequest
from wan22.api.jobs import COMPLETED, IN_PROGRESS, Answer, Job, Repeats


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


def test_the_time_to_come_back_counts_from_the_last_caller_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "REPEAT_SECONDS", 0.4)
    cancelled: list[float] = []

    async def use() -> None:
        repeats, job, clock = Repeats(), Job("", 1), asyncio.get_running_loop().time

        async def start() -> Job:
            return job

        async def call(begin: float, end: float) -> None:
            await asyncio.sleep(begin)
            with pytest.raises(Cancelled):
                async with repeats.job("x", start, lambda job: cancelled.append(clock())):
                    await asyncio.sleep(end - begin)
                    raise Cancelled

        await asyncio.gather(call(0, 0), call(0.05, 0.3))
        left = clock()
        await asyncio.sleep(0.2)
        assert not cancelled, "the first one's time is over"
        await asyncio.sleep(0.4)
        assert len(cancelled) == 1 and cancelled[0] - left >= 0.3 and not repeats._shared

    asyncio.run(use())


@pytest.mark.parametrize("starts", [0.0, 0.15], ids=["while it waits", "while the job is begun"])
def test_a_handler_that_is_cancelled_leaves_no_job_behind(monkeypatch: pytest.MonkeyPatch, starts: float) -> None:
    monkeypatch.setattr(jobs, "REPEAT_SECONDS", 0.05)

    async def use() -> None:
        repeats, job, cancelled = Repeats(), Job("", 1), list[Job]()

        async def start() -> Job:
            await asyncio.sleep(starts)
            return job

        async def call() -> None:
            async with repeats.job("x", start, cancelled.append):
                await asyncio.sleep(60)

        task = asyncio.create_task(call())
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.3)
        assert cancelled == [job] and not repeats._shared

    asyncio.run(use())
