"""Behind nginx as Debian ships it: events come when they happen, and a call that nginx gives up is not a second video."""

import json
from collections.abc import Iterator

import pytest
import requests
from wan22.api import app
from wan22.api.settings import Settings

from app_server import Served, served
from comfyui import free_port
from hosted_contract import RUN, SUBMIT
from proxy import nginx

KEYED = {"Authorization": "Key key-0123456789abcdef"}
FOX = {"prompt": "a fox", "seed": 3}
SITE = """
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {server}; proxy_set_header Host $host:$server_port; proxy_set_header X-Forwarded-For $remote_addr; }}
    location /fal-ai/ {{ proxy_pass {server}; proxy_read_timeout 500ms; }}
  }}
"""


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Served]]:
    """nginx's address, and the server behind it."""
    port = free_port()
    with served(Settings(enabled=True, keys=("key-0123456789abcdef",))) as server, \
            nginx(SITE.format(port=port, server=server.url), port, tmp_path_factory.mktemp("nginx")):
        yield f"http://127.0.0.1:{port}", server


def test_events_come_when_they_happen(behind: tuple[str, Served]) -> None:
    """The first is read while the job waits: nginx holds them back until a page of them is there, or the end, unless the answer forbids that."""
    url, server = behind
    job = requests.post(url + SUBMIT, json=FOX, headers=KEYED, timeout=60).json()
    assert job["status_url"].startswith(url)
    with requests.get(f"{job['status_url']}/stream", headers=KEYED, stream=True, timeout=20) as events:
        lines = (line for line in events.iter_lines(chunk_size=1) if line.startswith(b"data:"))
        assert json.loads(next(lines)[5:])["status"] == "IN_QUEUE"
        server.finish(server.desk.jobs[-1])
        assert json.loads(next(lines)[5:])["status"] == "COMPLETED"


def test_a_call_that_nginx_gives_up_and_its_client_repeats_is_one_video(behind: tuple[str, Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "HANG_UP_SECONDS", 0.01)
    url, server = behind
    before = len(server.desk.jobs)
    assert [requests.post(url + RUN, json=FOX, headers=KEYED, timeout=60).status_code for _ in range(2)] == [504] * 2
    assert len(server.desk.jobs) == before + 1
    server.finish(server.desk.jobs[-1])
    assert requests.post(url + RUN, json=FOX, headers=KEYED, timeout=60).json()["seed"] == 3
