"""The calls of fal's documentation, by hand."""

import time
from typing import Any

import pytest

from api_servers import ApiServer
from endpoint_client import Client
from hosted_contract import APP, ENDPOINT, FILE, OPENAPI, PROXY, REQUESTS, RUN, SUBMIT

UNKNOWN = "3f2b0e0c-0000-4000-8000-000000000000"


def completed(curl: Any, url: str) -> dict[str, Any]:
    """The last status; before it, every answer is 202."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        code, status = curl("GET", f"{url}?logs=1")
        if status["status"] == "COMPLETED":
            assert code == 200
            return status
        assert code == 202 and status["status"] in ("IN_QUEUE", "IN_PROGRESS")
        assert ("logs" if status["status"] == "IN_PROGRESS" else "queue_position") in status
        time.sleep(0.1)
    raise TimeoutError(url)


def test_a_call_waits_for_the_video(curl: Any, video: dict[str, Any]) -> None:
    code, result = curl("POST", RUN, video)
    assert code == 200 and set(result["video"]) == FILE


@pytest.mark.parametrize("path", [f"/queue/{APP}", f"/queue/{ENDPOINT}"], ids=["short path", "full path"])
def test_a_job_is_submitted_watched_and_fetched(curl: Any, fresh: dict[str, Any], path: str) -> None:
    code, submitted = curl("POST", SUBMIT, fresh)
    assert code == 200
    assert {"status", "request_id", "response_url", "status_url", "cancel_url", "queue_position"} <= set(submitted)
    job = f"{path}/requests/{submitted['request_id']}"
    assert curl("GET", job)[0] == 400, "it is not done yet"
    assert completed(curl, f"{job}/status")["logs"]
    assert curl("GET", job)[1]["seed"] == curl("GET", submitted["response_url"])[1]["seed"] == fresh["seed"]
    assert curl("PUT", f"{job}/cancel") == (400, {"status": "ALREADY_COMPLETED"})


def test_a_job_is_cancelled(emptied: ApiServer, curl: Any, long: dict[str, Any]) -> None:
    _, submitted = curl("POST", SUBMIT, long)
    assert curl("PUT", submitted["cancel_url"]) == (202, {"status": "CANCELLATION_REQUESTED"})
    completed(curl, submitted["status_url"])
    assert curl("GET", submitted["response_url"])[0] == 499


def test_an_unknown_job_is_not_found(curl: Any) -> None:
    job = f"{REQUESTS}/{UNKNOWN}"
    assert curl("PUT", f"{job}/cancel") == (404, {"status": "NOT_FOUND"})
    for path in (job, f"{job}/status", f"{job}/status/stream"):
        code, error = curl("GET", path)
        assert code == 404 and error["detail"] and error["error_type"]


@pytest.mark.parametrize("path", [RUN, SUBMIT])
def test_a_wrong_value_is_refused_with_its_field(curl: Any, video: dict[str, Any], path: str) -> None:
    code, error = curl("POST", path, {**video, "loras": [{"path": "a.safetensors", "scale": 5}]})
    assert code == 422
    (entry,) = error["detail"]
    assert entry["loc"] == ["body", "loras", 0, "scale"] and entry["input"] == 5 and entry["ctx"] == {"le": 4.0}


def test_without_keys_pages_of_this_machine_are_answered_and_no_others(endpoint: ApiServer, video: dict[str, Any]) -> None:
    client = Client(endpoint)
    job = client.submit(video)
    client.wait(job)
    asked = f"https://queue.fal.run/{APP}/requests/{job}"
    seen = {(host, origin): client.call("GET", PROXY, x_fal_target_url=asked, Host=host, Origin=origin).status for host, origin in (
        ("localhost:3000", "http://localhost:3000"), ("localhost:3000", "null"), ("page.example:8188", "http://page.example:8188"))}
    assert list(seen.values()) == [200, 401, 401]  # a page's own server here, a page without a name, a page whose name was made to lead here


def test_the_document_describes_what_is_served(curl: Any, endpoint: ApiServer) -> None:
    code, document = curl("GET", OPENAPI)
    assert code == 200 and document["openapi"].startswith("3.") and {RUN, SUBMIT} <= set(document["paths"])
    assert document["servers"] == [{"url": endpoint.url}]
