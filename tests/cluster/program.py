"""`python -m cluster` as a program that tests start, ask, and look at from outside: its words, its processes, their ports."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.worker.child import PREFIX, free_port

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests" / "cluster" / "fake_comfyui"
PATIENCE = 90.0  # seconds: waiting is for an event, and a busy machine only takes longer
RUN = "/fal-ai/wan/v2.2-a14b/text-to-video/lora"
LISTENS = "0A"  # the state of a listening socket in /proc/net/tcp


class Program:
    """`python -m cluster ARGUMENTS`, on a port that is free. What it says is in `words`."""

    def __init__(self, *arguments: str, port: int = 0, environment: dict[str, str] | None = None) -> None:
        self.port = port or free_port()
        self.process = subprocess.Popen([sys.executable, "-m", "cluster", *arguments, "--port", str(self.port)], cwd=ROOT, text=True,
                                        errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        env={**os.environ, **(environment or {})})
        self.words = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.words += line

    def until(self, words: str) -> None:
        """Returns once it has said so."""
        wait_for(lambda: words in self.words or self.process.poll() is not None, lambda: self.words)
        self._reader.join(0 if self.process.poll() is None else PATIENCE)
        assert words in self.words, self.words

    def ended(self) -> int:
        """Its exit status, once it has ended."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


def up(state: Path, *more: str, comfyui: Path = FAKE, python: str = sys.executable, **options: Any) -> Program:
    return Program("up", "--comfyui", str(comfyui), "--python", python, "--state", str(state), *more, **options)


@contextlib.contextmanager
def ending(*programs: Program) -> Iterator[None]:
    """They are gone afterwards, with all that they started."""
    try:
        yield
    finally:
        for program in programs:
            program.process.terminate()
        for program in programs:
            program.ended()


def wait_for(event: Any, about: Any = lambda: "") -> None:
    end = time.monotonic() + PATIENCE
    while not event():
        assert time.monotonic() < end, about()
        time.sleep(0.05)


def family(process: int) -> set[int]:
    """A process and all that descend from it, now."""
    children: dict[int, set[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), set()).add(int(stat.parent.name))
    members, new = {process}, {process}
    while new:
        new = set().union(*(children.get(member, set()) for member in new)) - members
        members |= new
    return members


def alive(processes: set[int]) -> set[int]:
    """Those that still run."""
    running = set()
    for process in processes:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                running.add(process)
    return running


def doors(processes: set[int]) -> dict[str, set[int]]:
    """The ports on which these processes listen, by address as the kernel writes it."""
    inodes = set()
    for process in processes:
        with contextlib.suppress(OSError):
            inodes |= {str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir()}
    ports: dict[str, set[int]] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS and f"socket:[{fields[9]}]" in inodes:
                address, _, port = fields[1].partition(":")
                ports.setdefault(address, set()).add(int(port, 16))
    return ports


def folders(place: Path) -> set[str]:
    """What the cluster keeps in a folder for temporary files."""
    return {path.name for path in place.iterdir() if path.name.startswith((PREFIX, "wan22-ray-"))}
