"""Whatever ends while a cluster works, an accepted request ends in one answer, its video is whole, and nobody is overtaken."""

import asyncio
from pathlib import Path

from bench_chaos import KINDS, chaos


def test_whatever_ends_no_accepted_request_is_lost(tmp_path: Path) -> None:
    outcome = asyncio.run(chaos(tmp_path, jobs=24, seconds=0.4, every=2.0, kinds=("child", "actor", "gateway", "gcs")))
    print(outcome.table())
    assert not outcome.wrong, outcome.table()
    assert set(outcome.killed) <= set(KINDS) and outcome.killed["child"] + outcome.killed["actor"] >= 1
