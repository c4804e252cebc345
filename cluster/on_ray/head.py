"""Ray itself on this machine: a head whose doors are closed to others, and whose end is noticed."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..worker.child import LEASH, StartFailed, free_port
from . import guard
from .pool import RESOURCE

PACK = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 80_000_000  # pieces of videos on their way
START_SECONDS = 120
STOP_SECONDS = 2.0  # with workers Ray waits for ever, and there is nothing that they would save
DEAD_SECONDS = 20  # that nothing is heard of the head, until it is taken for dead


def environment(token: Path) -> dict[str, str]:
    """What Ray's processes on this machine are told: who may speak to them, that nobody else is told anything, that they listen to this machine
    alone, and where the pack is."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": str(START_SECONDS), "RAY_gcs_rpc_server_reconnect_timeout_s": str(DEAD_SECONDS),
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # it would wait for services of Ray's that nobody uses here
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or it would listen to every network
            "PYTHONPATH": str(PACK)}


def make_token(file: Path) -> Path:
    """A secret that only this user can read; without it Ray runs any code for whoever reaches it."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32), encoding="utf-8")
    return file


class Head:
    """Ray's head for `workers` workers on this machine alone, started at once; `host` is what the workers must know of it, as environment variables.
    StartFailed with Ray's own words where it does not come up."""

    def __init__(self, workers: int, token: Path, host: dict[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="wan22-ray-"))  # short: a socket's path has at most 107 bytes
        self.address = f"{LOOPBACK}:{free_port()}"
        log = self._folder / "head.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen([sys.executable, str(LEASH), str(os.getpid()), *self._command(workers)], stdin=subprocess.DEVNULL,
                                             stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment(token), **host},
                                             start_new_session=True)
        self._guard = subprocess.Popen([sys.executable, guard.__file__, str(self._process.pid), str(self._folder)], stdin=subprocess.PIPE,
                                       start_new_session=True)
        end = time.monotonic() + START_SECONDS
        while b"--block" not in log.read_bytes():
            if not self.is_up or time.monotonic() > end:
                said = log.read_text(errors="replace")[-2000:]
                self.stop()
                raise StartFailed(f"Ray did not start:\n{said}")
            time.sleep(0.1)

    def _command(self, workers: int) -> list[str]:
        ray, port = Path(sys.executable).with_name("ray"), self.address.rpartition(":")[2]
        return [str(ray), "start", "--head", "--block", f"--node-ip-address={LOOPBACK}", f"--port={port}", "--include-dashboard=false",
                "--no-monitor", "--include-log-monitor=false",
                "--num-cpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={self._folder}",
                f"--resources={json.dumps({RESOURCE: workers})}"]

    @property
    def is_up(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Its processes and their folder are gone afterwards; other Rays of this machine stay."""
        if not self._folder.exists():
            return  # it was stopped before, and another program may have its number now
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self._process.kill()
        self._process.wait()
        guard.end(self._process.pid)
        self._guard.communicate()
