"""The OpenAPI document is valid, whole, and says what the code checks."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from engine.api import errors
from engine.api.openapi import document
from engine.api.schema import APP, ENDPOINT, MAX_SEED, TextToVideoInput

OPERATIONS = {
    (f"/{ENDPOINT}", "post"): {"200", "401", "413", "422", "499", "500", "503"},
    (f"/queue/{ENDPOINT}", "post"): {"200", "401", "413", "422", "500", "503"},
    (f"/queue/{APP}/requests/{{request_id}}/status", "get"): {"200", "202", "401", "404"},
    (f"/queue/{APP}/requests/{{request_id}}/status/stream", "get"): {"200", "401", "404"},
    (f"/queue/{APP}/requests/{{request_id}}", "get"): {"200", "400", "401", "404", "422", "499", "500", "503"},
    (f"/queue/{APP}/requests/{{request_id}}/cancel", "put"): {"202", "400", "401", "404"}}


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return json.loads(json.dumps(document("http://127.0.0.1:8188/wan22/"), allow_nan=False))


def test_it_is_valid(written: dict[str, Any]) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(written)


def test_it_has_every_operation_and_every_answer(written: dict[str, Any]) -> None:
    found = {(path, method): set(operation["responses"]) for path, methods in written["paths"].items() for method, operation in methods.items()}
    assert found == OPERATIONS
    names = [operation["operationId"] for methods in written["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)


def test_it_names_the_server_and_the_key(written: dict[str, Any]) -> None:
    assert written["openapi"].startswith("3.1")
    assert written["servers"] == [{"url": "http://127.0.0.1:8188/wan22"}]
    assert written["security"] == [{"key": []}]
    key = written["components"]["securitySchemes"]["key"]
    assert (key["type"], key["in"], key["name"]) == ("apiKey", "header", "Authorization")


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_it_holds_all_it_refers_to_and_nothing_else(written: dict[str, Any]) -> None:
    assert {name.rpartition("/")[2] for name in references(written)} == set(written["components"]["schemas"])
    assert all(name.startswith("#/components/schemas/") for name in references(written))


def test_the_request_is_the_one_that_is_parsed(written: dict[str, Any]) -> None:
    schema = written["components"]["schemas"]["TextToVideoInput"]
    assert schema["required"] == ["prompt"]
    assert list(schema["properties"]) == list(TextToVideoInput.model_fields)
    assert all(field["description"] for field in schema["properties"].values())
    assert {name: field["default"] for name, field in schema["properties"].items() if name != "prompt"} == {
        name: field.default for name, field in TextToVideoInput.model_fields.items() if name != "prompt"}
    frames = schema["properties"]["num_frames"]
    assert (frames["minimum"], frames["maximum"]) == (17, 161)
    assert schema["properties"]["seed"]["anyOf"][0]["maximum"] == MAX_SEED
    assert written["components"]["schemas"]["LoRAWeight"]["properties"]["transformer"]["enum"] == ["high", "low", "both"]


def test_real_answers_fit_it(written: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    job = {"request_id": "1", "response_url": "http://a/1", "status_url": "http://a/1/status", "cancel_url": "http://a/1/cancel"}
    line = {"message": "step 1", "level": "INFO", "source": "USER", "timestamp": "2026-11-01T00:00:00Z"}
    answers = [
        ("Submitted", {"status": "IN_QUEUE", **job, "queue_position": 0}),
        ("Status", {"status": "IN_QUEUE", **job, "queue_position": 2}),
        ("Status", {"status": "IN_PROGRESS", **job, "logs": [line]}),
        ("Status", {"status": "COMPLETED", **job, "logs": [], "metrics": {"inference_time": 1.5}}),
        ("Cancellation", {"status": "ALREADY_COMPLETED"}),
        ("TextToVideoOutput", {"video": {"url": "http://a/v.mp4", "content_type": "video/mp4", "file_name": "v.mp4", "file_size": 1}, "prompt": "a",
                               "seed": 1}),
        ("ModelError", errors.ContentPolicyViolation("a").body()),
        ("InfrastructureError", errors.QueueFull(8).body())]
    for name, answer in answers:
        jsonschema.validate(answer, {"$ref": f"#/components/schemas/{name}", "components": written["components"]},
                            cls=jsonschema.Draft202012Validator)
