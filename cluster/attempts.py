"""What passes between the gateway and a worker: one try at a job, and what is told of it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from nodes.api.jobs.job import Answer


class WorkerLost(Exception):
    """The worker ended under its attempt: its process, its ComfyUI, its host or the way to it. Another one may try."""


@dataclass(frozen=True)
class Attempt:
    """One try at a job. `lease` names the try: a later one of the same job has another, also after the gateway's restart. `request` is the body
    that the API takes, `headers` the caller's wishes in fal's headers, `files` the uploads that `request` names as paths: address and file here."""

    request_id: str
    lease: str
    request: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Begun:
    """Its ComfyUI computes now."""


@dataclass(frozen=True)
class LogLine:
    """A line of the job's log, as its client sees it."""

    message: str
    level: str = "INFO"
    source: str = "wan22"


@dataclass(frozen=True)
class Picture:
    """The clip so far, as the data URL of a small picture that moves."""

    content: str


@dataclass(frozen=True)
class Piece:
    """The next bytes of the video."""

    content: bytes


@dataclass(frozen=True)
class Ended:
    """The answer of its ComfyUI; of a good one all pieces have come before it."""

    answer: Answer


Event = Begun | LogLine | Picture | Piece | Ended


@dataclass(frozen=True)
class Introduction:
    """What a worker says of itself once its ComfyUI answers. `process` tells two lives of one worker apart; `version` is the pack's in its ComfyUI,
    `own_version` the pack's whose worker this is; `lacks` says what it cannot do."""

    host: str
    gpu: str
    process: str
    version: str
    own_version: str
    comfyui: str = ""
    loras: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


class Pool(Protocol):
    """All workers: Ray's, or simulated ones. They appear at and vanish from a Dispatcher by themselves."""

    def run(self, worker: str, attempt: Attempt) -> AsyncIterator[Event]:
        """The events of an attempt on the worker of that name, the last one Ended. WorkerLost instead of an end."""

    async def cancel(self, worker: str, attempt: Attempt) -> None:
        """It is not wanted any more: its worker is free soon, and `run` ends."""
