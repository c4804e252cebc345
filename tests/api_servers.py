"""Servers that speak the API, as its tests need them: one ComfyUI, or a gateway before two. Both are asked in the same words."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from comfyui import COMFYUI, ROOT, ComfyUI, Server, free_port
from endpoint_client import Client
from hosted_contract import REQUESTS
from proxy import nginx

CLUSTER_PYTHON = Path(os.environ.get("WAN22_CLUSTER_PYTHON", ROOT / ".dev" / "cluster-venv" / "bin" / "python"))
NO_CLUSTER_PYTHON = "the cluster's Python is not installed: WAN22_CLUSTER_PYTHON, or .dev/cluster-venv"
PATIENCE = 300  # seconds
TLS = """
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}/server.pem; ssl_certificate_key {certificate}/server.key;
    client_max_body_size 0; proxy_read_timeout 600s; proxy_request_buffering off;
    location / {{ proxy_pass {server}; proxy_http_version 1.1; proxy_set_header Host $http_host; }}
  }}
"""  # it adds no header that says so: without keys only this machine is answered


class OneComfyUI(ComfyUI):
    """ComfyUI with the API, on one GPU."""

    workers = 1
    videos = "/view"

    @property
    def uploads(self) -> Path:
        return self.base / "models" / "loras" / "wan22_api"

    def jobs(self) -> tuple[list[str], list[str]]:
        """The ids of those that run, and of those that wait, in order."""
        queue = self.get("/queue")
        running, waiting = ([entry[1] for entry in sorted(queue[name])] for name in ("queue_running", "queue_pending"))
        return running, waiting

    def end_all(self) -> None:
        self.post("/queue", {"clear": True})
        self.post("/interrupt")

    def arrivals(self, jobs: list[str]) -> list[float]:
        """When each came, in the order in which they ran."""
        return [entry["prompt"][0] for entry in self.get("/history").values() if entry["prompt"][1] in jobs]

    def kept(self, request_id: str) -> list[Path]:
        """The files of a complete request that stay, but for its video."""
        return list((self.base / "user" / "__wan22").rglob(f"{request_id}*"))

    def shown(self) -> str:
        """What others can read: its log and history."""
        return self.log() + json.dumps(self.get("/history"))


class Gateway(Server):
    """`python -m cluster up` with two workers on the ComfyUI folder `base`, behind nginx where there is a certificate.

    `settings` are the gateway's, `keys` in them are those of its clients.
    """

    workers = 2
    videos = "/videos"

    def __init__(self, base: Path, settings: dict[str, Any] | None = None, *arguments: str, certificate: Path | None = None) -> None:
        super().__init__(certificate and certificate / "authority.pem")
        self.base, self._settings, self._arguments, self._certificate = base, settings or {}, arguments, certificate
        self._keys = self._settings.get("keys", [""])
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Gateway":
        if not CLUSTER_PYTHON.is_file():
            pytest.skip(NO_CLUSTER_PYTHON)
        with contextlib.ExitStack() as opened:
            self.folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="wan22-g-", ignore_cleanup_errors=True)))  # short, for sockets
            self._inner = self.port = free_port()
            if self._certificate is not None:
                self.port = free_port()
                site = TLS.format(port=self.port, certificate=self._certificate, server=f"http://127.0.0.1:{self._inner}")
                opened.enter_context(nginx(site, self.port, self.folder))
                self._settings = {**self._settings, "public_url": self.url}
            self.process = self._launched()
            opened.callback(self._stop)
            self._wait_until_up()
            self._wait_for_workers()
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _launched(self) -> "subprocess.Popen[bytes]":
        self.state, log = self.folder / "state", self.folder / "log"
        self.state.mkdir()
        (self.state / "settings.json").write_text(json.dumps(self._settings), encoding="utf-8")
        arguments = ["--base-directory", str(self.base), "--disable-api-nodes", "--use-pytorch-cross-attention", *self._arguments]
        command = [str(CLUSTER_PYTHON), "-m", "cluster", "up", "--comfyui", str(COMFYUI), "--python", sys.executable, "--workers", str(self.workers),
                   "--port", str(self._inner), "--state", str(self.state), "--arguments", " ".join(arguments)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with log.open("wb") as output:
            return subprocess.Popen(command, cwd=ROOT, env={**environment, "TMPDIR": str(self.folder)}, stdout=output, stderr=subprocess.STDOUT)

    def _stop(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        self.process.kill()
        self.process.wait()

    def _wait_until_up(self) -> None:
        for _ in self._looks():
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"http://127.0.0.1:{self._inner}/fal/openapi.json", timeout=10).ok:
                    return

    def _wait_for_workers(self) -> None:
        client = Client(self, self._keys[0])
        for _ in self._looks():
            if [worker["state"] for worker in client.call("GET", "/cluster").body["workers"]] == ["free"] * self.workers:
                return

    def _looks(self) -> Iterator[None]:
        """Every now and then, until it takes too long or the gateway has ended."""
        end = time.monotonic() + PATIENCE
        while True:
            yield
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"The gateway is not up:\n{self.log()[-3000:]}")
            time.sleep(0.2)

    def kill(self) -> None:
        """The gateway itself; what started it starts it again."""
        gateway = next(pid for pid, (parent, command) in processes().items() if parent == self.process.pid and "gateway" in command)
        os.kill(gateway, signal.SIGKILL)
        for _ in self._looks():
            if not Path(f"/proc/{gateway}").exists():
                return

    def start(self) -> None:
        self._wait_until_up()

    def comfyuis(self) -> list[int]:
        """The processes that make videos."""
        return [pid for pid, (_, command) in processes().items() if str(self.base) in command and "cluster" not in command]

    @property
    def uploads(self) -> Path:
        return self.state / "uploads"

    def log(self) -> str:
        """All that was said, by Ray's programs too."""
        files = [self.folder / "log", *self.folder.glob("wan22-ray-*/session_latest/logs/*")]
        return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file())

    def shown(self) -> str:
        return self.log()

    def _records(self) -> list[dict[str, Any]]:
        """Of all requests that are kept, in the order in which they came."""
        read = []
        for file in (self.state / "requests").glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # forgotten meanwhile
                read.append(json.loads(file.read_text(encoding="utf-8")))
        return sorted(read, key=lambda record: record["arrival"])

    def _unfinished(self) -> Iterator[tuple[Client, dict[str, Any]]]:
        """Who may ask for it, and its status."""
        for record in self._records():
            for client in (Client(self, key) for key in self._keys) if record["answer"] is None else ():
                status = client.call("GET", f"{REQUESTS}/{record['request_id']}/status")
                if status.status != 404 and status.body["status"] != "COMPLETED":
                    yield client, status.body

    def jobs(self) -> tuple[list[str], list[str]]:
        unfinished = [status for _, status in self._unfinished()]
        waiting = sorted((status["queue_position"], status["request_id"]) for status in unfinished if status["status"] == "IN_QUEUE")
        return [status["request_id"] for status in unfinished if status["status"] == "IN_PROGRESS"], [job for _, job in waiting]

    def end_all(self) -> None:
        for client, status in self._unfinished():
            client.call("PUT", f"{REQUESTS}/{status['request_id']}/cancel")

    def arrivals(self, jobs: list[str]) -> list[float]:
        ran = [record for record in self._records() if record["request_id"] in jobs and record["started"]]
        return [record["arrival"] for record in sorted(ran, key=lambda record: record["started"])]

    def kept(self, request_id: str) -> list[Path]:
        return [file for file in self.state.rglob(f"{request_id}*") if file.suffix != ".mp4"]


ApiServer = OneComfyUI | Gateway


def processes() -> dict[int, tuple[int, list[str]]]:
    """Of this machine: the parent and the command of each, where /proc tells them."""
    there = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            there[int(folder.name)] = parent, (folder / "cmdline").read_text(errors="replace").split("\0")
    return there
