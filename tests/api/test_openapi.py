"""The OpenAPI document is valid, whole, and says what the code checks."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openapi_spec_validator
import pytest
from wan22.api import errors
from wan22.api.contract import TextToVideoInput
from wan22.api.openapi import document

import hosted_contract as hosted

OPERATIONS = {
    (hosted.RUN, "post"): {"200", "400", "401", "413", "422", "499", "500", "504", "503"},
    (hosted.SUBMIT, "post"): {"200", "400", "401", "413", "422", "500", "503"},
    (f"{hosted.REQUESTS}/{{request_id}}/status", "get"): {"200", "202", "400", "401", "404"},
    (f"{hosted.REQUESTS}/{{request_id}}/status/stream", "get"): {"200", "400", "401", "404"},
    (f"{hosted.REQUESTS}/{{request_id}}", "get"): {"200", "400", "401", "404", "422", "499", "500", "504", "503"},
    (f"{hosted.REQUESTS}/{{request_id}}/cancel", "put"): {"202", "400", "401", "404"}}


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return json.loads(json.dumps(document("http://127.0.0.1:8188/wan22/"), allow_nan=False))


def test_it_is_valid(written: dict[str, Any]) -> None:
    openapi_spec_validator.validate(written)


def test_it_has_every_operation_and_every_answer(written: dict[str, Any]) -> None:
    statuses = {(path, method): set(operation["responses"]) for path, methods in written["paths"].items() for method, operation in methods.items()}
    assert statuses == OPERATIONS
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
    for name, number in hosted.NUMBERS.items():
        field = schema["properties"][name]
        limits = field["anyOf"][0] if number.default is None else field
        assert (limits["minimum"], limits["maximum"]) == (number.low, number.high)
    assert schema["properties"]["seed"]["anyOf"][0]["maximum"] == hosted.NUMBERS["seed"].high
    assert written["components"]["schemas"]["LoRAWeight"]["properties"]["transformer"]["enum"] == list(hosted.TRANSFORMERS)


def answers(written: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Operation, status and media of every answer in JSON."""
    for methods in written["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if "application/json" in response["content"]:
                    yield operation["operationId"], status, response["content"]["application/json"]


def test_every_answer_has_an_example_that_fits_its_schema(written: dict[str, Any]) -> None:
    for operation, status, media in answers(written):
        assert media["examples"], (operation, status)
        for example in media["examples"].values():
            jsonschema.validate(example["value"], {**media["schema"], "components": written["components"]}, cls=jsonschema.Draft202012Validator)


def test_the_examples_are_the_servers_own_words(written: dict[str, Any]) -> None:
    """As errors.py and contract.py say them; tests/api/local compares the server's answers with the document."""
    shown = {(operation, status): [example["value"] for example in media["examples"].values()] for operation, status, media in answers(written)}
    assert shown["result", "400"] == [errors.StillInProgress().body()]
    assert shown["run", "422"][0]["detail"][0]["input"] == 1
    assert [state["status"] for state in shown["status", "202"] + shown["status", "200"]] == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    assert shown["status", "200"][0]["metrics"] == {"inference_time": 90.5}
    assert {field for state in shown["status", "202"] for line in state.get("logs", []) for field in line} == hosted.LOG_LINE
    assert set(shown["result", "200"][0]) == hosted.OUTPUT and set(shown["result", "200"][0]["video"]) == hosted.FILE
