"""What the queue says of a job, in fal's words: where its addresses are, how far it is, what became of a cancellation."""

from typing import Any

from .jobs import COMPLETED, IN_QUEUE, Job
from .schema import APP

REQUESTS = f"/queue/{APP}/requests"
CANCELLATION_REQUESTED, ALREADY_COMPLETED, NOT_FOUND = "CANCELLATION_REQUESTED", "ALREADY_COMPLETED", "NOT_FOUND"
Body = dict[str, Any]


def submitted(job: Job, base_url: str, queue_position: int) -> Body:
    """A new job, which waits behind `queue_position` others."""
    return {"status": IN_QUEUE, **_addresses(job, base_url), "queue_position": queue_position}


def state(job: Job, base_url: str, queue_position: int, with_logs: bool, first_line: int = 0) -> Body:
    """How far the job is, with its log from `first_line` on where that is wanted; of a failed one also why."""
    if job.status == IN_QUEUE:
        return submitted(job, base_url, queue_position)
    logs = job.logs[first_line:] if with_logs else []
    more = {"metrics": job.metrics(), **job.failure()} if job.status == COMPLETED else {}
    return {"status": job.status, **_addresses(job, base_url), "logs": logs, **more}


def cancellation(outcome: str) -> Body:
    return {"status": outcome}


def _addresses(job: Job, base_url: str) -> Body:
    url = f"{base_url}{REQUESTS}/{job.request_id}"
    return {"request_id": job.request_id, "response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}
