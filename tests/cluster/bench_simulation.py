"""A gateway before a hundred simulated workers: what a request costs where ten thousand wait, and how often a job meets a warm worker.

`python dev.py bench simulation [--queued 100 1000 10000]`: a real gateway on a port, with its files on the disk; workers that only wait. Times are
those of a client in another process.
"""

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

import aiohttp  # noqa: E402
from simulated import SimulatedPool  # noqa: E402

from cluster.gateway.dispatch import Dispatcher, Needs, Worker  # noqa: E402
from cluster.gateway.server import listening, served  # noqa: E402
from cluster.gateway.service import ClusterService  # noqa: E402
from cluster.settings import ClusterSettings  # noqa: E402
from nodes.api.contract import APP, SUBMIT  # noqa: E402

WORKERS = 100
REQUESTS = f"/queue/{APP}/requests"
AT_ONCE = 8
SAMPLES = 100


async def serve(folder: Path) -> None:
    """The gateway: prints its port, and runs until its standard input ends."""
    settings = ClusterSettings(max_waiting=10_000, max_queued=1_000_000, keys=tuple(f"key-number-{number:06}" for number in range(4)))
    pool = SimulatedPool(seconds=3600)
    service = ClusterService(folder, settings, pool)
    pool.join(service.dispatcher, *(f"worker_{number}" for number in range(WORKERS)))
    with contextlib.closing(listening("127.0.0.1", 0)) as door:
        async with served(service, door, ()):
            print(door.getsockname()[1], flush=True)
            await asyncio.to_thread(sys.stdin.read)


def memory(process: int) -> float:
    """Resident MB."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


class Client:
    """Of a gateway with `queued` requests."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session, self.ids, self.queued = session, list[tuple[str, dict[str, str]]](), 0

    async def submit(self) -> None:
        self.queued += 1
        headers = {"Authorization": f"Key key-number-{self.queued % 4:06}"}
        loras = [{"path": "style.safetensors", "scale": self.queued % 4}]
        async with self.session.post(SUBMIT, json={"prompt": f"number {self.queued}", "loras": loras}, headers=headers) as answer:
            self.ids.append(((await answer.json())["request_id"], headers))

    async def fill(self, queued: int) -> None:
        async def some(number: int) -> None:
            for _ in range(number):
                await self.submit()
        missing = queued + WORKERS - self.queued
        await asyncio.gather(*(some(missing // AT_ONCE) for _ in range(AT_ONCE)))

    async def status(self) -> None:
        request_id, headers = random.choice(self.ids)
        async with self.session.get(f"{REQUESTS}/{request_id}/status?logs=1", headers=headers) as answer:
            assert answer.status == 202, await answer.text()

    async def stream(self) -> None:
        """To its first event."""
        request_id, headers = random.choice(self.ids)
        async with self.session.get(f"{REQUESTS}/{request_id}/status/stream", headers=headers) as answer:
            assert (await answer.content.readline()).startswith(b"data: ")

    async def cancel(self) -> None:
        request_id, headers = self.ids.pop()
        async with self.session.put(f"{REQUESTS}/{request_id}/cancel", headers=headers) as answer:
            assert answer.status == 202, await answer.text()

    async def milliseconds(self, call: Callable[[], Awaitable[None]]) -> str:
        """Median and worst of SAMPLES calls, one after the other."""
        times = []
        for _ in range(SAMPLES):
            begin = time.perf_counter()
            await call()
            times.append(1000 * (time.perf_counter() - begin))
        return f"{statistics.median(times):.1f} ({max(times):.1f})"


async def measure(folder: Path, numbers: list[int]) -> None:
    server = await asyncio.create_subprocess_exec(sys.executable, __file__, "--serve", str(folder), stdin=asyncio.subprocess.PIPE,
                                                  stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None and server.stdin is not None
    port = int(await server.stdout.readline())
    print(f"{WORKERS} workers. Milliseconds: median (worst) of {SAMPLES} calls, one after the other; a submission has its file on the disk.\n")
    print("| jobs that wait | submission | status | first event | cancel | gateway, MB |\n| ---: | ---: | ---: | ---: | ---: | ---: |")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=aiohttp.ClientTimeout(total=300)) as session:
        client = Client(session)
        for queued in numbers:
            await client.fill(queued)
            times = [await client.milliseconds(call) for call in (client.submit, client.status, client.stream, client.cancel)]
            print(f"| {queued} | {' | '.join(times)} | {memory(server.pid):.0f} |", flush=True)
    server.stdin.close()
    await server.wait()


class RandomPlacement(Dispatcher):
    """What the gateway's choice is measured against."""

    def _worker_for(self, needs: Needs) -> Worker | None:
        free = [worker for worker in self.workers.values() if worker.job is None]
        return random.choice(free) if free else None


async def warm_hits(kind: type[Dispatcher], load: float, jobs: int = 400, workers: int = 8, stacks: int = 4, seconds: float = 0.05) -> float:
    """The share of jobs on a worker that had their stack, with arrivals at random that keep `load` of the workers busy."""
    from cluster.gateway.line import WaitingLine
    chance, line = random.Random(0), WaitingLine()
    needs = [Needs(str(chance.randrange(stacks))) for _ in range(jobs)]

    async def start(request_id: str, worker: Worker) -> None:
        await asyncio.sleep(seconds)

    dispatcher = kind(line, lambda request_id: needs[int(request_id)], start)
    SimulatedPool().join(dispatcher, *(f"worker_{number}" for number in range(workers)))
    task = asyncio.create_task(dispatcher.run())
    for number in range(jobs):
        await asyncio.sleep(chance.expovariate(load * workers / seconds))
        line.join(str(number), 0, number)
        dispatcher.look()
    while dispatcher.handed_out < jobs:
        await asyncio.sleep(seconds)
    task.cancel()
    return dispatcher.warm / jobs


async def compare() -> None:
    print("\nShare of jobs on a warm worker; 8 workers, 4 LoRA stacks, arrivals at random:\n")
    print("| workers busy | the gateway | at random |\n| ---: | ---: | ---: |")
    for load in (0.3, 0.5, 0.7, 0.9):
        print(f"| {load:.0%} | {await warm_hits(Dispatcher, load):.2f} | {await warm_hits(RandomPlacement, load):.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queued", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), options.queued))
    asyncio.run(compare())


if __name__ == "__main__":
    main()
