"""A worker as a Ray actor: a process of Ray, the parent of one ComfyUI, on one GPU. Ray starts it again when it ends; it ends with its ComfyUI."""

import asyncio
import contextlib
import os
import shlex
import socket
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from nodes.api.version import pack_version

from ..attempts import Attempt, Event, Introduction
from ..worker.child import Child, Place, StartFailed
from ..worker.client import Client
from ..worker.worker import Worker

COMFYUI, PYTHON, ARGUMENTS = "WAN22_COMFYUI", "WAN22_PYTHON", "WAN22_ARGUMENTS"  # of the host, in the environment of its `ray start`
LOOKS_EVERY = 10.0  # seconds between two looks for new LoRA files
WATCHED_FOR = 60.0  # seconds; Ray does not end what a gateway that is gone had called, and each call takes one of a few places


class WorkerActor:
    """What Ray calls. Whatever can fail is in its methods: an actor whose constructor fails is never tried again."""

    def __init__(self, settings: dict[str, Any], on_cpu: bool) -> None:
        self._settings, self._on_cpu = settings, on_cpu
        self._child: Child | None = None
        self._worker: Worker | None = None
        self._about: Introduction | None = None
        self._starting = asyncio.Lock()
        self._arriving: dict[str, Path] = {}

    async def introduce(self) -> Introduction:
        """Once its ComfyUI answers and has its models, with nothing running. StartFailed where it cannot."""
        async with self._starting:
            if self._worker is None:
                self._worker, self._about = await self._started()
        await self._worker.clear()
        assert self._about is not None
        return self._about

    async def _started(self) -> tuple[Worker, Introduction]:
        self._child = Child(place(self._on_cpu), self._settings)
        try:
            await self._child.up()
            client = Client(self._child.url, self._child.key)
            about = await introduction(client)
        except BaseException:
            self._child.stop()
            raise
        self._child.tell(ended=lambda: os._exit(1))  # so that Ray knows at once, and begins anew
        return Worker(client), about

    async def loading(self) -> list[str]:
        """The last lines of its ComfyUI's log."""
        return list(self._child.lines) if self._child else []

    async def change(self, about: Introduction) -> Introduction:
        """Returns once it would introduce itself in other words, or after a while; breaks when it ends."""
        until = time.monotonic() + WATCHED_FOR
        while self._about == about and time.monotonic() < until:
            await asyncio.sleep(LOOKS_EVERY)
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):  # busy, or about to end
                self._about = replace(about, loras=tuple(await self._up.client.loras()))
        assert self._about is not None
        return self._about

    async def begin(self, attempt: Attempt) -> None:
        await self._up.begin(attempt)

    async def events(self, lease: str) -> list[Event]:
        return await self._up.events(lease)

    async def cancel(self, lease: str) -> None:
        await self._up.cancel(lease)

    async def lacks(self, addresses: list[str]) -> list[str]:
        """Those of the gateway's uploads that were not sent here. Of one that broke off, as with its gateway, nothing stays: it comes anew."""
        for address in addresses:
            if (part := self._arriving.pop(address, None)) is not None:
                part.unlink(missing_ok=True)
        return [address for address in addresses if not self._up.client.has(address)]

    async def receive(self, address: str, name: str, piece: bytes) -> None:
        """The next bytes of an upload; none of them when it is complete."""
        if address not in self._arriving:
            handle, part = tempfile.mkstemp(prefix="upload-", dir=self._child.folder if self._child else None)
            os.close(handle)
            self._arriving[address] = Path(part)
        file = self._arriving[address]
        if piece:
            with file.open("ab") as part_of_it:
                part_of_it.write(piece)
            return
        try:
            await self._up.client.upload(address, file, name)
        finally:
            self._arriving.pop(address).unlink(missing_ok=True)

    @property
    def _up(self) -> Worker:
        if self._worker is None:
            raise StartFailed("its ComfyUI is not up")
        return self._worker


def place(on_cpu: bool) -> Place:
    """Where this host says its ComfyUI is. StartFailed where it says nothing."""
    if not (comfyui := os.environ.get(COMFYUI)):
        raise StartFailed(f"{COMFYUI} is not set on this host. Set it to ComfyUI's folder in the environment of `ray start`.")
    arguments = shlex.split(os.environ.get(ARGUMENTS, ""))
    return Place(Path(comfyui), Path(os.environ.get(PYTHON) or sys.executable), (*arguments, *(["--cpu"] if on_cpu else [])))


async def introduction(client: Client) -> Introduction:
    """StartFailed for a ComfyUI that could make no video."""
    try:
        stats, health, loras = await client.stats(), await client.health(), await client.loras()
    except aiohttp.ClientResponseError as error:
        raise StartFailed(f"This ComfyUI answers {error.status} where the pack's API should be. Install the pack in its custom_nodes, the same one "
                          "as the gateway's; ComfyUI's log says why where it is there.") from None
    if health["missing_models"]:
        raise StartFailed(" ".join(health["missing_models"]))
    devices = ", ".join(device["name"] for device in stats.get("devices", []))
    return Introduction(socket.gethostname(), devices, f"{socket.gethostname()} {os.getpid()}", health["version"], pack_version(),
                        stats.get("system", {}).get("comfyui_version", ""), tuple(loras), tuple(health["missing_interpolators"]))
