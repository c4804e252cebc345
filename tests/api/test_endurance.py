"""Many clients at once, a server that is killed, and a server whose owner switched nothing on."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import videos
from comfyui import ComfyUI
from endpoint_client import Client, Reply
from hosted_contract import APP, OPENAPI, PROXY, REQUESTS, RUN, SUBMIT
from web_server import Web

CLIENTS = 50
MOST = 40


def test_fifty_clients_at_once_get_their_own_video_or_are_refused(start: Any, video: dict[str, Any], tmp_path: Path) -> None:
    """Sampled once, since only the frame rate differs: it tells whose video a video is."""
    rates = range(4, 4 + CLIENTS)

    def send(rate: int) -> Reply:
        return client.call("POST", SUBMIT, {**video, "frames_per_second": rate})

    with start({"enabled": True, "max_waiting": MOST}) as server, ThreadPoolExecutor(CLIENTS) as threads:
        client = Client(server)
        client.call("POST", RUN, video)
        replies = dict(zip(rates, threads.map(send, rates), strict=True))
        jobs = {rate: reply.body["request_id"] for rate, reply in replies.items() if reply.status == 200}
        assert len(jobs) >= MOST and len(set(jobs.values())) == len(jobs)
        assert {reply.body["error_type"] for reply in replies.values() if reply.status != 200} <= {"runner_scheduling_failure"}
        for rate, job in jobs.items():
            client.wait(job, seconds=300)
            clip = client.download(client.result(job).body["video"]["url"], tmp_path / f"{rate}.mp4")
            assert videos.facts(clip).rate == rate
        order = [entry["prompt"][1] for entry in server.get("/history").values()][1:]
        numbers = [entry["prompt"][0] for entry in server.get("/history").values()][1:]
        assert set(order) == set(jobs.values()) and numbers == sorted(numbers)


def test_what_was_done_outlives_a_kill_and_what_was_not_ends_with_an_error(start: Any, video: dict[str, Any], web: Web) -> None:
    first = start({"enabled": True, "webhooks": {"networks": ["127.0.0.0/8"], "plain_http": True}})
    with first as server:
        client = Client(server)
        done = client.submit(video)
        client.wait(done)
        made = client.result(done).body
        hook = f"?fal_webhook={quote(f'http://{web.host}/restarted')}"
        running, waiting = (client.submit({**video, "seed": seed, "num_inference_steps": 40}, hook if seed == 6 else "") for seed in (5, 6))
        client.wait(running, until=("IN_PROGRESS",))
        server.process.kill()
        server.process.wait()
    with start(base=first.base) as server:
        client = Client(server)
        again = client.result(done).body
        assert (again["seed"], again["video"]["file_name"]) == (made["seed"], made["video"]["file_name"])
        assert client.wait(done)["logs"]
        asked = f"https://queue.fal.run/{APP}/requests/{done}"
        seen = {(host, origin): client.call("GET", PROXY, x_fal_target_url=asked, Host=host, Origin=origin).status for host, origin in (
            ("localhost:3000", "http://localhost:3000"), ("localhost:3000", "null"), ("page.example:8188", "http://page.example:8188"))}
        assert list(seen.values()) == [200, 401, 401]  # a page's own server here, a page without a name, a page whose name was made to lead here
        assert client.call("GET", f"/view?filename={made['video']['file_name']}&subfolder=video/api").status == 200
        for job in (running, waiting):
            assert client.wait(job)["status"] == "COMPLETED"
            assert (client.result(job).status, client.result(job).body["error_type"]) == (500, "runner_disconnected")
            assert client.call("PUT", f"{REQUESTS}/{job}/cancel").body == {"status": "ALREADY_COMPLETED"}
        told = web.message("/restarted")
        assert (told["request_id"], told["status"], told["payload"]["error_type"]) == (waiting, "ERROR", "runner_disconnected")


def test_a_folder_that_cannot_be_used_costs_the_api_alone(start: Any) -> None:
    server = start({"enabled": True})
    (server.base / "user" / "__wan22" / "requests").write_text("no folder")
    with server:
        assert "the API stays off" in server.log()
        assert Client(server).call("POST", RUN, {"prompt": "x"}).status in (404, 405)
        assert "Wan22Sampler" in server.get("/object_info/Wan22Sampler")


@pytest.mark.parametrize(("value", "enabled"), [("1", True), ("True", True), (" on ", True), ("0", False), ("False", False), ("off", False),
                                                ("No", False), ("", True)])
def test_the_switch_in_the_environment_is_understood_however_it_is_written(pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str,
                                                                           enabled: bool) -> None:
    monkeypatch.setattr(pack.nodes.host.api.folder_paths, "get_system_user_directory", lambda name: str(tmp_path))
    monkeypatch.setenv("WAN22_API", value)
    (tmp_path / "api.json").write_text('{"enabled": true}')
    assert pack.nodes.host.api.settings().enabled is enabled


@pytest.mark.parametrize("path", [RUN, SUBMIT, PROXY])
def test_without_being_switched_on_nothing_is_there(server: ComfyUI, path: str) -> None:
    assert Client(server).call("POST", path, {"prompt": "x"}).status in (404, 405)
    assert Client(server).call("GET", OPENAPI).status == 404


@pytest.mark.parametrize(("settings", "message"), [
    ({"enabled": True, "keys": ["short"]}, "keys.0: String should have at least 16 characters"), ({"enable": True}, "enable: Extra inputs"),
    ([], "api.json"), ({"enabled": True, "downloads": {"hub": "ftp://x"}}, "api.json")])
def test_wrong_settings_are_told_without_their_values_and_leave_the_pack_whole(pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                               settings: Any, message: str) -> None:
    monkeypatch.setattr(pack.nodes.host.api.folder_paths, "get_system_user_directory", lambda name: str(tmp_path))
    (tmp_path / "api.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match="api.json") as refused:
        pack.nodes.host.api.settings()
    assert message in str(refused.value) and "short" not in str(refused.value).replace("shorter", "")


def test_what_is_missing_is_said_with_folder_and_link(pack: Any) -> None:
    api = pack.nodes.host.api
    models = api.chosen_models(api.Models(vae="absent.safetensors"))
    sentence = next(sentence for sentence in api.missing_models(models) if "absent" in sentence)
    assert "models/vae" in sentence and "https://huggingface.co/" in sentence
