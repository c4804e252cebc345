"""What the hosted platform does around a model, done here: start timeouts, priorities, what is kept and for how long, and signed webhooks."""

import asyncio
import importlib
import json
import logging
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

import videos
from api_servers import ApiServer
from endpoint_client import ALICE, BOB, Client, Customer
from hosted_contract import REQUESTS, RUN, SUBMIT
from web_server import Web

LIFECYCLE = "X-Fal-Object-Lifecycle-Preference"


def submitted(customer: Customer, request: dict[str, Any], **headers: str) -> str:
    reply = customer.call("POST", SUBMIT, request, **headers)
    assert reply.status == 200, reply.body
    customer.jobs.append(reply.body["request_id"])
    return customer.jobs[-1]


def test_what_does_not_start_in_its_time_leaves_the_queue_and_is_not_asked_for_again(busy: Any, alice: Customer, service: ApiServer,
                                                                                     long: dict[str, Any]) -> None:
    running = busy(alice)
    late = submitted(alice, {**long, "seed": 1}, X_Fal_Request_Timeout="0.2")
    alice.wait(late)
    result = alice.result(late)
    assert (result.status, result.body["error_type"], result.headers["X-Fal-Request-Timeout-Type"]) == (504, "startup_timeout", "user")
    assert "0.2 s" in result.body["detail"] and result.headers["X-Fal-Retryable"] == "false"
    again = alice.call("POST", RUN, {**long, "seed": 2}, X_Fal_Request_Timeout="0.2")
    assert (again.status, again.headers["X-Fal-Request-Timeout-Type"]) == (504, "user")
    assert service.jobs() == (running, [])


def test_what_starts_in_its_time_goes_on_beyond_it(alice: Customer, fresh: dict[str, Any]) -> None:
    job = submitted(alice, fresh, X_Fal_Request_Start_Timeout="300")
    alice.wait(job)
    assert alice.result(job).status == 200


def test_a_start_timeout_ends_a_download_that_lasts(alice: Customer, web: Web, long: dict[str, Any]) -> None:
    with web.holding("/files/never.safetensors"):
        late = submitted(alice, {**long, "loras": [{"path": f"http://{web.host}/files/never.safetensors"}]}, X_Fal_Request_Timeout="0.2")
        alice.wait(late)
    assert alice.result(late).status == 504


def test_low_priority_waits_behind_what_comes_later(busy: Any, alice: Customer, service: ApiServer, long: dict[str, Any]) -> None:
    busy(alice)
    jobs = [submitted(alice, {**long, "seed": number}, **({"X-Fal-Queue-Priority": priority} if priority else {}))
            for number, priority in enumerate(("low", "normal", "low", ""))]
    positions = [alice.call("GET", f"{REQUESTS}/{job}/status").body["queue_position"] for job in jobs]
    assert positions == [2, 0, 3, 1]
    assert service.jobs()[1] == [jobs[place] for place in (1, 3, 0, 2)]


def test_a_private_job_leaves_no_text(alice: Customer, service: ApiServer, fresh: dict[str, Any], tmp_path: Path) -> None:
    """Its video has the same pictures as one that is not private, and nothing of what was asked."""
    secret = "a secret wish of nobody else"
    private = submitted(alice, {**fresh, "prompt": secret}, X_Fal_Store_IO="0", X_Fal_No_Retry="1")
    alice.wait(private)
    result = alice.result(private)
    assert (result.status, result.body["prompt"]) == (200, secret)
    clip = alice.download(result.body["video"]["url"], tmp_path / "private.mp4")
    assert clip.stat().st_size == result.body["video"]["file_size"] and not list((service.base / "output").rglob(f"{private}*.part"))
    kept = [path.read_bytes() for path in service.kept(private)] + [clip.read_bytes()]
    assert len(kept) == 2 and not any(secret.encode() in content for content in kept)
    assert secret not in service.shown()
    shown = submitted(alice, {**fresh, "prompt": secret})
    alice.wait(shown)
    other = alice.download(alice.result(shown).body["video"]["url"], tmp_path / "shown.mp4")
    assert secret.encode() in other.read_bytes() and videos.facts(clip) == videos.facts(other)


def test_a_video_goes_when_its_client_said(alice: Customer, video: dict[str, Any]) -> None:
    job = submitted(alice, video, **{LIFECYCLE: json.dumps({"expiration_duration_seconds": 0.3})})
    alice.wait(job)
    url, end = alice.result(job).body["video"]["url"], time.monotonic() + 60
    while alice.call("GET", url).status != 404:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert alice.result(job).status == 200


def test_webhooks_are_signed_as_the_hosted_services_and_anothers_verifier_takes_them(node: Any, alice: Customer, bob: Customer, service: ApiServer,
                                                                                     web: Web, long: dict[str, Any]) -> None:
    for customer, path in ((alice, "/signed"), (bob, "/signed_too")):
        job = customer.submit(long, f"?fal_webhook={quote(f'http://{web.host}{path}')}")
        customer.call("PUT", f"{REQUESTS}/{job}/cancel")
        web.message(path)
    mine = [(headers, body.decode()) for (path, _), (headers, body) in zip(web.posted, web.received, strict=True) if path.startswith("/signed")]
    headers, body = mine[0]
    forged = [(headers, body.replace("ERROR", "OK")), ({**headers, "X-Fal-Webhook-User-Id": mine[1][0]["X-Fal-Webhook-User-Id"]}, body),
              ({**headers, "X-Fal-Webhook-Timestamp": str(int(headers["X-Fal-Webhook-Timestamp"]) + 1)}, body)]
    assert headers["X-Fal-Webhook-Request-Id"] == json.loads(body)["request_id"]
    verdicts, _ = node("verify", [*mine, *forged], f"{service.url}/fal/.well-known/jwks.json")
    assert [verdict["isValid"] for verdict in verdicts] == [True, True, False, False, False], verdicts
    shown = json.dumps(Client(service).call("GET", "/fal/.well-known/jwks.json").body)
    assert not any(key in shown + json.dumps(headers) for key in (ALICE, BOB)) and '"d"' not in shown


def test_a_webhook_that_was_down_gets_its_message_when_it_is_up(alice: Customer, web: Web, long: dict[str, Any]) -> None:
    web.down.add("/down")
    job = alice.submit(long, f"?fal_webhook={quote(f'http://{web.host}/down')}")
    alice.call("PUT", f"{REQUESTS}/{job}/cancel")
    web.message("/down", times=5)
    web.down.remove("/down")
    before = sum(path == "/down" for path, _ in web.posted)
    assert web.message("/down", times=before + 1)["request_id"] == job


def test_log_lines_of_a_private_prompt_go_to_their_listener_alone(pack: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                                                  caplog: pytest.LogCaptureFixture) -> None:
    prompt_queue = importlib.import_module(f"{pack.__name__}.nodes.api.local.prompt_queue")
    log, other_lines, running = prompt_queue.log, [], [""]
    monkeypatch.setattr(prompt_queue, "get_executing_context", lambda: SimpleNamespace(prompt_id=running[0]) if running[0] else None)
    caplog.set_level(logging.DEBUG, log.logger.name)
    lines = prompt_queue.LogLines()
    try:
        for prompt in ("private", "shown"):
            lines.listen(prompt, lambda *line, prompt=prompt: other_lines.append((prompt, *line)), prompt == "private")
        for running[0] in ("private", "shown", "another", ""):
            log.warning("of %s", running[0] or "none")
            log.debug("more of %s", running[0])
        lines.end("private")
        running[0] = "private"
        log.info("after private")
    finally:
        log.logger.removeHandler(lines)
        log.logger.removeFilter(lines._is_for_all)
    assert other_lines == [("private", "of private", "WARNING"), ("shown", "of shown", "WARNING")]
    assert [line.removeprefix(prompt_queue.MARK) for line in caplog.messages if "more" not in line] == [
        "of shown", "of another", "of none", "after private"]
    assert "more of private" not in caplog.text


@pytest.mark.parametrize("delete", [True, False])
def test_over_a_restart_an_expired_video_goes_unless_the_owner_keeps_all(pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                         delete: bool) -> None:

    monkeypatch.setattr("folder_paths.get_output_directory", lambda: str(tmp_path))
    monkeypatch.setattr("folder_paths.get_system_user_directory", lambda name: str(tmp_path / name))
    service, jobs, headers, settings = (importlib.import_module(f"{pack.__name__}.nodes.api.{name}")
                                        for name in ("local.service", "jobs.job", "headers", "settings"))
    (tmp_path / "old.mp4").touch()
    job = jobs.Job("", 1, finished=1.0, answer=jobs.Answer(200, {}), video="old.mp4", preferences=headers.Preferences(video_seconds=5.0))
    asyncio.run(importlib.import_module(f"{pack.__name__}.nodes.api.jobs.store").JobStore(tmp_path / "wan22" / "requests").keep(job))

    async def restart() -> None:
        service.LocalService(settings.Settings(delete_videos=delete))
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)

    asyncio.run(restart())
    assert (tmp_path / "old.mp4").exists() is not delete
