"""The gateway's numbers for Prometheus agree with what happened, in both of its formats, and belong to one gateway only."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import prometheus_client
from gateways import until
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from scripted import VIDEO, Gateway, gateway

from cluster.attempts import Begun, Ended, WorkerLost
from cluster.gateway.pages.overview import STATES
from nodes.api.errors import InternalError
from nodes.api.jobs.job import Answer

OPEN = "application/openmetrics-text; version=1.0.0"


def values(text: str, parse: Callable[[str], Iterable[prometheus_client.Metric]] = text_string_to_metric_families) -> dict[str, float]:
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for family in parse(text) for sample in family.samples}


async def _some_jobs(cluster: Gateway) -> None:
    """A video, an error, a lost worker whose job waits again, and one that waits behind it."""
    for low in (False, False, False, True):
        await cluster.submit("x", low=low)
    cluster.pool.make_video("worker_1")
    cluster.pool.tell("worker_1", Begun(), Ended(Answer.of(InternalError("it failed"))), Begun(), WorkerLost("gone"))
    await until(lambda: cluster.service.lost == 1 and len(cluster.service.line) == 2)


def test_the_numbers_are_what_happened(tmp_path: Path) -> None:
    async def run() -> None:
        async with gateway(tmp_path, workers=1) as cluster:
            assert values(await cluster.metrics())["wan22_workers free"] == 1
            await _some_jobs(cluster)
            now = values(await cluster.metrics())
            assert (now["wan22_jobs_total 200"], now["wan22_jobs_total 500"], now["wan22_workers_lost_total"]) == (1, 1, 1)
            assert (now["wan22_handed_out_jobs_total"], now["wan22_warm_jobs_total"]) == (3, 2)
            assert (now["wan22_queue_jobs 0"], now["wan22_queue_jobs -1"]) == (1, 1)
            assert (now["wan22_videos_bytes"], now["wan22_job_seconds_count"], now["wan22_job_seconds_bucket +Inf"]) == (len(VIDEO), 1, 1)
            assert [now[f"wan22_workers {state}"] for state in STATES] == [float(state == "starting") for state in STATES]

    asyncio.run(run())


def test_every_number_is_there_before_anything_happens(tmp_path: Path) -> None:
    async def run() -> None:
        async with gateway(tmp_path) as cluster:
            before = values(await cluster.metrics())
            cluster.pool.add(cluster.service.dispatcher, "worker_1")
            await _some_jobs(cluster)
            assert set(values(await cluster.metrics())) - set(before) == {"wan22_jobs_total 500"}

    asyncio.run(run())


def test_prometheus_reads_both_formats(tmp_path: Path) -> None:
    async def run() -> None:
        async with gateway(tmp_path, workers=1) as cluster:
            await _some_jobs(cluster)
            async with cluster.client.get("/metrics", headers={"Accept": OPEN}) as reply:
                assert reply.content_type == "application/openmetrics-text"
                exact = values(await reply.text(), open_metrics)
            assert exact == values(await cluster.metrics())

    asyncio.run(run())


def test_two_gateways_of_one_process_have_numbers_of_their_own(tmp_path: Path) -> None:
    async def run() -> None:
        async with gateway(tmp_path / "one", workers=1) as one, gateway(tmp_path / "two", workers=3) as two:
            await _some_jobs(one)
            assert values(await two.metrics())["wan22_jobs_total 200"] == 0
            assert values(await two.metrics())["wan22_workers free"] == 3
        assert "wan22" not in prometheus_client.generate_latest().decode(), "nothing is in the registry of the process"

    asyncio.run(run())
