"""A ComfyUI on a port of this machine alone: its folders, its key, its life, and what it says while it starts."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

START_SECONDS = 600.0  # the longest start: a cold disk, many packs
STOP_SECONDS = 10.0
LAST_LINES = 40  # of its log, kept for who asks why it ended
LEASH = Path(__file__).with_name("leash.py")
PREFIX = "wan22-worker-"
FOLDERS = ("output", "temp", "input", "user")  # each ComfyUI has its own; models are shared


class StartFailed(Exception):
    """ComfyUI or Ray cannot run here; the text names what is wrong and what to do."""


@dataclass(frozen=True)
class Place:
    """Where a worker finds its ComfyUI, and with which Python and arguments it runs it."""

    comfyui: Path
    python: Path
    arguments: tuple[str, ...] = ()

    def check(self) -> None:
        """StartFailed for folders and files that are not there."""
        if not (self.comfyui / "main.py").is_file():
            raise StartFailed(f"{self.comfyui} is no ComfyUI: it has no main.py. Name its folder: --comfyui PATH, or WAN22_COMFYUI on that host.")
        if not self.python.is_file():
            raise StartFailed(f"There is no Python at {self.python}. Name ComfyUI's own: --python PATH, or WAN22_PYTHON on that host.")


class Child:
    """One ComfyUI with the API on, for whoever has `key`. Everything that it writes is in a folder that goes with it."""

    def __init__(self, place: Place, settings: dict[str, Any]) -> None:
        """StartFailed where there is nothing to start. It is launched at once."""
        place.check()
        remove_the_dead()
        self.key, self.lines = secrets.token_hex(24), deque[str](maxlen=LAST_LINES)
        self._place, self._ended = place, _nothing
        self._folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        for name in FOLDERS:
            (self._folder / name).mkdir()
        self._write_settings({**settings, "enabled": True, "keys": [self.key]})
        self.port = free_port()
        self.process = self._launched()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def folder(self) -> Path:
        """What is in it goes with it, also when its worker is killed."""
        return self._folder

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _launched(self) -> "subprocess.Popen[str]":
        own = [part for name in FOLDERS for part in (f"--{name}-directory", str(self._folder / name))]
        command = [str(self._place.python), str(self._place.comfyui / "main.py"), "--listen", "127.0.0.1", "--port", str(self.port),
                   "--disable-auto-launch", "--database-url", "sqlite:///:memory:", *self._place.arguments, *own]
        return subprocess.Popen([sys.executable, str(LEASH), str(os.getpid()), *command], cwd=self._place.comfyui, text=True, errors="replace",
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment())

    def _write_settings(self, settings: dict[str, Any]) -> None:
        file = self._folder / "user" / "__wan22" / "api.json"
        file.parent.mkdir()
        file.touch(mode=0o600)
        file.write_text(json.dumps(settings), encoding="utf-8")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
        self.process.wait()
        self._ended()

    def tell(self, ended: Callable[[], None]) -> None:
        """Call `ended`, in another thread, once it is gone."""
        self._ended = ended
        if self.process.poll() is not None:
            ended()

    async def up(self, seconds: float = START_SECONDS) -> None:
        """Returns once it answers. StartFailed with its last lines where it ends or takes too long."""
        end = time.monotonic() + seconds
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while time.monotonic() < end:
                if self.process.poll() is not None:
                    raise StartFailed("ComfyUI ended while it started. Its last lines:\n" + "\n".join(self.lines))
                with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, OSError):
                    async with session.get(f"{self.url}/system_stats") as answer:
                        if answer.ok:
                            return
                await asyncio.sleep(0.1)
        raise StartFailed(f"ComfyUI did not answer within {seconds:g} s. Its last lines:\n" + "\n".join(self.lines))

    def stop(self) -> None:
        self._ended = _nothing
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _nothing() -> None:
    pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def remove_the_dead() -> None:
    """The folders of workers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not _is_alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def _environment() -> dict[str, str]:
    """This process's, without what is Ray's, the cluster's Python's and other servers' of the API."""
    return {name: value for name, value in os.environ.items()
            if not name.startswith(("RAY_", "WAN22_API")) and name not in ("PYTHONPATH", "VIRTUAL_ENV", "OMP_NUM_THREADS")}
