"""What the cluster's owner sees of it: workers, queue, pace, failures and disk, and nothing that a client wrote but the names of its LoRAs."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from nodes.api.version import pack_version

from ..dispatch import Worker
from ..jobs import ClusterJob
from ..pace import FIVE_MINUTES, HOUR, Lately
from ..service import ClusterService

State = Literal["free", "busy", "leaving", "starting", "failed"]
STATES: tuple[State, ...] = get_args(State)
SHOWN_OF_AN_ID = 8  # letters: who knows all of it may have the video
PROGRESS = re.compile(r"([^:\n]{1,60}): (\d+) of (\d+)")


class Seat(Protocol):
    """A place for a worker, as the pool keeps it: `state` says in words why nobody is there, `failed` that somebody must do something."""

    @property
    def name(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def worker(self) -> Worker | None: ...

    @property
    def failed(self) -> bool: ...


@dataclass(frozen=True)
class WorkerView:
    """A worker. `says` is why it is not there, or what it cannot do; `loras` is None before its first job; `job` begins the id of what it makes;
    `doing` is the last line of that job's log, `fraction` the part of it that is done; `seconds` is how long it has been free or busy."""

    name: str
    host: str
    gpu: str
    state: State
    says: str = ""
    loras: tuple[str, ...] | None = None
    job: str | None = None
    attempt: int = 0
    doing: str = ""
    fraction: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class QueueView:
    """Jobs that wait, all and by priority, and for how many seconds the first of them has."""

    jobs: int
    limit: int
    by_priority: dict[int, int]
    oldest_seconds: float | None


@dataclass(frozen=True)
class VideosView:
    """The folder of videos: how many, and their bytes."""

    count: int
    bytes: int
    limit_bytes: int


@dataclass(frozen=True)
class Overview:
    """The cluster now. What is counted (`made`, `failures` by HTTP status, `workers_lost`, `handed_out`, `warm`) is since the gateway's start, which
    was `seconds` ago; `restart_seconds` is how long a rolling restart has run, None without one."""

    version: str
    seconds: float
    workers: tuple[WorkerView, ...]
    queue: QueueView
    last_5_minutes: Lately
    last_hour: Lately
    made: int
    failures: dict[int, int]
    workers_lost: int
    handed_out: int
    warm: int
    videos: VideosView
    restart_seconds: float | None = None


def overview(service: ClusterService, seats: Iterable[Seat], restart_seconds: float | None = None) -> Overview:
    """Takes as long as there are workers, however many jobs there are."""
    dispatcher, pace, videos = service.dispatcher, service.pace, service.videos
    return Overview(
        pack_version(), round(pace.age, 1), tuple(_worker(seat, service) for seat in seats), _queue(service),
        pace.lately(FIVE_MINUTES), pace.lately(HOUR),
        service.answers[200], {status: count for status, count in sorted(service.answers.items()) if status >= 400},
        service.lost, dispatcher.handed_out, dispatcher.warm,
        VideosView(len(videos), videos.total, videos.rules.max_bytes), restart_seconds)


def state_of(seat: Seat, service: ClusterService) -> State:
    worker = seat.worker
    if worker is None:
        return "failed" if seat.failed else "starting"
    if service.dispatcher.workers.get(seat.name) is not worker:
        return "starting"  # it was lost, and its pool will hear of it
    if worker.leaving:
        return "leaving"
    return "free" if worker.job is None else "busy"


def _worker(seat: Seat, service: ClusterService) -> WorkerView:
    state, worker = state_of(seat, service), seat.worker
    about = service.dispatcher.known.get(seat.name)
    host, gpu = (about.host, about.gpu) if about else ("", "")
    if worker is None or state == "starting":
        return WorkerView(seat.name, host, gpu, state, seat.state if worker is None else "was lost")
    loras = None if worker.stack is None else worker.shown
    job = service.store.jobs.get(worker.job or "")
    doing, fraction = _progress(job)
    return WorkerView(seat.name, host, gpu, state, " ".join(worker.about.lacks), loras, worker.job and worker.job[:SHOWN_OF_AN_ID],
                      job.attempts if job else 0, doing, fraction, round(time.monotonic() - worker.since, 1))


def _progress(job: ClusterJob | None) -> tuple[str, float | None]:
    """The last line of the log and the part that it tells of. Only a line that counts is shown: another could say what the client wrote."""
    match = PROGRESS.fullmatch(job.logs[-1]["message"]) if job is not None and job.logs else None
    if match is None:
        return "", None
    return match[0], min(1.0, int(match[2]) / max(1, int(match[3])))


def _queue(service: ClusterService) -> QueueView:
    groups = service.line.by_priority()
    oldest = round(max(0.0, time.time() - min(each.since for each in groups)), 1) if groups else None
    return QueueView(len(service.line), service.settings.max_queued, {each.priority: each.jobs for each in groups}, oldest)
