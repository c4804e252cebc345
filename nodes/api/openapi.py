"""The OpenAPI document of the HTTP API: for the reference page, and for programs that write clients.

OpenAPI 3.1 and not 3.0: its schemas are JSON Schema 2020-12, which is what pydantic writes, so the document is what `parse` checks, unchanged;
3.0 has no null type and would need a translation of it. FastAPI writes 3.1 as well. Its examples are made by the code that answers.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, RootModel
from pydantic.json_schema import models_json_schema

from . import contract
from .contract import ENDPOINT, MAX_BODY_BYTES, Cancellation, Completed, InProgress, InQueue, TextToVideoInput, TextToVideoOutput, VideoFile
from .errors import (
    ApiError,
    BadRequest,
    Cancelled,
    ContentPolicyViolation,
    InfrastructureBody,
    InternalError,
    InvalidRequest,
    ModelErrorBody,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    StartTimeout,
    StillInProgress,
    Unauthorized,
)
from .headers import QUEUE
from .jobs.job import Answer, Job

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
PROMPT, SEED, SECONDS = "A lighthouse in a storm.", 7, 1767225600.0  # of the examples
VIDEO = TextToVideoOutput(prompt=PROMPT, seed=SEED, video=VideoFile(
    url="http://127.0.0.1:8188/view?filename=clip_00001_.mp4&subfolder=video%2Fapi&type=output", content_type="video/mp4",
    file_name="clip_00001_.mp4", file_size=1_048_576)).model_dump()


class Status(RootModel[Annotated[InQueue | InProgress | Completed, Field(discriminator="status")]]):
    """How far a request is."""


class CancelledTooLate(RootModel[Cancellation | InfrastructureBody]):
    """It is complete already, or the request cannot be read."""


MODELS: tuple[type[BaseModel], ...] = (TextToVideoInput, TextToVideoOutput, InQueue, Status, Cancellation, CancelledTooLate, InfrastructureBody,
                                       ModelErrorBody)


def document(server_url: str) -> Json:
    """The document of a server at `server_url`, such as http://127.0.0.1:8188/wan22."""
    url = server_url.rstrip("/")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Wan 2.2 text-to-video with LoRAs", "version": "1.0.0",
                 "description": f"{ENDPOINT} on your own GPU. The clients of the hosted endpoint work with it."},
        "servers": [{"url": url or "/"}],
        "security": [{"key": []}],
        "paths": {path: {contract.METHODS[path].lower(): operation} for path, operation in {
            contract.RUN: _run(), contract.SUBMIT: _submit(url), contract.STATUS: _status(url), contract.STREAM: _stream(),
            contract.REQUEST: _result(), contract.CANCEL: _cancel()}.items()},
        "components": {"schemas": _schemas(), "securitySchemes": {"key": {
            "type": "apiKey", "in": "header", "name": "Authorization", "description": "'Key ' and the server's key, where it has one."}}}}


def _run() -> Json:
    return {"operationId": "run", "summary": "Make a video and wait for it", "requestBody": _body(),
            "responses": {"200": _json("The video.", "TextToVideoOutput", VIDEO), **_unreadable(), **_refusals(), **_cancelled(), **_late(),
                          **_failures()}}


def _submit(url: str) -> Json:
    webhook = {"name": "fal_webhook", "in": "query", "schema": {"type": "string", "format": "uri"},
               "description": "Told with a POST of {request_id, status, payload} when the video is there or has failed."}
    return {"operationId": "submit", "summary": "Put a video into the queue", "parameters": [webhook], "requestBody": _body(),
            "responses": {"200": _json("It waits.", "InQueue", _submitted(url)), **_unreadable(), **_refusals(), **_failures()}}


def _status(url: str) -> Json:
    waits, runs, complete = (contract.body(contract.state(_job(*stages), url + QUEUE, 2, with_logs=True))
                             for stages in ((), (_begun,), (_begun, _complete)))
    return {"operationId": "status", "summary": "How far a request is", "parameters": [_request_id(), _logs()],
            "responses": {"200": _json("It is complete; its result tells whether it failed.", "Status", complete),
                          "202": _json("It waits or runs.", "Status", waits, runs), **_unreadable(), **_unknown()}}


def _stream() -> Json:
    events = {"description": "A status per event, until it is complete.", "content": {"text/event-stream": {"schema": TEXT}}}
    return {"operationId": "stream_status", "summary": "How far a request is, as it goes", "parameters": [_request_id(), _logs(), _preview()],
            "responses": {"200": events, **_unreadable(), **_unknown()}}


def _result() -> Json:
    return {"operationId": "result", "summary": "The video of a request", "parameters": [_request_id()],
            "responses": {"200": _json("The video.", "TextToVideoOutput", VIDEO), **_error_answers("It is still in progress.", StillInProgress()),
                          **_error_answers("It was refused by a safety check.", ContentPolicyViolation(PROMPT, "unsafe 0.97, the threshold is 0.5.")),
                          **_cancelled(), **_late(), **_failures(), **_unknown()}}


def _cancel() -> Json:
    late = _json("It is complete already, or the request cannot be read.", "CancelledTooLate", _cancellation("ALREADY_COMPLETED"))
    return {"operationId": "cancel", "summary": "Cancel a request", "parameters": [_request_id()],
            "responses": {"202": _json("It will stop.", "Cancellation", _cancellation("CANCELLATION_REQUESTED")),
                          "400": late, **_error_answers("The key is missing or wrong.", Unauthorized()),
                          "404": _json("There is no such request.", "Cancellation", _cancellation("NOT_FOUND"))}}


def _submitted(url: str) -> Json:
    return contract.body(contract.submitted(_job(), url + QUEUE, 0))


def _cancellation(outcome: Literal["CANCELLATION_REQUESTED", "ALREADY_COMPLETED", "NOT_FOUND"]) -> Json:
    return contract.body(Cancellation(status=outcome))


def _job(*stages: Callable[[Job], None]) -> Job:
    """The request of the examples, after what happened to it."""
    job = Job("", SEED, request_id="3f2b0e0c-6a53-4c7f-9d0e-2f1f5f0c9f11")
    for happens in stages:
        happens(job)
    return job


def _begun(job: Job) -> None:
    job.start()
    job.started = SECONDS + 1
    job.say("Sampler: 3 of 27")
    job.logs[-1]["timestamp"] = "2026-01-01T00:00:02+00:00"


def _complete(job: Job) -> None:
    job.complete(Answer(200, VIDEO))
    job.finished = SECONDS + 91.5


def _body() -> Json:
    return {"required": True, "content": {"application/json": {"schema": _reference("TextToVideoInput"), "example": {"prompt": PROMPT}}}}


def _json(description: str, name: str, *examples: Json) -> Json:
    shown = {f"example{number}": {"value": example} for number, example in enumerate(examples, 1)}
    return {"description": description, "content": {"application/json": {"schema": _reference(name), "examples": shown}}}


def _error_answers(description: str, *errors: ApiError) -> Json:
    """The answer under its status; all errors have the same."""
    name = "ModelErrorBody" if isinstance(errors[0], InvalidRequest) else "InfrastructureBody"
    return {str(errors[0].status): _json(description, name, *(error.body() for error in errors))}


def _unreadable() -> Json:
    return _error_answers("The request cannot be read.", BadRequest("The header Host holds no host."))


def _refusals() -> Json:
    return {**_error_answers("The key is missing or wrong.", Unauthorized()),
            **_error_answers(f"The body is longer than {MAX_BODY_BYTES} bytes.", PayloadTooLarge(MAX_BODY_BYTES)),
            **_error_answers("The request is not valid, or a safety check refused it.", _refused(), ContentPolicyViolation(PROMPT))}


def _refused() -> InvalidRequest:
    try:
        contract.parse(b'{"prompt": "A lighthouse in a storm.", "num_frames": 1}')
    except InvalidRequest as error:
        return error
    raise AssertionError("one frame is no video")


def _cancelled() -> Json:
    return _error_answers("It was cancelled.", Cancelled())


def _late() -> Json:
    return _error_answers("It did not start in the time of its X-Fal-Request-Start-Timeout.", StartTimeout(30))


def _failures() -> Json:
    return {**_error_answers("It failed.", InternalError("OSError. The server's log says more.")),
            **_error_answers("The queue is full, or models are missing.", QueueFull(100))}


def _unknown() -> Json:
    return {**_error_answers("The key is missing or wrong.", Unauthorized()), **_error_answers("There is no such request.", NotFound("Request 1"))}


def _request_id() -> Json:
    return {"name": "request_id", "in": "path", "required": True, "schema": TEXT}


def _logs() -> Json:
    return {"name": "logs", "in": "query", "schema": {"type": "integer", "enum": [0, 1], "default": 0}, "description": "1 to get the log too."}


def _preview() -> Json:
    return {"name": "preview", "in": "query", "schema": {"type": "integer", "enum": [0, 1], "default": 0},
            "description": "1 to see the clip while it is sampled, where ComfyUI was started with --preview-method. Ours."}


def _schemas() -> Json:
    """Requests as they are read; answers have the same form in both directions."""
    _, definitions = models_json_schema([(model, "validation") for model in MODELS], ref_template="#/components/schemas/{model}")
    return dict(definitions["$defs"])


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
