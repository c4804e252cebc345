"""fal-client, unchanged, works with the server: what its documentation shows, and how it fails."""

import io
import urllib.request
from typing import Any

import av

from api_servers import ApiServer
from hosted_contract import ASKED_AGAIN, LOG_LINE, OUTPUT, REQUESTS


def frames(server: ApiServer, result: dict[str, Any]) -> tuple[int, int, int]:
    """Frames, width and height of the video that a result names."""
    with urllib.request.urlopen(result["video"]["url"], timeout=60, context=server.trusted) as answer:
        content = answer.read()
    assert answer.headers["Content-Type"] == result["video"]["content_type"] == "video/mp4"
    assert len(content) == result["video"]["file_size"] and result["video"]["file_name"].endswith(".mp4")
    with av.open(io.BytesIO(content)) as file:
        pictures = list(file.decode(video=0))
    return len(pictures), pictures[0].width, pictures[0].height


def test_the_example_prints_the_log_and_gets_the_video(endpoint: ApiServer, python: Any, fresh: dict[str, Any]) -> None:
    result, printed = python("subscribe", fresh)
    assert set(result) == OUTPUT and (result["prompt"], result["seed"]) == (fresh["prompt"], fresh["seed"])
    assert frames(endpoint, result) == (17, 624, 624)
    assert printed and all(printed)


def test_one_request_is_enough(endpoint: ApiServer, python: Any, video: dict[str, Any]) -> None:
    result, _ = python("run", video)
    assert frames(endpoint, result) == (17, 624, 624)


def test_without_a_seed_every_video_is_another(python: Any, video: dict[str, Any]) -> None:
    without = {name: value for name, value in video.items() if name != "seed"}
    assert python("run", without)[0]["seed"] != python("run", without)[0]["seed"]


def test_a_job_is_watched_through_all_its_states(python: Any, fresh: dict[str, Any]) -> None:
    seen, _ = python("handle", fresh)
    kinds = [kind for kind, before in zip(seen["kinds"], [None, *seen["kinds"]], strict=False) if kind != before]
    assert kinds in (["Queued", "InProgress", "Completed"], ["InProgress", "Completed"])
    assert all(position >= 0 for position in seen["positions"])
    assert (seen["status"], seen["error"]) == ("Completed", None)
    assert seen["result"] == seen["again"] and seen["result"]["seed"] == fresh["seed"]


def test_logs_only_grow(python: Any, fresh: dict[str, Any]) -> None:
    logs = python("handle", fresh)[0]["logs"]
    assert all(later[:len(earlier)] == earlier for earlier, later in zip(logs, logs[1:], strict=False))
    assert logs[-1] and all(set(line) == LOG_LINE for line in logs[-1])


def test_the_urls_of_a_job_lead_back_to_the_server(endpoint: ApiServer, python: Any, video: dict[str, Any]) -> None:
    seen, _ = python("handle", video)
    job = f"{endpoint.url}{REQUESTS}/{seen['request_id']}"
    assert seen["urls"] == [job, f"{job}/status", f"{job}/cancel"]


def test_the_asynchronous_client_does_the_same(python: Any, fresh: dict[str, Any]) -> None:
    seen, _ = python("asynchronous", fresh)
    assert seen["kinds"][-1] == seen["updates"][-1] == seen["status"] == "Completed"
    assert {result["seed"] for result in seen["results"]} == {fresh["seed"]}
    assert len({result["video"]["url"] for result in seen["results"]}) == 3  # one is asked twice


def test_cancelling_stops_jobs_that_run_and_one_that_waits(idle: Any, endpoint: ApiServer, python: Any, long: dict[str, Any]) -> None:
    jobs = [{**long, "seed": number} for number in range(endpoint.workers + 1)]
    seen, _ = python("cancel", *jobs)
    assert seen["position"] == 0 or seen["position"] == 1
    assert seen["seconds"] < 30
    assert len(seen["errors"]) == len(jobs)
    for status, message, error_type in seen["errors"]:
        assert status >= 400 and status not in ASKED_AGAIN and message and error_type
    assert idle()


def test_giving_up_cancels_the_job(idle: Any, python: Any, long: dict[str, Any]) -> None:
    seen, _ = python("give_up", 3, long)
    assert seen["timeout"] == 3 and seen["request_id"]
    python("run", {**long, "num_inference_steps": 2})
    assert idle()


def test_a_wrong_value_is_raised_with_its_field(python: Any, video: dict[str, Any]) -> None:
    errors, _ = python("refused", "no-such-id", {**video, "num_frames": 162, "resolution": "4k"})
    for call in ("run", "subscribe", "subscribe_async"):
        assert errors[call]["status"] == 422
        assert {tuple(entry["loc"]) for entry in errors[call]["message"]} == {("body", "num_frames"), ("body", "resolution")}
        assert all({"loc", "msg", "type", "url"} <= set(entry) for entry in errors[call]["message"])


def test_an_unknown_job_is_not_found(python: Any, video: dict[str, Any]) -> None:
    errors, _ = python("refused", "3f2b0e0c-0000-4000-8000-000000000000", {**video, "num_frames": 1})
    assert [errors[call]["status"] for call in ("status", "result", "cancel")] == [404, 404, 404]
