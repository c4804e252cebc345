"""Webhooks of jobs: each gets its message, signed, and is remembered in the job's record until it has it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from ...engine.fetch.rules import WebhookRules
from ...engine.fetch.signatures import Letter, Signer
from ...engine.fetch.webhooks import deliver
from ...engine.log import log
from .job import Answer, Job

KEY_FILE = "webhook_key"  # below user/__wan22
NOBODY = "local"  # whose a request is where there are no keys
MOST_MESSAGES = 1000  # of one owner that wait for their webhooks; then the oldest is given up


class Messenger:
    """Tells webhooks under `rules`; `keep` writes a job's record once its webhook needs no message any more. One per event loop."""

    def __init__(self, folder: Path, rules: WebhookRules, keep: Callable[[Job], Awaitable[None]]) -> None:
        self.signer = Signer(folder / KEY_FILE, log.warning)
        self._rules, self._keep = rules, keep
        self._messages: set[asyncio.Future[None]] = set()
        self._waiting: dict[str, dict[asyncio.Future[None], Job]] = {}  # by owner, the oldest first

    def tell(self, job: Job) -> None:
        """Send the webhook of a complete job its message, where it has one; what was not sent when the server stopped is told again after the next
        start."""
        if job.webhook and job.answer:
            task = asyncio.create_task(self._deliver(job, job.webhook, job.answer))
            self._waiting.setdefault(job.owner, {})[task] = job
            task.add_done_callback(lambda task: self._forget(task, job.owner))
            self._remember(task)
            self._limit(job.owner)

    def _remember(self, task: "asyncio.Future[None]") -> None:
        self._messages.add(task)
        task.add_done_callback(self._messages.discard)

    def _forget(self, task: "asyncio.Future[None]", owner: str) -> None:
        own = self._waiting.get(owner, {})
        own.pop(task, None)
        if not own:
            self._waiting.pop(owner, None)

    def _limit(self, owner: str) -> None:
        """A webhook that is down holds its jobs for two hours: of one owner they must not fill memory and disk."""
        own = self._waiting[owner]
        while len(own) > MOST_MESSAGES:
            task = next(iter(own))
            job = own.pop(task)
            log.warning("webhook: the message of request %s is given up, since %d newer ones wait", job.request_id, MOST_MESSAGES)
            job.webhook = None
            task.cancel()
            self._remember(asyncio.ensure_future(self._keep(job)))

    async def _deliver(self, job: Job, webhook: str, answer: Answer) -> None:
        letter = Letter(job.request_id, job.owner or NOBODY)
        await deliver(webhook, message(job, answer), self._rules, log.warning, signed=lambda body: self.signer.headers(letter, body, time.time()))
        job.webhook = None
        await self._keep(job)


def message(job: Job, answer: Answer) -> dict[str, object]:
    """The hosted service's."""
    told: dict[str, object] = {"request_id": job.request_id, "gateway_request_id": job.request_id,
                               "status": "ERROR" if job.failed else "OK", "payload": answer.body}
    return {**told, "error": f"Invalid status code: {answer.status}"} if job.failed else told
