"""The HTTP edge without ComfyUI: who is told what, which addresses are the API's, and how often a video is made."""

import functools
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from wan22.api import app
from wan22.api.headers import Preferences
from wan22.api.jobs import repeats
from wan22.api.settings import Settings

from app_server import Served, served
from hosted_contract import APP, PROXY, REQUESTS, RUN, STILL_IN_PROGRESS, SUBMIT

KEY = "key-0123456789abcdef"
FOX = {"prompt": "a fox", "seed": 3}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server of a test's own, which notices at once who hangs up."""
    monkeypatch.setattr(app, "HANG_UP_SECONDS", 0.01)
    with served() as running:
        yield running


def test_who_asks_for_it_sees_the_clip_in_a_stream_and_nobody_else(server: Served) -> None:
    requests.post(server.url + SUBMIT, json=FOX, timeout=60)
    job = server.desk.jobs[-1]
    server.do(job.start)
    url = f"{server.url}{REQUESTS}/{job.request_id}/status"
    with requests.get(f"{url}/stream", params={"preview": "1", "logs": "1"}, stream=True, timeout=60) as looking, \
            requests.get(f"{url}/stream", stream=True, timeout=60) as told:
        events = (json.loads(line.removeprefix(b"data: ")) for line in looking.iter_lines() if line.startswith(b"data: "))
        assert "preview" not in next(events) and job.looks()
        seen = []
        for picture in ("data:image/webp;base64,AAAA", "data:image/webp;base64,BBBB"):
            server.do(functools.partial(job.show, picture))
            seen.append(next(events)["preview"])
        server.do(lambda: job.say("a line"))
        assert [line["message"] for line in next(events)["logs"]] == ["a line"]
        assert "preview" not in requests.get(url, params={"preview": "1"}, timeout=60).json()
        server.finish(job)
        assert seen == ["data:image/webp;base64,AAAA", "data:image/webp;base64,BBBB"]
        assert [event.get("preview") for event in events] == [None] and b"preview" not in told.content
    assert not job.looks() and not job.picture and "AAAA" not in json.dumps(job.record())


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/fal-ai", "/fal-ai/", "/fal-ai/flux/dev", "/queue/", "/queue/x", "/queue/fal-ai/flux/dev", "/fal",
                                  "/queue/fal-ai/wan/requests/", "/fal/", "/fal/x", "/fal/proxies", "/fal-ai/%2e%2e/x", f"{REQUESTS}/1/nothing"])
def test_whatever_is_below_the_apis_addresses_is_answered_in_fals_form(server: Served, method: str, path: str) -> None:
    reply = requests.request(method, server.url + path, timeout=60)
    assert (reply.status_code, reply.json()["error_type"], reply.headers["X-Fal-Error-Type"]) == (404, "not_found", "not_found")
    assert method in reply.json()["detail"]


@pytest.mark.parametrize(("headers", "word"), [
    ({"X-Forwarded-For": "172.17.0.1"}, "X-Forwarded-For"), ({"Host": "comfy.example"}, "comfy.example"),
    ({"Origin": "https://a.example"}, "a.example")])
@pytest.mark.parametrize("authorization", ["", f"Key {KEY}"])
def test_a_server_without_keys_says_that_they_are_missing(server: Served, headers: dict[str, str], word: str, authorization: str) -> None:
    reply = requests.post(server.url + SUBMIT, json=FOX, headers={**headers, "Authorization": authorization}, timeout=60)
    assert reply.status_code == 401
    assert all(part in reply.json()["detail"] for part in (word, "no keys", "`keys`")) and "send the" not in reply.json()["detail"]


def test_a_server_with_keys_asks_for_one() -> None:
    with served(Settings(enabled=True, keys=(KEY,))) as running:
        reply = requests.post(running.url + SUBMIT, json=FOX, headers={"X-Forwarded-For": "1.2.3.4"}, timeout=60)
        assert (reply.status_code, "Authorization: Key" in reply.json()["detail"]) == (401, True)
        assert requests.post(running.url + SUBMIT, json=FOX, headers={"Authorization": f"Key {KEY}"}, timeout=60).status_code == 200


@pytest.mark.parametrize("host", ["queue.fal.run", "fal.run"])
def test_who_comes_through_the_proxy_address_goes_on_at_fals_and_others_here(server: Served, host: str) -> None:
    """A program behind a proxy address sends all that is fal's through it, and what its answers name it takes for fal's."""
    here = requests.post(server.url + SUBMIT, json=FOX, timeout=60).json()
    target = {"x-fal-target-url": f"https://queue.fal.run{RUN}"}
    there = requests.post(server.url + PROXY, json=FOX, headers=target, timeout=60).json()
    assert here["response_url"] == f"{server.url}{REQUESTS}/{here['request_id']}"
    assert there["response_url"] == f"https://queue.fal.run/{APP}/requests/{there['request_id']}"
    for job, address, headers in ((here, here["status_url"], {}), (there, server.url + PROXY, {"x-fal-target-url": there["status_url"]})):
        state = requests.get(address, headers=headers, timeout=60).json()
        assert {name: state[name] for name in ("request_id", "status_url", "cancel_url")} == {
            name: job[name] for name in ("request_id", "status_url", "cancel_url")}


def test_a_result_that_is_asked_for_early_is_in_progress_to_the_letter(server: Served) -> None:
    job = requests.post(server.url + SUBMIT, json=FOX, timeout=60).json()
    early = requests.get(job["response_url"], timeout=60)
    assert (early.status_code, early.json()["detail"]) == (400, STILL_IN_PROGRESS)


def test_what_is_asked_in_headers_reaches_the_service(server: Served) -> None:
    headers = {"X-Fal-Request-Timeout": "9", "X-Fal-Queue-Priority": "low", "X-Fal-Store-IO": "0", "X-Fal-No-Retry": "1",
               "X-Fal-Object-Lifecycle-Preference": '{"expiration_duration_seconds": 60}'}
    assert requests.post(server.url + SUBMIT, json=FOX, headers=headers, timeout=60).status_code == 200
    assert server.desk.asked[-1][-1] == Preferences(9.0, low=True, private=True, video_seconds=60.0)
    wrong = requests.post(server.url + SUBMIT, json=FOX, headers={"X-Fal-Queue-Priority": "high"}, timeout=60)
    assert (wrong.status_code, wrong.json()["detail"][0]["loc"]) == (422, ["header", "X-Fal-Queue-Priority"])


def test_events_say_that_nginx_must_not_hold_them_back(server: Served) -> None:
    job = requests.post(server.url + SUBMIT, json=FOX, timeout=60).json()
    with requests.get(f"{job['status_url']}/stream", stream=True, timeout=60) as events:
        assert events.headers["X-Accel-Buffering"] == "no"


def call(server: Served, body: dict[str, Any] | None = None, **headers: str) -> Any:
    return requests.post(server.url + RUN, json=body or FOX, headers=headers, timeout=60).json()


def hang_up(server: Served, body: bytes) -> None:
    """Sends a call and is gone before its answer, once it waits."""
    before = callers(server)
    connection = socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port or 0))
    connection.sendall(f"POST {RUN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    until(lambda: callers(server) == before + 1)
    connection.close()
    until(lambda: callers(server) == before)


def test_a_call_that_is_sent_again_waits_for_the_job_of_the_first(fresh: Served) -> None:
    body = json.dumps(FOX).encode()
    hang_up(fresh, body)
    with ThreadPoolExecutor(4) as threads:
        again = [threads.submit(call, fresh) for _ in range(3)]
        another = threads.submit(call, fresh, {**FOX, "seed": 4})
        fresh.desk.wait_for_jobs(2)
        until(lambda: callers(fresh) == 4)
        for job in fresh.desk.jobs:
            fresh.finish(job)
        assert [reply.result()["seed"] for reply in again] == [3, 3, 3] and another.result()["seed"] == 4
    assert sorted(job.seed for job in fresh.desk.jobs) == [3, 4]


def test_what_ended_while_nobody_listened_is_there_for_who_asks_again(fresh: Served) -> None:
    hang_up(fresh, json.dumps(FOX).encode())
    fresh.finish(fresh.desk.jobs[0])
    assert call(fresh)["seed"] == 3 and len(fresh.desk.jobs) == 1


def test_a_call_after_the_answer_is_a_new_one_and_so_is_one_that_asks_for_something_else(fresh: Served) -> None:
    with ThreadPoolExecutor(2) as threads:
        for number in (1, 2):
            reply = threads.submit(call, fresh)
            fresh.desk.wait_for_jobs(number)
            fresh.finish(fresh.desk.jobs[-1])
            assert reply.result()["seed"] == 3
        first, second = threads.submit(call, fresh), threads.submit(call, fresh, None, **{"X-Fal-Queue-Priority": "low"})
        fresh.desk.wait_for_jobs(4)
        for job in fresh.desk.jobs[2:]:
            fresh.finish(job)
        assert first.result() and second.result()


def test_a_job_whose_caller_does_not_come_back_is_cancelled(fresh: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "REPEAT_SECONDS", 0.01)
    hang_up(fresh, json.dumps(FOX).encode())
    until(lambda: fresh.desk.jobs[0].failed)
    assert fresh.desk.jobs[0].answer.error_type == "client_cancelled"


def test_one_caller_that_leaves_costs_another_nothing(fresh: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "REPEAT_SECONDS", 0.01)
    with ThreadPoolExecutor(1) as threads:
        stays = threads.submit(call, fresh)
        fresh.desk.wait_for_jobs(1)
        hang_up(fresh, json.dumps(FOX).encode())
        fresh.finish(fresh.desk.jobs[0])
        assert stays.result()["seed"] == 3


def test_calls_of_different_keys_are_different_calls() -> None:
    other = KEY[::-1]
    with served(Settings(enabled=True, keys=(KEY, other))) as running, ThreadPoolExecutor(2) as threads:
        replies = [threads.submit(call, running, None, Authorization=f"Key {key}") for key in (KEY, other)]
        running.desk.wait_for_jobs(2)
        for job in running.desk.jobs:
            running.finish(job)
        assert all(reply.result() for reply in replies) and len({job.owner for job in running.desk.jobs}) == 2


def until(holds: Callable[[], bool]) -> None:
    """Waits for what nobody announces."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def callers(server: Served) -> int:
    return server.do(lambda: sum(shared.callers for shared in server.app.repeats._shared.values()))
