"""@fal-ai/client and the programs that others built for the queue, unchanged, work with the server; fal's through the proxy and a middleware."""

from typing import Any

import pytest

import tiny_weights
from api_servers import ApiServer
from hosted_contract import LOG_LINE, OUTPUT


def test_the_example_prints_the_log_and_gets_the_video(javascript: Any, fresh: dict[str, Any]) -> None:
    result, printed = javascript("subscribe", fresh)
    assert set(result) == {"data", "requestId"} and set(result["data"]) == OUTPUT
    assert result["requestId"] and result["data"]["seed"] == fresh["seed"]
    assert result["data"]["video"]["content_type"] == "video/mp4" and printed


def test_a_job_is_followed_by_its_id(javascript: Any, video: dict[str, Any]) -> None:
    seen, _ = javascript("queue", video)
    identity = seen["submitted"]["request_id"]
    assert seen["submitted"]["status"] == "IN_QUEUE" and seen["submitted"]["queue_position"] >= 0
    for status in (seen["submitted"], seen["first"], seen["last"]):
        assert (status["request_id"], status["status_url"]) == (identity, seen["submitted"]["status_url"])
        assert "cancel_url" in status and "response_url" in status
    assert seen["last"]["status"] == "COMPLETED" and all(set(line) == LOG_LINE for line in seen["last"]["logs"])
    assert seen["result"]["requestId"] == identity != seen["run"]["requestId"] != ""
    assert seen["result"]["data"]["seed"] == seen["run"]["data"]["seed"]


def test_the_stream_tells_every_state_and_every_line_once(javascript: Any, fresh: dict[str, Any]) -> None:
    seen, _ = javascript("stream", fresh)
    states = [update["status"] for update in seen["updates"]]
    assert states == sorted(states, key=["IN_QUEUE", "IN_PROGRESS", "COMPLETED"].index)
    assert states[-1] == "COMPLETED" and states.count("COMPLETED") == 1
    lines = [tuple(sorted(line.items())) for line in seen["updates"][-1]["logs"]]
    assert lines and len(set(lines)) == len(lines)
    assert seen["result"]["data"]["seed"] == fresh["seed"]


def test_cancelling_stops_a_job_that_runs(idle: Any, javascript: Any, long: dict[str, Any]) -> None:
    seen, _ = javascript("cancel", long)
    assert seen["status"]["status"] == "COMPLETED"
    assert seen["error"]["name"] == "ApiError" and seen["error"]["status"] >= 400
    assert seen["error"]["requestId"] == seen["requestId"]
    assert seen["error"]["body"]["detail"] and seen["error"]["body"]["error_type"]
    assert idle()


def test_a_wrong_value_is_a_validation_error_with_its_field(javascript: Any, video: dict[str, Any]) -> None:
    errors, _ = javascript("refused", "no-such-id", {**video, "num_frames": 162})
    for call in ("run", "subscribe"):
        assert (errors[call]["name"], errors[call]["status"]) == ("ValidationError", 422)
        (entry,) = errors[call]["fieldErrors"]
        assert entry["loc"] == ["body", "num_frames"] and entry["msg"] and entry["type"]
    assert errors["nothing"]["status"] == 422


def test_what_is_not_there_is_not_found(javascript: Any, video: dict[str, Any]) -> None:
    errors, _ = javascript("refused", "3f2b0e0c-0000-4000-8000-000000000000", {**video, "num_frames": 1})
    assert [errors[call]["status"] for call in ("result", "stream", "elsewhere")] == [404, 404, 404]
    assert errors["result"]["body"]["detail"]


def test_vercels_sdk_which_polls_nothing_but_the_result_gets_the_video(node: Any, endpoint: ApiServer, fresh: dict[str, Any]) -> None:
    made, _ = node("vercel", fresh)
    assert made["polls"] > 1, "it asked before there was one"
    assert made["mediaType"] == "video/mp4" and made["bytes"] > 1000
    assert made["metadata"]["seed"] == fresh["seed"] and made["metadata"]["videos"][0]["url"].startswith(endpoint.url)


def test_tanstacks_adapter_gets_the_video(node: Any, endpoint: ApiServer, fresh: dict[str, Any]) -> None:
    made, _ = node("tanstack", fresh)
    assert made["states"][-1] == "completed" and set(made["states"][:-1]) <= {"pending", "processing"}
    assert made["url"].startswith(endpoint.url + endpoint.videos)


@pytest.mark.parametrize("javascript", ["middleware"], indirect=True)
def test_an_uploaded_lora_is_a_lora(idle: Any, javascript: Any, endpoint: ApiServer, fresh: dict[str, Any]) -> None:
    """Also one that stands in the request as a file, which the client uploads by itself."""
    lora = endpoint.base / "models" / "loras" / tiny_weights.LORAS[0].format("high")
    seen, _ = javascript("upload", fresh, str(lora), "no tensors at all")
    assert seen["url"].startswith(f"{endpoint.url}/fal/storage/files/")
    assert seen["result"]["seed"] == fresh["seed"] and seen["requestId"]
    assert (seen["refused"]["status"], seen["refused"]["name"]) == (422, "ValidationError")
    (kept,) = endpoint.uploads.glob("mine-*.safetensors")
    assert kept.read_bytes() == lora.read_bytes() and not list(endpoint.uploads.glob("clip*"))
    assert idle()


@pytest.mark.parametrize("javascript", ["proxy"], indirect=True)
def test_a_large_upload_comes_in_parts(javascript: Any, endpoint: ApiServer) -> None:
    bytes_of_tensor = 91 * 2**20  # the client's threshold is 90 MB
    seen, _ = javascript("upload_parts", bytes_of_tensor)
    (kept,) = endpoint.uploads.glob("large-*.safetensors")
    assert seen["url"] and bytes_of_tensor < kept.stat().st_size < bytes_of_tensor + 1000
    kept.unlink()
