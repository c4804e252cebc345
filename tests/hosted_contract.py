"""The hosted endpoint's contract, fal-ai/wan/v2.2-a14b/text-to-video/lora, written down once for all tests: addresses, parameters, defaults, ranges.

From its page and its clients (fal-client 1.0.3, @fal-ai/client 1.10.1). Nothing of the pack is asked: the pack is compared with it.
"""

from dataclasses import dataclass
from typing import Any

APP = "fal-ai/wan"
ENDPOINT = "fal-ai/wan/v2.2-a14b/text-to-video/lora"
RUN = f"/{ENDPOINT}"
SUBMIT = f"/queue/{ENDPOINT}"
REQUESTS = f"/queue/{APP}/requests"
PROXY = "/fal/proxy"
OPENAPI = "/fal/openapi.json"

STILL_IN_PROGRESS = "Request is still in progress"  # what programs compare the answer of the result address with, to the letter
ASKED_AGAIN = {408, 409, 429, 502, 503, 504}  # the clients repeat what is answered with these
LOG_LINE = {"message", "level", "source", "timestamp"}
OUTPUT = {"video", "prompt", "seed"}
FILE = {"url", "content_type", "file_name", "file_size"}


@dataclass(frozen=True)
class Number:
    default: float | None
    low: float
    high: float
    step: float = 1


@dataclass(frozen=True)
class Choice:
    default: str
    values: tuple[str, ...]


TEXTS: dict[str, str | None] = {"prompt": None, "negative_prompt": ""}  # None: it must be given
NUMBERS = {
    "num_frames": Number(81, 17, 161), "frames_per_second": Number(16, 4, 60), "seed": Number(None, 0, 2**64 - 1),
    "num_inference_steps": Number(27, 2, 40), "guidance_scale": Number(3.5, 1, 10, 0.001), "guidance_scale_2": Number(4, 1, 10, 0.001),
    "shift": Number(5, 1, 10, 0.001), "num_interpolated_frames": Number(1, 0, 4)}
CHOICES = {
    "resolution": Choice("720p", ("480p", "580p", "720p")), "aspect_ratio": Choice("16:9", ("16:9", "9:16", "1:1")),
    "acceleration": Choice("regular", ("none", "regular")), "interpolator_model": Choice("film", ("none", "film", "rife")),
    "video_quality": Choice("high", ("low", "medium", "high", "maximum")), "video_write_mode": Choice("balanced", ("fast", "balanced", "small"))}
SWITCHES = {"enable_safety_checker": False, "enable_output_safety_checker": False, "enable_prompt_expansion": False,
            "adjust_fps_for_interpolation": True, "reverse_video": False}
LORA_DEFAULTS = {"weight_name": None, "scale": 1.0, "transformer": "high"}  # beside `path`, which must be given
LORA_SCALE = Number(1.0, 0, 4)
TRANSFORMERS = ("high", "low", "both")

DEFAULTS: dict[str, Any] = {  # of every parameter but the prompt; a missing seed is drawn at random
    "negative_prompt": "", **{name: number.default for name, number in NUMBERS.items()},
    **{name: choice.default for name, choice in CHOICES.items()}, **SWITCHES, "loras": []}
PARAMETERS = {"prompt", *DEFAULTS}
LORA_PARAMETERS = {"path", *LORA_DEFAULTS}
