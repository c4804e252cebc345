"""The OpenAPI document of the HTTP API: for the reference page, and for programs that write clients.

OpenAPI 3.1 and not 3.0: its schemas are JSON Schema 2020-12, which is what pydantic writes, so the document is what `parse` checks, unchanged;
3.0 has no null type and would need a translation of it. FastAPI writes 3.1 as well.
"""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .schema import APP, ENDPOINT, MAX_BODY_BYTES, TextToVideoInput, TextToVideoOutput

Json = dict[str, Any]
REQUEST = f"/queue/{APP}/requests/{{request_id}}"
MODELS: tuple[type[BaseModel], ...] = (TextToVideoInput, TextToVideoOutput)
TEXT: Json = {"type": "string"}
LOGS: Json = {"type": "array", "items": {"$ref": "#/components/schemas/LogLine"}, "description": "Everything so far, oldest first."}
URLS = {"response_url": "Where the result will be.", "status_url": "Where to ask how far it is.", "cancel_url": "Where to cancel it."}


def document(server_url: str) -> Json:
    """The document of a server at `server_url`, such as http://127.0.0.1:8188/wan22."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Wan 2.2 text-to-video with LoRAs", "version": "1.0.0",
                 "description": f"{ENDPOINT} on your own GPU. The clients of the hosted endpoint work with it."},
        "servers": [{"url": server_url.rstrip("/") or "/"}],
        "security": [{"key": []}],
        "paths": {
            f"/{ENDPOINT}": {"post": _run()},
            f"/queue/{ENDPOINT}": {"post": _submit()},
            f"{REQUEST}/status": {"get": _status()},
            f"{REQUEST}/status/stream": {"get": _stream()},
            REQUEST: {"get": _result()},
            f"{REQUEST}/cancel": {"put": _cancel()}},
        "components": {"schemas": _schemas(), "securitySchemes": {"key": {
            "type": "apiKey", "in": "header", "name": "Authorization", "description": "'Key ' and the server's key, where it has one."}}}}


def _run() -> Json:
    return {"operationId": "run", "summary": "Make a video and wait for it", "requestBody": _body(),
            "responses": {"200": _json("The video.", "TextToVideoOutput"), **_refusals(), "499": _json("It was cancelled.", "InfrastructureError"),
                          **_failures()}}


def _submit() -> Json:
    webhook = {"name": "fal_webhook", "in": "query", "schema": {"type": "string", "format": "uri"},
               "description": "Told with a POST of {request_id, status, payload} when the video is there or has failed."}
    return {"operationId": "submit", "summary": "Put a video into the queue", "parameters": [webhook], "requestBody": _body(),
            "responses": {"200": _json("It waits.", "Submitted"), **_refusals(), **_failures()}}


def _status() -> Json:
    return {"operationId": "status", "summary": "How far a request is", "parameters": [_request_id(), _logs()],
            "responses": {"200": _json("It is complete; its result tells whether it failed.", "Status"),
                          "202": _json("It waits or runs.", "Status"), **_unknown()}}


def _stream() -> Json:
    events = {"description": "A status per event, until it is complete.", "content": {"text/event-stream": {"schema": TEXT}}}
    return {"operationId": "stream_status", "summary": "How far a request is, as it goes", "parameters": [_request_id(), _logs()],
            "responses": {"200": events, **_unknown()}}


def _result() -> Json:
    return {"operationId": "result", "summary": "The video of a request", "parameters": [_request_id()],
            "responses": {"200": _json("The video.", "TextToVideoOutput"), "400": _json("It is still in progress.", "InfrastructureError"),
                          "422": _json("It was refused by a safety check.", "ModelError"),
                          "499": _json("It was cancelled.", "InfrastructureError"), **_failures(), **_unknown()}}


def _cancel() -> Json:
    return {"operationId": "cancel", "summary": "Cancel a request", "parameters": [_request_id()],
            "responses": {"202": _json("It will stop.", "Cancellation"), "400": _json("It is complete already.", "Cancellation"),
                          "401": _json("The key is missing or wrong.", "InfrastructureError"),
                          "404": _json("There is no such request.", "Cancellation")}}


def _body() -> Json:
    return {"required": True, **_content("TextToVideoInput")}


def _content(name: str) -> Json:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def _json(description: str, name: str) -> Json:
    return {"description": description, **_content(name)}


def _refusals() -> Json:
    return {"401": _json("The key is missing or wrong.", "InfrastructureError"),
            "413": _json(f"The body is longer than {MAX_BODY_BYTES} bytes.", "InfrastructureError"),
            "422": _json("The request is not valid, or a safety check refused it.", "ModelError")}


def _failures() -> Json:
    return {"500": _json("It failed.", "InfrastructureError"), "503": _json("The queue is full, or models are missing.", "InfrastructureError")}


def _unknown() -> Json:
    return {"401": _json("The key is missing or wrong.", "InfrastructureError"), "404": _json("There is no such request.", "InfrastructureError")}


def _request_id() -> Json:
    return {"name": "request_id", "in": "path", "required": True, "schema": TEXT}


def _logs() -> Json:
    return {"name": "logs", "in": "query", "schema": {"type": "integer", "enum": [0, 1], "default": 0}, "description": "1 to get the log too."}


def _schemas() -> Json:
    _, definitions = models_json_schema([(model, "validation") for model in MODELS], ref_template="#/components/schemas/{model}")
    return {
        **definitions["$defs"],
        "Submitted": _object({"status": {"const": "IN_QUEUE", **TEXT}, "request_id": TEXT, **_urls(), "queue_position": _position()}),
        "Status": {"oneOf": [_reference(name) for name in ("InQueue", "InProgress", "Completed")]},
        "InQueue": _object({**_stage("IN_QUEUE"), "queue_position": _position()}),
        "InProgress": _object({**_stage("IN_PROGRESS"), "logs": LOGS}),
        "Completed": _object({**_stage("COMPLETED"), "logs": LOGS}, metrics={"type": "object"}, error=TEXT, error_type=TEXT),
        "LogLine": _object({"message": TEXT, "level": TEXT, "source": TEXT, "timestamp": {"type": "string", "format": "date-time"}}),
        "Cancellation": _object({"status": {"enum": ["CANCELLATION_REQUESTED", "ALREADY_COMPLETED", "NOT_FOUND"], **TEXT}}),
        "InfrastructureError": _object({"detail": TEXT, "error_type": TEXT}),
        "ModelError": _object({"detail": {"type": "array", "items": _reference("ErrorDetail")}}),
        "ErrorDetail": _object({"loc": {"type": "array", "items": {"type": ["string", "integer"]}}, "msg": TEXT, "type": TEXT, "url": TEXT},
                               ctx={"type": "object"}, input={})}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Json, **optional: Json) -> Json:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def _stage(name: str) -> Json:
    return {"status": {"const": name, **TEXT}, "request_id": TEXT, **_urls()}


def _urls() -> Json:
    return {name: {"type": "string", "format": "uri", "description": meaning} for name, meaning in URLS.items()}


def _position() -> Json:
    return {"type": "integer", "minimum": 0, "description": "How many are ahead."}
