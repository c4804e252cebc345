"""Webhooks that take no message hold a limited number of jobs, and the newest are told."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from wan22.api.jobs import messenger
from wan22.api.jobs.job import Answer, Job
from wan22.engine.fetch.rules import WebhookRules


def test_beyond_the_messages_that_may_wait_the_oldest_of_its_owner_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messenger, "MOST_MESSAGES", 2)
    taken, kept = asyncio.Event(), list[int]()

    async def deliver(*_: Any, **__: Any) -> bool:
        return await taken.wait()

    async def keep(job: Job) -> None:
        kept.append(job.seed)

    async def use() -> None:
        tells = messenger.Messenger(tmp_path, WebhookRules(), keep)
        jobs = [Job(owner, seed, "https://example.com/hook", answer=Answer(200, {})) for seed, owner in enumerate("baaaa")]
        for job in jobs:
            tells.tell(job)
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert [bool(job.webhook) for job in jobs] == [True, False, False, True, True] and kept == [1, 2]
        taken.set()
        await asyncio.sleep(0.01)
        assert sorted(kept) == [0, 1, 2, 3, 4] and not tells._messages

    monkeypatch.setattr(messenger, "deliver", deliver)
    asyncio.run(use())
