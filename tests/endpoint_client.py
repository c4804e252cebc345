"""A program that talks to the endpoint, with a key or without, and holds every answer against the server's own OpenAPI document."""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis

from comfyui import Server
from hosted_contract import OPENAPI, REQUESTS, SUBMIT

ALICE, BOB = "alice-0123456789abcdef", "bob-0123456789abcdef"  # keys
MOST_WAITING = 12  # that the server takes of one of them


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any
    headers: Mapping[str, str]


@functools.cache
def document(server: Server) -> Any:
    """The server's OpenAPI document; None where it has none."""
    answer = requests.get(server.url + OPENAPI, verify=server.authority or True, timeout=60)
    return schemathesis.openapi.from_dict(answer.json()) if answer.ok else None


class Client:
    def __init__(self, server: Server, key: str = "") -> None:
        self.server, self.key = server, key

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """`path` below the server, or a whole URL; a body that is no bytes is sent as JSON. Fails where the document does not describe the answer."""
        payload = {"data": body} if isinstance(body, bytes) or body is None else {"json": body}
        key = {"Authorization": f"Key {self.key}"} if self.key else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = path if path.startswith("http") else self.server.url + path
        request = requests.Request(method, url, headers={"Content-Type": "application/json", **key, **named}, **payload).prepare()
        request.url = url  # as it is written
        with requests.Session() as session:
            answer = session.send(request, verify=self.server.authority or True, timeout=300)
        self._hold_against_the_document(method, urlsplit(url).path, answer)
        is_json = answer.headers.get("Content-Type", "").startswith("application/json")
        return Reply(answer.status_code, answer.json() if is_json else answer.content, answer.headers)

    def _hold_against_the_document(self, method: str, path: str, answer: requests.Response) -> None:
        described = document(self.server)
        operation = described and described.find_operation_by_path(method, path)
        if operation:
            operation.validate_response(answer)

    def submit(self, request: dict[str, Any], query: str = "") -> str:
        reply = self.call("POST", SUBMIT + query, request)
        assert reply.status == 200, reply.body
        return reply.body["request_id"]

    def wait(self, request_id: str, until: tuple[str, ...] = ("COMPLETED",), seconds: float = 300) -> dict[str, Any]:
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
        answer = requests.get(url, verify=self.server.authority or True, timeout=60)
        answer.raise_for_status()
        file.write_bytes(answer.content)
        return file


class Customer(Client):
    """A client that knows what it asked for."""

    def __init__(self, server: Server, key: str) -> None:
        super().__init__(server, key)
        self.jobs: list[str] = []

    def submit(self, request: dict[str, Any], query: str = "") -> str:
        self.jobs.append(super().submit(request, query))
        return self.jobs[-1]

    def give_up(self) -> None:
        """Nothing of it waits or runs afterwards."""
        for job in self.jobs:
            self.call("PUT", f"{REQUESTS}/{job}/cancel")
        for job in self.jobs:
            self.wait(job)
