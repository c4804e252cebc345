"""How much of their time workers work, how long one waits for its next job, and what memory all of it takes without any ComfyUI.

`python dev.py bench throughput [--seconds 8] [--rounds 4]`: real Ray, ComfyUIs that only wait for a fixed time.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from machines import Machine  # noqa: E402

PARTS = {"gateway": ("-m cluster gateway",),
         "Ray's head": ("ray start", "gcs_server", "raylet/raylet", "ray::Dashboard", "ray::RuntimeEnv", "dashboard.py"),
         "a worker, without its ComfyUI": ("ray::WorkerActor",), "the program that starts both": ("-m cluster up",)}


async def measure(folder: Path, workers: int, seconds: float, rounds: int) -> tuple[float, list[float]]:
    """The share of ideal, and of one worker the seconds between one job's end and the next one's start."""
    async with Machine(folder, workers).running() as machine:
        await asyncio.gather(*(machine.complete(request) for request in [await machine.submit("warm up takes 1") for _ in range(workers)]))
        while len(machine.processes("child")) < workers:
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)  # until all are introduced
        begin = time.monotonic()
        ids = [await machine.submit(f"{number} takes {seconds}") for number in range(rounds * workers)]
        await asyncio.gather(*(machine.complete(request) for request in ids))
        share = rounds * seconds / (time.monotonic() - begin)
        if workers == 1:
            print(memory(machine))
        records = sorted((json.loads((folder / "requests" / f"{request}.json").read_text()) for request in ids), key=lambda record: record["started"])
        gaps = [after["started"] - before["finished"] for before, after in zip(records, records[1:], strict=False)]
        return share, gaps if workers == 1 else []


def memory(machine: Machine) -> str:
    """Resident megabytes, from /proc."""
    rows = ["Memory, MB resident:\n", "| what | MB |", "| --- | ---: |"]
    for name, parts in PARTS.items():
        total = 0.0
        for process in machine.everything():
            line = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if any(part in line for part in parts) and "leash.py" not in line:
                status = Path(f"/proc/{process}/status").read_text()
                total += next(int(each.split()[1]) / 1024 for each in status.splitlines() if each.startswith("VmRSS"))
        rows.append(f"| {name} | {total:.0f} |")
    return "\n".join(rows) + "\n"


async def run(seconds: float, rounds: int) -> None:
    rows = ["| workers | share of ideal |", "| ---: | ---: |"]
    for workers in (1, 2, 3):
        with tempfile.TemporaryDirectory() as folder:
            share, gaps = await measure(Path(folder), workers, seconds, rounds)
        rows.append(f"| {workers} | {share:.3f} |")
        if gaps:
            print(f"From a job's end to the next one's start on one worker: median {statistics.median(gaps):.3f} s, longest {max(gaps):.3f} s.\n")
    print(f"Jobs of {seconds:g} s:\n\n" + "\n".join(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    asyncio.run(run(options.seconds, options.rounds))


if __name__ == "__main__":
    main()
