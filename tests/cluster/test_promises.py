"""What a cluster promises, on Ray and ComfyUIs that only speak: files that were sent to the gateway reach the worker, a cancel frees it, and a
rolling restart loses nothing."""

import asyncio
import json
import struct
import time
from pathlib import Path

from machines import REQUESTS, Machine

SOON = 60.0


def lora() -> bytes:
    """The smallest safetensors file that is one."""
    header = json.dumps({"blocks.0.lora_A.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


async def ready(machine: Machine, workers: int) -> None:
    end = time.monotonic() + 2 * SOON
    while [seat["state"] for seat in (await machine.call("GET", "/cluster"))[1]["workers"]] != ["free"] * workers:
        assert time.monotonic() < end, machine.said()[-2000:]
        await asyncio.sleep(0.1)


async def sent(machine: Machine, content: bytes) -> str:
    """The address of a file that a client uploads."""
    _, place = await machine.call("POST", "/fal/storage/upload/initiate", json={"file_name": "style.safetensors"})
    async with machine.session.put(place["upload_url"], data=content) as answer:
        assert answer.status == 200
    return str(place["file_url"])


async def a_file_that_was_sent_reaches_the_worker(machine: Machine) -> None:
    address = await sent(machine, lora())
    for _ in range(2):
        status, body = await machine.complete(await machine.submit("a fox", loras=[{"path": address}]))
        assert status == 200 and body["prompt"] == f"a fox with {[lora().hex()]}"


async def a_cancel_frees_the_worker(machine: Machine) -> None:
    running = [await machine.submit("takes 600") for _ in range(2)]
    waiting = await machine.submit("takes 600")
    for request in running:
        while (await machine.state(request))["status"] != "IN_PROGRESS":
            await asyncio.sleep(0.05)
    for request in (waiting, *running):
        assert (await machine.call("PUT", f"{REQUESTS}/{request}/cancel"))[0] == 202
        assert (await machine.complete(request, seconds=SOON))[0] == 499
    assert (await machine.complete(await machine.submit("after"), seconds=SOON))[0] == 200


async def a_rolling_restart_loses_nothing(machine: Machine) -> None:
    before = machine.processes("actor")
    jobs = [await machine.submit(f"{number} takes 1.5") for number in range(6)]
    assert (await machine.call("POST", "/cluster/restart"))[0] == 202
    assert [(await machine.complete(job))[0] for job in jobs] == [200] * 6
    while set(before) & set(machine.processes("actor")):
        await asyncio.sleep(0.2)
    await ready(machine, len(before))
    assert "was lost" not in machine.said(), "a restart is no strike"


def test_a_cluster_keeps_its_promises(tmp_path: Path) -> None:
    async def use() -> None:
        async with Machine(tmp_path, 2).running() as machine:
            await machine.complete(await machine.submit("first"))
            await ready(machine, 2)
            await a_file_that_was_sent_reaches_the_worker(machine)
            await a_cancel_frees_the_worker(machine)
            await a_rolling_restart_loses_nothing(machine)
    asyncio.run(asyncio.wait_for(use(), 280))
