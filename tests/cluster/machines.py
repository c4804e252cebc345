"""The cluster as a program with ComfyUIs that only speak: started, asked, and hurt where a test wants it."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from nodes.api.contract import APP, SUBMIT

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("fake_comfyui")
ALICE, BOB = "alice-0123456789abcdef", "bob-0123456789abcdef"
REQUESTS = f"/queue/{APP}/requests"
ROLES = {"gateway": "-m cluster gateway", "gcs": "gcs_server", "raylet": "raylet/raylet", "actor": "ray::WorkerActor",
         "child": "fake_comfyui/main.py"}
NOT = "leash.py"  # a program on its way to become another
START_SECONDS = 120.0


class Machine:
    """`python -m cluster up` in `folder`, on a port that is free; `settings` are the gateway's."""

    def __init__(self, folder: Path, workers: int, settings: dict[str, Any] | None = None) -> None:
        self.folder, self.workers = folder, workers
        (folder / "settings.json").write_text(json.dumps(settings or {}), encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{self.port}", folder / "cluster.log"
        self._process: asyncio.subprocess.Process | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Machine"]:
        command = [sys.executable, "-m", "cluster", "up", "--comfyui", str(FAKE), "--python", sys.executable, "--workers", str(self.workers),
                   "--port", str(self.port), "--state", str(self.folder)]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=log, stderr=log)
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        try:
            yield self
        finally:
            await self.session.close()
            if self._process.returncode is None:
                self._process.terminate()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._process.wait(), 60)
            if self._process.returncode is None:
                self._process.kill()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def everything(self) -> list[int]:
        """All processes of this machine, also where another one runs beside it."""
        return sorted(self._lines())

    def processes(self, role: str) -> list[int]:
        return sorted(process for process, line in self._lines().items() if ROLES[role] in line and NOT not in line)

    def _lines(self) -> dict[int, str]:
        """Their command lines."""
        assert self._process is not None
        parents, lines = dict[int, int](), dict[int, str]()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                lines[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        return {process: line for process, line in lines.items() if self._process.pid in _ancestors(process, parents)}

    def kill(self, role: str, which: int = 0) -> bool:
        """As a crash does it. Whether there was one."""
        processes = self.processes(role)
        if processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(processes[which % len(processes)], signal.SIGKILL)
        return bool(processes)

    async def call(self, method: str, path: str, key: str = "", **more: Any) -> tuple[int, Any]:
        """The status and the JSON of an answer; asked again while nobody answers, as every client does."""
        headers = {"Authorization": f"Key {key}"} if key else {}
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                async with self.session.request(method, self.url + path, headers=headers, **more) as answer:
                    return answer.status, await answer.json()
            except (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError):
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.2)

    async def submit(self, prompt: str, key: str = "", **more: Any) -> str:
        """The id of an accepted request; sent again while the gateway says that it is to be."""
        end = time.monotonic() + START_SECONDS
        while True:
            status, body = await self.call("POST", SUBMIT, key, json={"prompt": prompt, **more})
            if status != 503 or time.monotonic() > end:
                assert status == 200, body
                return str(body["request_id"])
            await asyncio.sleep(0.2)

    async def state(self, request_id: str, key: str = "") -> dict[str, Any]:
        return dict((await self.call("GET", f"{REQUESTS}/{request_id}/status?logs=1", key))[1])

    async def complete(self, request_id: str, key: str = "", seconds: float = 300) -> tuple[int, Any]:
        """The result, once there is one."""
        end = time.monotonic() + seconds
        while (state := await self.state(request_id, key))["status"] != "COMPLETED":
            assert time.monotonic() < end, f"{request_id} is {state} after {seconds} s; the log ends with {self.said()[-2000:]}"
            await asyncio.sleep(0.1)
        return await self.call("GET", f"{REQUESTS}/{request_id}", key)

    async def video(self, url: str) -> bytes:
        async with self.session.get(url) as answer:
            answer.raise_for_status()
            return await answer.read()


def _ancestors(process: int, parents: dict[int, int]) -> set[int]:
    seen = set[int]()
    while process in parents and process not in seen:
        seen.add(process)
        process = parents[process]
    return seen
