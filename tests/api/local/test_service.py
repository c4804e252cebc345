"""The endpoint as a service with keys: who may do what, what it fetches and tells, and what it never says."""

import base64
import io
import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

import tiny_weights
import videos
from api_servers import ApiServer, Gateway
from endpoint_client import ALICE, BOB, MOST_WAITING, Client, Customer, Reply
from hosted_contract import OPENAPI, PROXY, REQUESTS, RUN, SUBMIT
from web_server import TOKEN, Web


@pytest.mark.parametrize("key", ["", "wrong", ALICE[:-1], ALICE + "x"])
@pytest.mark.parametrize(("method", "path"), [("POST", RUN), ("POST", SUBMIT), ("POST", "/api" + RUN), ("GET", f"{REQUESTS}/x/status"),
                                              ("PUT", f"{REQUESTS}/x/cancel")])
def test_without_a_right_key_nothing_is_answered(service: ApiServer, method: str, path: str, key: str) -> None:
    reply = Client(service, key).call(method, path, b"{}" if method == "POST" else None)
    assert (reply.status, reply.body["error_type"]) == (401, "unauthorized")
    assert key not in json.dumps(reply.body) or not key


def test_the_proxy_is_no_way_around_the_key(service: ApiServer) -> None:
    reply = Client(service).call("POST", PROXY, {}, x_fal_target_url=f"https://fal.run{RUN}")
    assert reply.status == 401


def test_a_job_belongs_to_its_key(alice: Customer, bob: Customer, fresh: dict[str, Any]) -> None:
    job = alice.submit(fresh)
    assert [bob.call(*call).status for call in (("GET", f"{REQUESTS}/{job}"), ("GET", f"{REQUESTS}/{job}/status"),
                                                 ("PUT", f"{REQUESTS}/{job}/cancel"))] == [404, 404, 404]
    alice.wait(job)
    assert alice.result(job).status == 200


def test_a_key_has_so_many_places_and_another_key_its_own(alice: Customer, bob: Customer, long: dict[str, Any]) -> None:
    for _ in range(MOST_WAITING):
        alice.submit(long)
    refused = alice.call("POST", SUBMIT, long)
    assert (refused.status, refused.headers["X-Fal-Retryable"]) == (503, "true")
    bob.submit(long)


def test_fifty_clients_at_once_get_their_own_video_or_are_refused(alice: Customer, service: ApiServer, video: dict[str, Any], tmp_path: Path) -> None:
    """Sampled once, since only the frame rate differs: it tells whose video a video is."""
    rates = range(4, 54)

    def send(rate: int) -> Reply:
        return alice.call("POST", SUBMIT, {**video, "frames_per_second": rate})

    alice.wait(alice.submit(video))
    with ThreadPoolExecutor(len(rates)) as threads:
        replies = dict(zip(rates, threads.map(send, rates), strict=True))
    jobs = {rate: reply.body["request_id"] for rate, reply in replies.items() if reply.status == 200}
    assert MOST_WAITING <= len(jobs) == len(set(jobs.values()))
    assert {reply.body["error_type"] for reply in replies.values() if reply.status != 200} <= {"runner_scheduling_failure"}
    for rate, job in jobs.items():
        alice.wait(job)
        clip = alice.download(alice.result(job).body["video"]["url"], tmp_path / f"{rate}.mp4")
        assert videos.facts(clip).rate == rate
    arrivals = service.arrivals(list(jobs.values()))
    earlier = [sorted(arrivals).index(arrival) for arrival in arrivals]  # two that begin at once, on two GPUs, begin in either order
    assert len(arrivals) == len(jobs) and all(abs(place - rank) < service.workers for place, rank in enumerate(earlier))


@pytest.mark.one_comfyui("it goes on with what a kill interrupts, see the next test")
def test_what_was_done_outlives_a_kill_and_what_was_not_ends_with_an_error(alice: Customer, service: ApiServer, web: Web,
                                                                           fresh: dict[str, Any]) -> None:
    """Killed while a video is written backwards, so that both a spool and a part of a file are open."""
    done, hook = alice.submit(fresh), f"?fal_webhook={quote(f'http://{web.host}/restarted')}"
    logs = alice.wait(done)["logs"]
    made = alice.result(done).body
    running = alice.submit({**fresh, "reverse_video": True, "interpolator_model": "rife", "num_interpolated_frames": 4})
    waiting = alice.submit({**fresh, "seed": 6}, hook)
    while not any(line["message"].startswith("SaveVideo") for line in alice.wait(running, until=("IN_PROGRESS",))["logs"]):
        time.sleep(0.01)
    with web.holding("/late"):
        late = alice.submit({**fresh, "seed": 8}, f"?fal_webhook={quote(f'http://{web.host}/late')}")
        alice.call("PUT", f"{REQUESTS}/{late}/cancel")
        web.message("/late")
        service.kill()
    service.start()
    assert web.message("/late", times=2)["request_id"] == late
    again = alice.result(done).body
    assert (again["seed"], again["video"]["file_name"]) == (made["seed"], made["video"]["file_name"])
    assert alice.wait(done)["logs"] == logs
    assert alice.call("GET", f"/view?filename={made['video']['file_name']}&subfolder=video/api").status == 200
    for job in (running, waiting):
        assert alice.wait(job)["status"] == "COMPLETED"
        assert (alice.result(job).status, alice.result(job).body["error_type"]) == (500, "runner_disconnected")
        assert alice.call("PUT", f"{REQUESTS}/{job}/cancel").body == {"status": "ALREADY_COMPLETED"}
    notice = web.message("/restarted")
    assert (notice["request_id"], notice["status"], notice["payload"]["error_type"]) == (waiting, "ERROR", "runner_disconnected")
    assert not list((service.base / "output").rglob(f"{running}*.mp4"))
    alice.wait(alice.submit({**fresh, "seed": 7, "reverse_video": True}))
    assert [path for path in (service.base / "temp").rglob("*") if path.is_file()] == []


def test_a_gateway_that_comes_back_has_what_was_done_and_goes_on_with_the_rest(alice: Customer, service: ApiServer, web: Web,
                                                                               fresh: dict[str, Any]) -> None:
    if not isinstance(service, Gateway):
        pytest.skip("of a gateway alone: --gateway")
    done, hook = alice.submit(fresh), f"?fal_webhook={quote(f'http://{web.host}/came_back')}"
    logs = alice.wait(done)["logs"]
    made = alice.result(done).body
    running = [alice.submit({**fresh, "seed": number, "num_inference_steps": 12}) for number in range(service.workers)]
    waiting = alice.submit({**fresh, "seed": 6}, hook)
    for job in running:
        alice.wait(job, until=("IN_PROGRESS",))
    with web.holding("/later"):
        late = alice.submit({**fresh, "seed": 8}, f"?fal_webhook={quote(f'http://{web.host}/later')}")
        alice.call("PUT", f"{REQUESTS}/{late}/cancel")
        web.message("/later")
        service.kill()
    service.start()
    assert web.message("/later", times=2)["request_id"] == late
    assert alice.result(done).body == made and alice.wait(done)["logs"] == logs
    assert alice.call("GET", made["video"]["url"]).status == 200
    for number, job in enumerate(running):
        assert alice.wait(job) and alice.result(job).body["seed"] == number
    assert alice.wait(waiting) and web.message("/came_back")["payload"] == alice.result(waiting).body


@pytest.mark.one_comfyui("nobody sees the queues of its workers' ComfyUIs")
def test_what_a_user_removes_or_interrupts_is_cancelled(alice: Customer, service: ApiServer, long: dict[str, Any]) -> None:
    running, waiting = alice.submit(long), alice.submit(long)
    alice.wait(running, until=("IN_PROGRESS",))
    service.post("/queue", {"delete": [waiting]})
    service.post("/interrupt")
    for job in (running, waiting):
        alice.wait(job)
        assert (alice.result(job).status, alice.result(job).body["error_type"]) == (499, "client_cancelled")


def test_a_cancelled_job_ends_however_near_it_is_to_its_start(alice: Customer, long: dict[str, Any]) -> None:
    for attempt in range(20):
        job = alice.submit({**long, "seed": 5000 + attempt})
        time.sleep(attempt % 10 / 2000)  # another moment each time
        alice.call("PUT", f"{REQUESTS}/{job}/cancel")
        alice.wait(job)
        assert alice.result(job).status == 499


def test_webhooks_are_told_of_results_and_of_errors(alice: Customer, web: Web, fresh: dict[str, Any], long: dict[str, Any]) -> None:
    made = alice.submit(fresh, f"?fal_webhook={quote(f'http://{web.host}/made')}")
    assert web.message("/made") == {"request_id": made, "gateway_request_id": made, "status": "OK", "payload": alice.result(made).body}
    cancelled = alice.submit(long, f"?fal_webhook={quote(f'http://{web.host}/cancelled')}")
    alice.call("PUT", f"{REQUESTS}/{cancelled}/cancel")
    notice = web.message("/cancelled")
    assert (notice["request_id"], notice["status"], notice["payload"]["error_type"]) == (cancelled, "ERROR", "client_cancelled")
    assert notice["error"]
    status = alice.call("GET", f"{REQUESTS}/{cancelled}/status").body
    assert (status["error_type"], status["error"]) == ("client_cancelled", notice["payload"]["detail"])


def test_a_webhook_keeps_the_spelling_of_its_address(alice: Customer, web: Web, long: dict[str, Any]) -> None:
    """Signed addresses hold for their exact letters."""
    job = alice.submit(long, f"?fal_webhook={quote(f'http://{web.host}/a%20b?sig=a%2Bb%3D&x=a%26b', safe='')}")
    alice.call("PUT", f"{REQUESTS}/{job}/cancel")
    assert web.message("/a%20b?sig=a%2Bb%3D&x=a%26b")["request_id"] == job


def test_what_cannot_be_read_is_the_callers_fault(alice: Customer) -> None:
    wrong = [("POST", RUN, b"hello", {"Content-Encoding": "gzip"}),
             ("GET", f"{REQUESTS}/x/status", None, {"Host": "comfy:port"}), ("GET", OPENAPI, None, {"Host": "comfy:port"}),
             ("GET", PROXY, None, {"x-fal-target-url": "https://[bad"})]
    for method, path, body, headers in wrong:
        reply = alice.call(method, path, body, **headers)
        assert (reply.status, reply.body["error_type"]) == (400, "bad_request"), (path, headers)


def test_a_job_waits_until_its_downloads_are_there_and_it_runs(alice: Customer, web: Web, service: ApiServer, fresh: dict[str, Any]) -> None:
    web.files["/files/slow.safetensors"] = (service.base / "models" / "loras" / tiny_weights.LORAS[0].format("high")).read_bytes()
    with web.holding("/files/slow.safetensors"):
        job = alice.submit({**fresh, "loras": [{"path": f"http://{web.host}/files/slow.safetensors"}]})
        while "/files/slow.safetensors" not in web.asked:
            time.sleep(0.01)
        assert alice.call("GET", f"{REQUESTS}/{job}/status").body["status"] == "IN_QUEUE"
    assert alice.wait(job)["metrics"]["inference_time"] > 0


def test_a_stream_that_waits_says_that_it_lives(busy: Any, alice: Customer, service: ApiServer, long: dict[str, Any]) -> None:
    busy(alice)
    waiting = alice.submit(long)
    request = urllib.request.Request(f"{service.url}{REQUESTS}/{waiting}/status/stream", headers={"Authorization": f"Key {ALICE}"})
    with urllib.request.urlopen(request, timeout=30) as events:
        assert next(line for line in events if line.startswith(b":")) and not events.closed


def test_a_stream_shows_the_clip_to_who_asks(alice: Customer, service: ApiServer, fresh: dict[str, Any]) -> None:
    job = alice.submit({**fresh, "num_inference_steps": 8})
    request = urllib.request.Request(f"{service.url}{REQUESTS}/{job}/status/stream?preview=1", headers={"Authorization": f"Key {ALICE}"})
    with urllib.request.urlopen(request, timeout=300) as events:
        states = [json.loads(line.removeprefix(b"data: ")) for line in events if line.startswith(b"data: ")]
    pictures = [Image.open(io.BytesIO(base64.b64decode(state["preview"].partition(",")[2]))) for state in states if "preview" in state]
    assert pictures and states[-1]["status"] == "COMPLETED"
    assert all((picture.format, picture.n_frames) == ("WEBP", 5) for picture in pictures)


def test_loras_are_downloaded_once_and_named_like_local_ones(alice: Customer, web: Web, service: ApiServer, fresh: dict[str, Any]) -> None:
    local = tiny_weights.LORAS[0].format("high")
    content = (service.base / "models" / "loras" / local).read_bytes()
    web.files["/files/mine.safetensors"] = web.files["/owner/repo/resolve/main/a.safetensors"] = content
    web.files["/api/models/owner/repo/revision/main"] = b'{"siblings": [{"rfilename": "a.safetensors"}]}'
    loras = [{"path": f"http://{web.host}/files/mine.safetensors"}, {"path": "owner/repo", "transformer": "low"}, {"path": local}]
    lines = []
    for _ in range(2):
        job = alice.submit({**fresh, "loras": loras})
        lines += [line["message"] for line in alice.wait(job)["logs"]]
        assert alice.result(job).status == 200, alice.result(job).body
    assert [line.split(":")[0] for line in lines if "effective scale" in line] == ["high", "low", "high"]
    assert web.asked.count("/files/mine.safetensors") == 1
    names = [path.name.partition("-")[0] for path in (service.base / "models" / "loras" / "wan22_api").glob("*.safetensors")]
    assert {"a", "mine"} == set(names) - {"slow"} and len(names) == len(set(names))


@pytest.mark.parametrize("path", [
    "../../../etc/passwd", "/etc/passwd", "..\\..\\secret.safetensors", "C:\\secret.safetensors", "\\\\server\\share\\x.safetensors",
    "%2e%2e/%2e%2e/secret.safetensors", "sub/../../secret.safetensors", "file:///etc/passwd", "ftp://example.com/x.safetensors",
    "http://169.254.169.254/latest/meta-data", "https://169.254.169.254/x.safetensors", "https://[::1]/x.safetensors", "https://2130706433/x",
    "https://0x7f.1/x.safetensors", "https://127.0.0.1:8188/view", "https://10.0.0.1/x.safetensors", "https://localhost/x.safetensors",
    "https://user:secret@huggingface.co/x/y/resolve/main/z.safetensors", "https://huggingface.co@10.0.0.1/x.safetensors", "missing.safetensors", " "])
def test_loras_lead_nowhere_else(alice: Customer, web: Web, fresh: dict[str, Any], path: str) -> None:
    asked = len(web.asked)
    reply = alice.call("POST", SUBMIT, {**fresh, "loras": [{"path": path}]})
    (entry,) = reply.body["detail"]
    assert (reply.status, entry["loc"]) == (422, ["body", "loras", 0, "path"])
    assert len(web.asked) == asked


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "https://10.0.0.1/hook", "https://user:pass@example.com/", "file:///etc/passwd", "x"])
def test_webhooks_lead_nowhere_else(alice: Customer, fresh: dict[str, Any], url: str) -> None:
    assert alice.call("POST", f"{SUBMIT}?fal_webhook={quote(url)}", fresh).status == 422


def test_no_link_leads_out_of_the_loras_folders(alice: Customer, service: ApiServer, fresh: dict[str, Any], tmp_path: Path) -> None:
    loras, local = service.base / "models" / "loras", tiny_weights.LORAS[0].format("high")
    (tmp_path / "private.safetensors").write_bytes((loras / local).read_bytes())
    links = {"out.safetensors": tmp_path / "private.safetensors", "up": tmp_path, "in.safetensors": loras / local}
    for name, target in links.items():
        (loras / name).symlink_to(target)
    try:
        while alice.call("POST", RUN, {**fresh, "loras": [{"path": "in.safetensors"}]}).status != 200:  # a gateway learns of new files by and by
            assert service.workers > 1
        for path in ("out.safetensors", "out", "up/private.safetensors"):
            reply = alice.call("POST", RUN, {**fresh, "loras": [{"path": path}]})
            assert (reply.status, reply.body["detail"][0]["loc"]) == (422, ["body", "loras", 0, "path"])
            assert "outside the loras folders" in reply.body["detail"][0]["msg"]
    finally:
        for name in links:
            (loras / name).unlink()


def test_parts_of_a_video_can_be_asked_for(alice: Customer, fresh: dict[str, Any]) -> None:
    job = alice.submit(fresh)
    alice.wait(job)
    part = alice.call("GET", alice.result(job).body["video"]["url"], Range="bytes=4-7")
    assert (part.status, part.body, part.headers["Content-Type"]) == (206, b"ftyp", "video/mp4")


def test_nothing_secret_is_left_anywhere(alice: Customer, service: ApiServer, web: Web, fresh: dict[str, Any], tmp_path: Path) -> None:
    job = alice.submit(fresh, f"?fal_webhook={quote(f'http://{web.host}/hook-{TOKEN[::-1]}')}")
    alice.wait(job)
    clip = alice.download(alice.result(job).body["video"]["url"], tmp_path / "clip.mp4")
    shown = [service.shown(), json.dumps(videos.tags(clip)), json.dumps(alice.wait(job))]
    for secret in (ALICE, BOB, TOKEN, TOKEN[::-1]):
        assert not any(secret in text for text in shown)
