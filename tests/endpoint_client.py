"""A program that talks to the endpoint, with a key or without."""

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from comfyui import ComfyUI
from hosted_contract import REQUESTS, SUBMIT


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any
    headers: Message


class Client:
    def __init__(self, server: ComfyUI, key: str = "") -> None:
        self.server, self.key = server, key

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """`path` below the server, or a whole URL; a body that is no bytes is sent as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        key = {"Authorization": f"Key {self.key}"} if self.key else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = path if path.startswith("http") else self.server.url + path
        request = urllib.request.Request(url, data, {"Content-Type": "application/json", **key, **named}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300, context=self.server.trusted) as answer:
                return _reply(answer)
        except urllib.error.HTTPError as error:
            return _reply(error)

    def submit(self, request: dict[str, Any], query: str = "") -> str:
        reply = self.call("POST", SUBMIT + query, request)
        assert reply.status == 200, reply.body
        return reply.body["request_id"]

    def wait(self, request_id: str, until: tuple[str, ...] = ("COMPLETED",), seconds: float = 120) -> dict[str, Any]:
        """The status, with logs, once it is one of `until`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.call("GET", f"{REQUESTS}/{request_id}/status?logs=1").body
            if status["status"] in until:
                return status
            time.sleep(0.1)
        raise TimeoutError(f"{request_id} is {status['status']} after {seconds} s")

    def result(self, request_id: str) -> Reply:
        return self.call("GET", f"{REQUESTS}/{request_id}")

    def download(self, url: str, file: Path) -> Path:
        with urllib.request.urlopen(url, timeout=60, context=self.server.trusted) as answer:
            file.write_bytes(answer.read())
        return file


def _reply(answer: Any) -> Reply:
    content = answer.read()
    return Reply(answer.status, json.loads(content) if answer.headers.get_content_type() == "application/json" else content, answer.headers)
