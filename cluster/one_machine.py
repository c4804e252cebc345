"""Everything on one machine: Ray's head and the gateway, each started again when it ends, and both ended with this program."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

from .gateway.server import listening
from .on_ray.actor import ARGUMENTS, COMFYUI, PYTHON
from .on_ray.head import Head, environment, make_token
from .run_gateway import WRONG, read_settings
from .worker.child import LEASH, Place, StartFailed, remove_the_dead

MOST_WORKERS = 64  # of a machine whose GPUs are not counted yet
LOOKS_EVERY = 0.2  # seconds
SETTLES_WITHIN = 900.0  # seconds; until then each worker is ready or has failed
AGAIN = 2.0  # seconds until a gateway that ended is started again


def up(options: argparse.Namespace) -> int:
    """Until SIGTERM, Ctrl-C, or what must be put right first. Nothing that it started is there afterwards."""
    place = Place(options.comfyui.expanduser().resolve(), options.python.expanduser().absolute())
    place.check()
    read_settings(options)
    listening(options.listen, options.port).close()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    host = {COMFYUI: str(place.comfyui), PYTHON: str(place.python), ARGUMENTS: options.arguments}
    return Machine(options, host).run(stopped)


class Machine:
    """The two programs of a machine; `host` is what its workers must know, as environment variables."""

    def __init__(self, options: argparse.Namespace, host: dict[str, str]) -> None:
        self._options, self._host = options, host
        self._token = make_token(options.state / "ray_token")
        self._head: Head | None = None
        self._gateways, self._began = 0, 0.0  # so far; what is wrong with the first one at first, is wrong with what it was told
        self._gateway: subprocess.Popen[bytes] | None = None

    def run(self, stopped: threading.Event) -> int:
        """The exit status: 0, or the gateway's where another start of it is of no use."""
        try:
            while not stopped.is_set():
                if (code := self._look(stopped)) is not None:
                    return code
                stopped.wait(LOOKS_EVERY)
            return 0
        finally:
            self._end()

    def _look(self, stopped: threading.Event) -> int | None:
        """Start what is not there."""
        if self._head is None or not self._head.is_up:
            if not self._renew_head():
                stopped.wait(AGAIN)
                return None
            self._end_gateway()  # only now: without Ray it has answered all the same
        if self._gateway is None:
            self._gateway, self._gateways, self._began = self._start_gateway(), self._gateways + 1, time.monotonic()
        elif (code := self._gateway.poll()) is not None:
            if code == 0 or code == WRONG and self._gateways == 1 and time.monotonic() - self._began < SETTLES_WITHIN:
                return code
            print(f"The gateway ended with status {code} and is started again.", file=sys.stderr, flush=True)
            self._gateway = None
            stopped.wait(AGAIN)
        return None

    def _renew_head(self) -> bool:
        """Whether there is a new one. StartFailed where there has been none: only what was up before may come up later."""
        if self._head is not None:
            self._head.stop()
        try:
            self._head = Head(self._options.workers or MOST_WORKERS, self._token, self._host)
        except StartFailed as error:
            if self._head is None:
                raise
            print(f"{error}\nRay is started again.", file=sys.stderr, flush=True)
            return False
        return True

    def _start_gateway(self) -> "subprocess.Popen[bytes]":
        options, head = self._options, self._head
        assert head is not None
        command = [sys.executable, "-m", "cluster", "gateway", f"--address={head.address}", f"--port={options.port}", f"--listen={options.listen}",
                   f"--state={options.state}", *([f"--settings={options.settings}"] if options.settings else []),
                   *([f"--workers={options.workers}"] if options.workers else [])]
        return subprocess.Popen([sys.executable, str(LEASH), str(os.getpid()), *command], env={**os.environ, **environment(self._token)})

    def _end(self) -> None:
        """Both, the gateway first: it lets nobody in while Ray goes."""
        self._end_gateway()
        if self._head is not None:
            self._head.stop()
        remove_the_dead()

    def _end_gateway(self) -> None:
        if self._gateway is not None:
            self._gateway.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._gateway.wait(10)
            self._gateway.kill()
            self._gateway.wait()
            self._gateway = None
