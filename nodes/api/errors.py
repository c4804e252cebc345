"""What the HTTP API answers when it cannot give a video: fal's two forms of error, one class per thing a caller might catch.

A model error is `{"detail": [{"loc", "msg", "type", "url", "ctx"?, "input"?}]}` (https://fal.ai/docs/documentation/model-apis/errors), an
infrastructure error `{"detail": text, "error_type": ...}` (https://fal.ai/docs/documentation/model-apis/request-errors). No status is 408, 409 or
429: fal's clients would ask again up to ten times.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

ERRORS_URL = "https://docs.fal.ai/errors"
MAX_DETAILS = 100  # every field of a request and of its LoRAs can be wrong; a million wrong LoRAs are one mistake
MAX_ECHO_BYTES = 1024  # of JSON; a client that sent more still knows what it was
FLAGGED = "The content could not be processed because it contained material flagged by a content checker."
ABSENT = object()


class ErrorDetail(BaseModel):
    """One mistake: where it is, what it is, and the name by which a program knows it."""

    loc: list[str | int]
    msg: str
    type: str
    url: str
    ctx: dict[str, Any] = {}
    input: Any = None


class ModelErrorBody(BaseModel):
    """Why a request is not one."""

    detail: list[ErrorDetail]


class InfrastructureBody(BaseModel):
    """Why there is no video; `hint` says what to do where `detail` has the letters that programs compare."""

    detail: str
    error_type: str
    hint: str = ""


class ApiError(Exception, ABC):
    """Something that an HTTP client is told with `status`, `body()` and `headers()`; `text` and `error_type` are what a job's status says of it."""

    status: int
    error_type: str
    retryable = False

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @abstractmethod
    def body(self) -> dict[str, Any]:
        """The answer as JSON: nothing in it that `json.dumps` or UTF-8 refuses."""

    def headers(self) -> dict[str, str]:
        return {"X-Fal-Retryable": str(self.retryable).lower()}


@dataclass(frozen=True)
class Detail:
    """One entry of a model error: where in the request, what is wrong, and the name by which a program knows it."""

    loc: tuple[str | int, ...]
    msg: str
    type: str
    input: object = ABSENT
    ctx: dict[str, Any] = field(default_factory=dict)

    def body(self) -> ErrorDetail:
        more = {**({"ctx": {name: _echo(value) for name, value in self.ctx.items()}} if self.ctx else {}),
                **({} if self.input is ABSENT else {"input": _echo(self.input)})}
        return ErrorDetail(loc=[_echo(step) for step in self.loc], msg=_echo(self.msg), type=self.type, url=f"{ERRORS_URL}#{self.type}", **more)


class InvalidRequest(ApiError):
    """The request is not what the endpoint takes: 422 with every reason found."""

    status = 422

    def __init__(self, details: Sequence[Detail]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, detail.loc))}: {detail.msg}" for detail in details))
        self.text = "; ".join(_echo(detail.msg) for detail in details)
        self.error_type = details[0].type
        self.details = tuple(details)

    @classmethod
    def of(cls, error: ValidationError) -> "InvalidRequest":
        """What pydantic found in the body."""
        return cls([Detail(("body", *entry["loc"]), entry["msg"], entry["type"], entry["input"], entry.get("ctx", {}))
                    for entry in error.errors(include_url=False)[:MAX_DETAILS]])

    def body(self) -> dict[str, Any]:
        return ModelErrorBody(detail=[detail.body() for detail in self.details]).model_dump(exclude_unset=True)


class ContentPolicyViolation(InvalidRequest):
    """A safety check said no to the prompt, or to the video made from it; `reason` says which check, what it found and its threshold."""

    def __init__(self, prompt: str, reason: str = "") -> None:
        super().__init__([Detail(("body", "prompt"), f"{FLAGGED} {reason}".rstrip(), "content_policy_violation", prompt)])


class InfrastructureError(ApiError):
    """The request never reached the model, or the model broke; `error_type` is fal's name where fal has one."""

    hint = ""

    def body(self) -> dict[str, Any]:
        hint = {"hint": self.hint} if self.hint else {}
        return InfrastructureBody(detail=_echo(self.text), error_type=self.error_type, **hint).model_dump(exclude_unset=True)

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "X-Fal-Error-Type": self.error_type}


class BadRequest(InfrastructureError):
    """What was sent cannot be read; `text` says what of it."""

    status, error_type = 400, "bad_request"


class StillInProgress(BadRequest):
    """The result was asked for before there is one; programs compare the text with fal's to the letter."""

    hint = "Ask its status_url until it says COMPLETED, or let a fal_webhook be called."

    def __init__(self) -> None:
        super().__init__("Request is still in progress")


class Unauthorized(InfrastructureError):
    """The key is missing or another one."""

    status, error_type = 401, "unauthorized"

    def __init__(self) -> None:
        super().__init__("Authentication is required: send the server's key in the header 'Authorization: Key <key>'.")


class KeysMissing(Unauthorized):
    """The server has no keys, so nobody's key is right; `why` says what makes the caller a stranger."""

    def __init__(self, why: str) -> None:
        InfrastructureError.__init__(
            self, f"This server has no keys, and without them it answers programs on its own machine only; {why}. Its owner must set `keys` in "
                  "its settings (user/__wan22/api.json; settings.json of a cluster) or WAN22_API_KEY in ComfyUI's environment, and start it again.")


class NotFound(InfrastructureError):
    """`what` does not exist here: a request, a path."""

    status, error_type = 404, "not_found"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was not found.")


class SwitchedOff(InfrastructureError):
    """The owner does not allow `what`, and could with `setting`."""

    status, error_type = 403, "forbidden"

    def __init__(self, what: str, setting: str) -> None:
        super().__init__(f"{what} switched off on this server. Its owner can allow them: {setting} in its settings.")


class PayloadTooLarge(InfrastructureError):
    """The body is longer than is read; `limit` in bytes."""

    status, error_type = 413, "payload_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is longer than {limit} bytes. Give files as URLs or paths, never inside the request.")


class Cancelled(InfrastructureError):
    """The job was cancelled or interrupted: fal's status for it, which no client asks again for."""

    status, error_type = 499, "client_cancelled"

    def __init__(self) -> None:
        super().__init__("The request was cancelled before its video was complete.")


class InternalError(InfrastructureError):
    """The job or the server failed; `text` says how."""

    status, error_type = 500, "internal_error"


class Restarted(InfrastructureError):
    """The server stopped while the job waited or ran. Not fal's 503: the job stays lost, so asking again is of no use."""

    status, error_type = 500, "runner_disconnected"

    def __init__(self) -> None:
        super().__init__("ComfyUI was restarted before the video was complete. Send the request again.")


class StartTimeout(InfrastructureError):
    """The job did not start in the time that its caller set; the header tells clients not to ask again."""

    status, error_type = 504, "startup_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The request did not start within {seconds:g} s, the start timeout that it came with. Send it with a longer one.")

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "X-Fal-Request-Timeout-Type": "user"}


class QueueFull(InfrastructureError):
    """As many jobs wait as may."""

    status, error_type, retryable = 503, "runner_scheduling_failure", True

    def __init__(self, limit: int, setting: str = "max_waiting") -> None:
        super().__init__(f"{limit} requests wait already, and no more are taken ({setting} in the server's settings). Send it again later.")


class UploadsFull(InfrastructureError):
    """As many files of one key arrive as may."""

    status, error_type, retryable = 503, "runner_scheduling_failure", True

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} files arrive already, and no more are taken at once. Send it again later.")


class UploadStalled(InfrastructureError):
    """The connection that brings a file is silent; another one may bring it."""

    status, error_type, retryable = 504, "request_timeout", True

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Nothing came for {seconds:g} s. Send the file, or this part of it, again.")


class ModelsMissing(InfrastructureError):
    """Files that the job needs are not in ComfyUI's folders; `text` names them and where they come from."""

    status, error_type = 503, "models_missing"


def _echo(value: Any) -> Any:
    """`value` where JSON, UTF-8 and MAX_ECHO_BYTES can hold it, else a text that says what it was."""
    if isinstance(value, BaseException):
        value = str(value)
    try:
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return _described(value)
    return value if len(encoded) <= MAX_ECHO_BYTES else _cut(value if isinstance(value, str) else encoded.decode())


def _described(value: Any) -> str:
    if isinstance(value, str):
        return _cut(value.encode("ascii", "backslashreplace").decode())
    try:
        return _cut(json.dumps(value, default=str))
    except (TypeError, ValueError, RecursionError):
        return f"<{type(value).__name__}>"


def _cut(text: str) -> str:
    encoded = text.encode()
    return text if len(encoded) <= MAX_ECHO_BYTES else encoded[:MAX_ECHO_BYTES // 2].decode(errors="ignore") + "..."
