"""Errors have fal's two forms, and what they echo can always be sent."""

import json
import random
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator
from wan22.api.errors import (
    MAX_DETAILS,
    ApiError,
    BadRequest,
    Cancelled,
    ContentPolicyViolation,
    Detail,
    InfrastructureError,
    InternalError,
    InvalidRequest,
    KeysMissing,
    ModelsMissing,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    Restarted,
    StartTimeout,
    StillInProgress,
    Unauthorized,
)

import hosted_contract as hosted

INFRASTRUCTURE = [
    (StillInProgress(), 400, "bad_request"), (BadRequest("no host"), 400, "bad_request"),
    (Unauthorized(), 401, "unauthorized"), (NotFound("The request"), 404, "not_found"),
    (PayloadTooLarge(262144), 413, "payload_too_large"), (Cancelled(), 499, "client_cancelled"), (InternalError("no memory"), 500, "internal_error"),
    (StartTimeout(2.5), 504, "startup_timeout"), (KeysMissing("it came from 172.17.0.1"), 401, "unauthorized"),
    (Restarted(), 500, "runner_disconnected"), (QueueFull(8), 503, "runner_scheduling_failure"),
    (ModelsMissing("a.safetensors"), 503, "models_missing")]
ASKED_AGAIN = {408, 409, 429}


def sent(error: ApiError) -> Any:
    """What a client reads."""
    return json.loads(json.dumps(error.body(), ensure_ascii=False, allow_nan=False).encode("utf-8"))


@pytest.mark.parametrize(("error", "status", "kind"), INFRASTRUCTURE, ids=lambda value: type(value).__name__)
def test_infrastructure_errors(error: InfrastructureError, status: int, kind: str) -> None:
    assert (error.status, error.error_type) == (status, kind)
    assert {"detail": str(error), "error_type": kind}.items() <= sent(error).items() and set(sent(error)) <= {"detail", "error_type", "hint"}
    assert error.headers()["X-Fal-Error-Type"] == kind
    assert error.status not in ASKED_AGAIN
    assert isinstance(error, ApiError)


def test_only_a_full_queue_is_worth_asking_again() -> None:
    assert [type(error) for error, *_ in INFRASTRUCTURE if error.headers()["X-Fal-Retryable"] == "true"] == [QueueFull]


def test_a_job_that_is_not_complete_is_told_in_fals_own_letters_and_advice_beside_them() -> None:
    body = sent(StillInProgress())
    assert body["detail"] == hosted.STILL_IN_PROGRESS and "status_url" in body["hint"]


def test_a_start_timeout_is_the_callers_own() -> None:
    assert StartTimeout(2.5).headers()["X-Fal-Request-Timeout-Type"] == "user" and "2.5 s" in str(StartTimeout(2.5))


def test_messages_name_limit_and_cure() -> None:
    assert all(word in str(KeysMissing("it came from 172.17.0.1")) for word in ("172.17.0.1", "`keys`", "WAN22_API_KEY"))
    assert "262144 bytes" in str(PayloadTooLarge(262144))
    assert "8 requests" in str(QueueFull(8))
    assert "Authorization: Key" in str(Unauthorized())


def test_validation_errors_have_fals_form() -> None:
    class Model(BaseModel):
        num_frames: int = Field(ge=17)
        prompt: str

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"num_frames": 16})
    error = InvalidRequest.of(caught.value)
    assert error.status == 422
    assert sent(error) == {"detail": [
        {"loc": ["body", "num_frames"], "msg": "Input should be greater than or equal to 17", "type": "greater_than_equal",
         "url": "https://docs.fal.ai/errors#greater_than_equal", "ctx": {"ge": 17}, "input": 16},
        {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing", "url": "https://docs.fal.ai/errors#missing",
         "input": {"num_frames": 16}}]}
    assert str(error) == "body.num_frames: Input should be greater than or equal to 17; body.prompt: Field required"
    assert error.headers() == {"X-Fal-Retryable": "false"}


def test_errors_within_a_validator_can_be_sent() -> None:
    class Model(BaseModel):
        text: str

        @field_validator("text")
        @classmethod
        def refused(cls, text: str) -> str:
            raise ValueError("not this text")

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"text": "a"})
    (detail,) = sent(InvalidRequest.of(caught.value))["detail"]
    assert detail["ctx"] == {"error": "not this text"}


def test_a_million_mistakes_are_not_all_told() -> None:
    class Model(BaseModel):
        numbers: list[int]

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"numbers": ["x"] * 5000})
    assert len(InvalidRequest.of(caught.value).body()["detail"]) == MAX_DETAILS


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("echoed", [
    float("nan"), float("inf"), [float("-inf")], "\ud800", ["\udfff"], {"\ud800": 1}, {"a": object()}, {(1, 2): 3}, b"\xff", 10**3000, 10**9000,
    "狐" * 100_000, "\ud800" * 100_000, ["x"] * 100_000, nested(300), nested(100_000), ValueError("a"), {1, 2}, None, True, 0.5, ""],
    ids=lambda value: type(value).__name__)
def test_whatever_was_sent_can_be_echoed(echoed: Any) -> None:
    entry = sent(InvalidRequest([Detail(("body", "prompt"), "wrong", "value_error", echoed, {"found": echoed})]))["detail"][0]
    assert len(json.dumps(entry["input"], ensure_ascii=False).encode()) <= 2048
    assert set(entry) == {"loc", "msg", "type", "url", "ctx", "input"}


@pytest.mark.parametrize("echoed", [None, True, 0.5, 16, "a \U0001f98a", ["x"], {"a": [1, None]}, "a" * 1000])
def test_short_values_are_echoed_as_they_are(echoed: Any) -> None:
    assert Detail(("body",), "wrong", "value_error", echoed).body().input == echoed


def test_absent_parts_are_left_out() -> None:
    assert Detail(("body",), "wrong", "json_invalid").body().model_fields_set == {"loc", "msg", "type", "url"}


def test_content_policy_violation() -> None:
    error = ContentPolicyViolation("a forbidden prompt", "unsafe 0.97, the threshold is 0.5.")
    assert error.status == 422
    (detail,) = sent(error)["detail"]
    assert detail["msg"].endswith("flagged by a content checker. unsafe 0.97, the threshold is 0.5.")
    assert {name: detail[name] for name in ("loc", "type", "url", "input")} == {
        "loc": ["body", "prompt"], "type": "content_policy_violation", "url": "https://docs.fal.ai/errors#content_policy_violation",
        "input": "a forbidden prompt"}
    assert error.headers() == {"X-Fal-Retryable": "false"}


def test_long_texts_of_failed_jobs_can_be_sent() -> None:
    draw = random.Random(1)
    text = "".join(chr(draw.randrange(0x11000)) for _ in range(5000))
    assert len(sent(InternalError(text))["detail"]) < 2000
