"""Processes of a cluster are killed at random while it works, and every accepted request is followed to its answer.

`python dev.py bench chaos [--jobs 200] [--every 4] [--seed 0]`: three workers; a table of what was ended and what came of the requests. The exit
status is 1 where a request was lost, answered in two ways, overtaken, or given to somebody else, or where a video is not the one that was ordered.
"""

import argparse
import asyncio
import importlib.util
import random
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from machines import ALICE, BOB, FAKE, REQUESTS, Machine  # noqa: E402

from nodes.api.contract import TextToVideoInput  # noqa: E402

KINDS = {"child": "a ComfyUI", "actor": "a worker's process", "gateway": "the gateway", "raylet": "a host's Ray", "gcs": "Ray's head"}
PATIENCE = 1800.0  # seconds
RAY, RAY_RESTS = ("raylet", "gcs"), 30.0  # seconds
RESULTS = {200: "a video", 422: "refused by a safety check", 499: "cancelled", 500: "failed by itself", 503: "two workers lost"}
HAND_OUT = re.compile(r"request (\S+) goes to \S+, attempt 1, in line since ([\d.]+)")


@dataclass
class Request:
    """What was ordered, and what came of it."""

    prompt: str
    key: str
    seed: int
    request_id: str = ""
    answers: list[tuple[int, Any]] = field(default_factory=list)
    video: bytes = b""

    def wrong(self) -> str:
        """What is wrong with it; empty where nothing is."""
        if len(self.answers) < 2:
            return "lost"
        (status, body), *others = self.answers
        if any(other != (status, body) for other in others):
            return "answered in two ways"
        if "fails" in self.prompt and status not in (500, 499, 503) or "unsafe" in self.prompt and status not in (422, 499, 503):
            return f"answered by {status}"
        if status == 200 and (body["seed"] != self.seed or self.video != expected(self)):
            return "another video"
        return "" if status in RESULTS else f"answered by {status}"


def expected(request: Request) -> bytes:
    spec = importlib.util.spec_from_file_location("fake", FAKE / "main.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(fake := importlib.util.module_from_spec(spec))
    return bytes(fake.video(TextToVideoInput.model_validate({"prompt": request.prompt, "seed": request.seed}), request.seed))


async def order(machine: Machine, number: int, seconds: float, chance: random.Random) -> list[Request]:
    """One after the other; a few fail by themselves, a few are cancelled a while later."""
    requests, cancels = [], []
    for index in range(number):
        kind = chance.choices(["", "it fails", "unsafe"], [18, 1, 1])[0]
        request = Request(f"{index} takes {seconds} {kind}", chance.choice([ALICE, BOB]), chance.randrange(2**32))
        request.request_id = await machine.submit(request.prompt, request.key, seed=request.seed)
        requests.append(request)
        if chance.random() < 0.05:
            cancels.append(asyncio.create_task(_cancel(machine, request, chance.random() * 10 * seconds)))
    await asyncio.gather(*cancels)
    return requests


async def _cancel(machine: Machine, request: Request, after: float) -> None:
    await asyncio.sleep(after)
    await machine.call("PUT", f"{REQUESTS}/{request.request_id}/cancel", request.key)


async def kill_at_random(machine: Machine, every: float, kinds: tuple[str, ...], chance: random.Random, killed: Counter[str]) -> None:
    """Each kind once, then any; Ray itself only when it has been up for a while, or it would never be."""
    first, rests_until = list(kinds), 0.0
    while True:
        await asyncio.sleep(every * (0.5 + chance.random()))
        choice = [kind for kind in first or kinds if kind not in RAY or time.monotonic() > rests_until]
        if not choice:
            continue
        kind = choice[0] if first else chance.choice(choice)
        if machine.kill(kind, chance.randrange(100)):
            killed[kind] += 1
            rests_until = time.monotonic() + RAY_RESTS if kind in RAY else rests_until
            if kind in first:
                first.remove(kind)


async def follow(machine: Machine, request: Request) -> None:
    request.answers.append(await machine.complete(request.request_id, request.key, PATIENCE))
    status, body = request.answers[0]
    if status == 200:
        request.video = await machine.video(body["video"]["url"])


def overtaken(log: str) -> int:
    """How many first attempts began after one of a later request, within the life of a gateway."""
    wrong, newest = 0, 0.0
    for line in log.splitlines():
        if "takes requests" in line:
            newest = 0.0
        elif match := HAND_OUT.search(line):
            wrong += float(match[2]) < newest
            newest = max(newest, float(match[2]))
    return wrong


@dataclass
class Outcome:
    requests: list[Request]
    killed: Counter[str]
    overtaken: int
    strangers: int
    seconds: float

    @property
    def wrong(self) -> Counter[str]:
        counts = Counter(request.wrong() for request in self.requests)
        counts.update({"overtaken": self.overtaken, "given to somebody else": self.strangers})
        return +Counter({what: count for what, count in counts.items() if what})

    def table(self) -> str:
        answers = Counter(request.answers[0][0] for request in self.requests if request.answers)
        rows = [("accepted requests", len(self.requests)), *((f"killed: {KINDS[kind]}", count) for kind, count in self.killed.items()),
                *((f"answered: {RESULTS.get(status, status)}", count) for status, count in sorted(answers.items())),
                *((f"WRONG: {what}", count) for what, count in self.wrong.items()),
                ("lost, answered twice, overtaken, given to somebody else", sum(self.wrong.values())), ("seconds", round(self.seconds))]
        return "\n".join(f"| {what} | {count} |" for what, count in [("what", "number"), ("---", "---"), *rows])


async def chaos(folder: Path, jobs: int, seconds: float, every: float, kinds: tuple[str, ...] = tuple(KINDS), seed: int = 0) -> Outcome:
    chance, killed, begin = random.Random(seed), Counter[str](), time.monotonic()
    async with Machine(folder, 3, {"keys": [ALICE, BOB], "max_waiting": 10_000}).running() as machine:
        await machine.complete(await machine.submit("first", ALICE), ALICE)
        killer = asyncio.create_task(kill_at_random(machine, every, kinds, chance, killed))
        requests = await order(machine, jobs, seconds, random.Random(seed + 1))
        await asyncio.gather(*(follow(machine, request) for request in requests))
        killer.cancel()
        strangers = 0
        for request in requests:
            request.answers.append(await machine.complete(request.request_id, request.key, PATIENCE))
            strangers += (await machine.call("GET", f"{REQUESTS}/{request.request_id}", BOB if request.key == ALICE else ALICE))[0] != 404
        return Outcome(requests, killed, overtaken(machine.said()), strangers, time.monotonic() - begin)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a job takes")
    parser.add_argument("--every", type=float, default=4.0, help="seconds, on the average, between two kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the gateway's state and log")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(chaos(options.keep or Path(folder), options.jobs, options.seconds, options.every, seed=options.seed))
    print(outcome.table())
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
