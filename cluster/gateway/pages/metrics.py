"""The gateway's numbers for Prometheus: its jobs, its queue, its workers.

What machines do is not here but in Ray's own exporter, which each host has at `ray start --metrics-export-port` where `ray[default]` is
installed (`cluster/requirements.txt` has Ray without it): CPU, memory, disk and GPU (`ray_node_cpu_utilization`, `ray_node_mem_used`,
`ray_node_gpus_utilization`), and the counts of actors and tasks (`ray_actors`, `ray_tasks`). Ray knows nothing of jobs, their order and answers.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ..pace import BOUNDS
from ..service import ClusterService
from .overview import STATES, Seat, state_of

PRIORITIES = (0, -1)


def registry(service: ClusterService, seats: Callable[[], Iterable[Seat]]) -> CollectorRegistry:
    """One of this gateway only: it reads the service when it is asked, and keeps nothing itself."""
    own = CollectorRegistry()
    own.register(Collector(service, seats))
    return own


class Collector:
    """What `prometheus_client` asks at each scrape."""

    def __init__(self, service: ClusterService, seats: Callable[[], Iterable[Seat]]) -> None:
        self._service, self._seats = service, seats

    def collect(self) -> Iterator[Metric]:
        yield from self._jobs()
        yield from self._queue()
        yield self._workers()
        yield from self._counts()

    def _jobs(self) -> Iterator[Metric]:
        answers, pace = self._service.answers, self._service.pace
        jobs = CounterMetricFamily("wan22_jobs", "Jobs that are complete, by the HTTP status of their answer.", labels=["status"])
        for status in sorted({200, *answers}):
            jobs.add_metric([str(status)], answers[status])
        yield jobs
        bounds = [*map(str, BOUNDS), "+Inf"]
        yield HistogramMetricFamily("wan22_job_seconds", "Seconds on the worker of each job with a video.",
                                    buckets=list(zip(bounds, accumulate(pace.buckets), strict=True)), sum_value=pace.seconds)

    def _queue(self) -> Iterator[Metric]:
        count = {each.priority: each.jobs for each in self._service.line.by_priority()}
        queue = GaugeMetricFamily("wan22_queue_jobs", "Jobs that wait for a worker, by priority.", labels=["priority"])
        for priority in sorted({*PRIORITIES, *count}, reverse=True):
            queue.add_metric([str(priority)], count.get(priority, 0))
        yield queue
        yield GaugeMetricFamily("wan22_queue_limit_jobs", "Jobs that may wait: max_queued.", self._service.settings.max_queued)

    def _workers(self) -> Metric:
        count = Counter(state_of(seat, self._service) for seat in self._seats())
        workers = GaugeMetricFamily("wan22_workers", "Workers, by state.", labels=["state"])
        for state in STATES:
            workers.add_metric([state], count[state])
        return workers

    def _counts(self) -> Iterator[Metric]:
        service, dispatcher, videos = self._service, self._service.dispatcher, self._service.videos
        yield CounterMetricFamily("wan22_workers_lost", "Workers that ended under a job.", service.lost)
        yield CounterMetricFamily("wan22_handed_out_jobs", "Jobs that a worker got, again after a loss.", dispatcher.handed_out)
        yield CounterMetricFamily("wan22_warm_jobs", "Those whose worker had their LoRAs loaded.", dispatcher.warm)
        yield GaugeMetricFamily("wan22_videos_bytes", "Size of all videos that are kept.", videos.total)
        yield GaugeMetricFamily("wan22_videos_limit_bytes", "Size that they may have: results.max_bytes.", videos.rules.max_bytes)
