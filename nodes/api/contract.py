"""The addresses, requests and answers of fal-ai/wan/v2.2-a14b/text-to-video/lora: its names, defaults and ranges, and a few limits of our own."""

import json
from collections import Counter
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from .errors import Detail, InvalidRequest
from .headers import QUEUE
from .jobs.job import COMPLETED, IN_QUEUE, Job

APP = "fal-ai/wan"
ENDPOINT = "fal-ai/wan/v2.2-a14b/text-to-video/lora"
RUN, SUBMIT = f"/{ENDPOINT}", f"{QUEUE}/{ENDPOINT}"
REQUEST = f"{QUEUE}/{APP}/requests/{{request_id}}"
STATUS, STREAM, CANCEL = f"{REQUEST}/status", f"{REQUEST}/status/stream", f"{REQUEST}/cancel"
METHODS = {RUN: "POST", SUBMIT: "POST", STATUS: "GET", STREAM: "GET", REQUEST: "GET", CANCEL: "PUT"}

MAX_PROMPT_LENGTH = 10_000  # characters; the text encoder reads 512 tokens, and the safety checks all of it
MAX_LORAS = 16  # each is read from disk or downloaded, and patched into 14 billion weights
MAX_BODY_BYTES = 256 * 1024  # both prompts in any script and all LoRAs with long URLs take less
MAX_SEED = 2**64 - 1  # ComfyUI's
WRAPPERS = ("input", "arguments")  # what the clients' functions call the request


def _sendable(text: str) -> str:
    """Refuses what JSON and pydantic let through, and tokenizers, file names and UTF-8 do not."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise PydanticCustomError("string_unicode", "Input should be Unicode text without NUL characters and unpaired surrogates")
    return text


Text = Annotated[str, AfterValidator(_sendable)]


class _Model(BaseModel):
    """Lax as the hosted endpoint, which runs on FastAPI: "81" and 81.0 are 81, "true" and 1 are true, unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, extra="ignore")


class LoRAWeight(_Model):
    """A LoRA and the expert that it is for."""

    path: Text = Field(description="A URL, a Hugging Face repository, or a path to the LoRA's weights.")
    weight_name: Text | None = Field(None, description="The file's name, where the path is a Hugging Face repository with several.")
    scale: float = Field(1.0, ge=0, le=4, description="How strongly the LoRA acts: 0 not at all, 1 as it was trained.")
    transformer: Literal["high", "low", "both"] = Field(
        "high", description="The transformer that gets the LoRA: 'high' (high noise, the first steps), 'low' (low noise, the last steps), or 'both'.")


class TextToVideoInput(_Model):
    """What to make. Only the prompt is required."""

    prompt: Text = Field(max_length=MAX_PROMPT_LENGTH, description="What the video shows.", examples=["A lighthouse in a storm."])
    negative_prompt: Text = Field("", max_length=MAX_PROMPT_LENGTH, description="What the video must not show.")
    num_frames: int = Field(81, ge=17, le=161, description="Frames that the model makes, before interpolation.")
    frames_per_second: int = Field(16, ge=4, le=60, description="Frame rate of the video, before interpolation.")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="The same seed and request give the same video. Random where null or left out.")
    resolution: Literal["480p", "580p", "720p"] = Field("720p", description="Size of the video; its sides follow from aspect_ratio.")
    aspect_ratio: Literal["16:9", "9:16", "1:1"] = Field("16:9", description="Width to height.")
    num_inference_steps: int = Field(27, ge=2, le=40, description="Denoising steps of both transformers together. More take longer and look better.")
    enable_safety_checker: bool = Field(False, description="Check the prompt before anything is made.")
    enable_output_safety_checker: bool = Field(False, description="Check the video before it is given out.")
    enable_prompt_expansion: bool = Field(False, description="Let a language model add detail to the prompt.")
    acceleration: Literal["none", "regular"] = Field("regular", description="'regular' forecasts steps that change little; 'none' computes all.")
    guidance_scale: float = Field(3.5, ge=1, le=10, description="How closely the high-noise steps follow the prompt.")
    guidance_scale_2: float = Field(4.0, ge=1, le=10, description="How closely the low-noise steps follow the prompt.")
    shift: float = Field(5.0, ge=1, le=10, description="Moves the steps towards high noise: above 1, more of them decide on composition and motion.")
    interpolator_model: Literal["none", "film", "rife"] = Field("film", description="What makes frames between frames; 'none' makes none.")
    num_interpolated_frames: int = Field(1, ge=0, le=4, description="Frames to add between each two.")
    adjust_fps_for_interpolation: bool = Field(
        True, description="Multiply the frame rate as interpolation multiplies frames, so that the video lasts as long; otherwise it plays slower.")
    video_quality: Literal["low", "medium", "high", "maximum"] = Field("high", description="Quality of the file: higher makes it larger.")
    video_write_mode: Literal["fast", "balanced", "small"] = Field("balanced", description="Whether to write the file quickly or to make it small.")
    loras: list[LoRAWeight] = Field([], max_length=MAX_LORAS, description="LoRAs to apply, each to one transformer or both.")
    reverse_video: bool = Field(False, description="Play the video backwards.")


NO_INTERPOLATOR = "none"
INTERPOLATORS = tuple(name for name in get_args(TextToVideoInput.model_fields["interpolator_model"].annotation) if name != NO_INTERPOLATOR)


class VideoFile(_Model):
    """A file that can be downloaded."""

    url: str = Field(description="Where to download it.")
    content_type: str | None = Field(None, description="Its media type.", examples=["video/mp4"])
    file_name: str | None = Field(None, description="Its name.")
    file_size: int | None = Field(None, ge=0, description="Its size in bytes.")


class TextToVideoOutput(_Model):
    """What was made, and what it was made from."""

    video: VideoFile = Field(description="The video.")
    prompt: str = Field("", description="The prompt that was used, after expansion.")
    seed: int = Field(description="The seed that was used.")


Url = Annotated[str, Field(json_schema_extra={"format": "uri"})]


class _Stage(_Model):
    status: str
    request_id: str
    response_url: Url = Field(description="Where the result will be.")
    status_url: Url = Field(description="Where to ask how far it is.")
    cancel_url: Url = Field(description="Where to cancel it.")


class LogLine(_Model):
    """Something that happened to a request."""

    message: str
    level: str
    source: str
    timestamp: str = Field(json_schema_extra={"format": "date-time"})


class InQueue(_Stage):
    """It waits."""

    status: Literal["IN_QUEUE"]
    queue_position: int = Field(ge=0, description="How many are ahead.")


class InProgress(_Stage):
    """It is computed."""

    status: Literal["IN_PROGRESS"]
    logs: list[LogLine] = Field(description="Everything so far, oldest first.")
    preview: str = Field("", description="In a stream with preview=1, when there is a new one: the clip so far, as the data URL of a small "
                                         "animated WebP. Ours, the hosted service has nothing like it.")


class Metrics(_Model):
    """What it took."""

    inference_time: float = Field(0.0, description="Seconds; missing where it never began.")


class Completed(_Stage):
    """It is complete; of a failed one `error` and `error_type` say why."""

    status: Literal["COMPLETED"]
    logs: list[LogLine] = Field(description="Everything so far, oldest first.")
    metrics: Metrics
    error: str = ""
    error_type: str = ""


class Cancellation(_Model):
    """What became of the wish to cancel a request."""

    status: Literal["CANCELLATION_REQUESTED", "ALREADY_COMPLETED", "NOT_FOUND"]


class Health(_Model):
    """The server itself; ours, the hosted service has nothing like it."""

    version: str = Field(description="Of the pack; equal where its code is.")
    missing_models: list[str] = Field(description="A sentence for each file without which no video is made.")
    missing_interpolators: list[str] = Field(description="A sentence for each interpolator whose file is missing.")


def submitted(job: Job, queue_url: str, queue_position: int) -> InQueue:
    """A new job, which waits behind `queue_position` others; `queue_url` is where its client takes the queue to be."""
    return InQueue(status="IN_QUEUE", **_addresses(job, queue_url), queue_position=queue_position)


def state(job: Job, queue_url: str, queue_position: int, with_logs: bool, first_line: int = 0,
          preview: str = "") -> InQueue | InProgress | Completed:
    """How far the job is, with its log from `first_line` on where that is wanted, and with `preview` where there is one; of a failed one also why."""
    if job.status == IN_QUEUE:
        return submitted(job, queue_url, queue_position)
    lines = [LogLine(**line) for line in job.logs[first_line:]] if with_logs else []
    if job.status != COMPLETED:
        return InProgress(status="IN_PROGRESS", **_addresses(job, queue_url), logs=lines, **({"preview": preview} if preview else {}))
    failure = {"error": job.answer.error, "error_type": job.answer.error_type} if job.answer and job.failed else {}
    return Completed(status="COMPLETED", **_addresses(job, queue_url), logs=lines, metrics=Metrics(**job.metrics()), **failure)


def body(answer: BaseModel) -> dict[str, Any]:
    """The answer as JSON, without what does not apply to it."""
    return answer.model_dump(exclude_unset=True)


def _addresses(job: Job, queue_url: str) -> dict[str, str]:
    places = {"response_url": REQUEST, "status_url": STATUS, "cancel_url": CANCEL}
    return {"request_id": job.request_id,
            **{name: queue_url + path.removeprefix(QUEUE).format(request_id=job.request_id) for name, path in places.items()}}


def parse(body: bytes) -> TextToVideoInput:
    """The request in an HTTP body; InvalidRequest for whatever is not one. Read by `json` and not by pydantic, which takes the last of two values
    for one name and says neither where a mistake is nor what FastAPI, and with it the hosted endpoint, says of it."""
    values = _decoded(body)
    if not isinstance(values, dict):
        raise _refused('The body should be a JSON object, such as {"prompt": "..."}', "model_attributes_type", input=values)
    if (wrapper := _wrapper(values)) is not None:
        raise _refused(f"The parameters are inside {json.dumps(wrapper[:80])}; send them without it, as {{\"prompt\": \"...\"}}. "
                       "The clients' functions take such a wrapper, and what they send is its content", "value_error", wrapper)
    try:
        return TextToVideoInput.model_validate(values)
    except ValidationError as error:
        raise InvalidRequest.of(error) from error


def _wrapper(values: dict[str, Any]) -> str | None:
    """The name of what was put around a request: `input` in JavaScript and on other hosts, `arguments` in Python."""
    if "prompt" in values:
        return None
    return next((name for name, value in values.items() if isinstance(value, dict) and ("prompt" in value or name in WRAPPERS)), None)


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise _refused(f"The body should be UTF-8; the byte at {error.start} is not", "json_invalid") from error
    except json.JSONDecodeError as error:
        raise _refused(f"JSON decode error at character {error.pos}: {error.msg}", "json_invalid", error.pos, ctx={"error": error.msg}) from error
    except ValueError as error:
        raise _refused("The body holds a number of more digits than are read", "json_invalid") from error
    except RecursionError as error:
        raise _refused("The body is nested deeper than is read; the endpoint needs three levels", "json_invalid") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names differ: with two values for one name, either could be the one that was meant."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _refused(f"The field {json.dumps(twice[:80])} occurs twice in one object; send it once", "json_invalid")
    return fields


def _refused(msg: str, kind: str, *place: int | str, **more: Any) -> InvalidRequest:
    return InvalidRequest([Detail(("body", *place), msg, kind, **more)])
