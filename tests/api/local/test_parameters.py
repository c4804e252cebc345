"""Every parameter of the endpoint has its effect on the video, the answer or the file: a row each."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_weights
import videos
from api_servers import ApiServer
from endpoint_client import Client
from hosted_contract import PARAMETERS, RUN

BASE = {"prompt": "a red circle moves to the left", "seed": 1, "num_frames": 17, "num_inference_steps": 2, "resolution": "480p",
        "aspect_ratio": "1:1", "num_interpolated_frames": 0, "video_write_mode": "fast", "guidance_scale": 1, "guidance_scale_2": 1}
GUIDED = {"guidance_scale": 3, "guidance_scale_2": 3}
BETWEEN = {"interpolator_model": "rife", "num_interpolated_frames": 1}
LORA = tiny_weights.LORAS[0].format("high")


@dataclass(frozen=True)
class Made:
    answer: dict[str, Any]
    path: Path

    @property
    def facts(self) -> videos.VideoFacts:
        return videos.facts(self.path)

    @cached_property
    def pixels(self) -> np.ndarray:
        """Of every other row and column."""
        return videos.pixels(self.path)[:, ::2, ::2].astype(np.int16)


Law = Callable[[Made, Made], bool]
Make = Callable[..., Made]


@pytest.fixture(scope="module")
def make(endpoint: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes the base request's video with changes; what has been made is not made again."""
    client, folder, before = Client(endpoint), tmp_path_factory.mktemp("videos"), {}

    def made(**changes: Any) -> Made:
        asked = json.dumps(changes, sort_keys=True)
        if asked not in before or "seed" in changes:
            before[asked] = new(changes)
        return before[asked]

    def new(changes: dict[str, Any]) -> Made:
        reply = client.call("POST", RUN, {**BASE, **changes})
        assert reply.status == 200, reply.body
        video = reply.body["video"]
        path = client.download(video["url"], folder / video["file_name"])
        assert video["content_type"] == "video/mp4" and video["file_size"] == path.stat().st_size
        return Made(reply.body, path)

    return made


def pictures(plain: Made, changed: Made) -> bool:
    """The encoder alone decides a little differently each time."""
    return plain.pixels.shape == changed.pixels.shape and np.abs(plain.pixels - changed.pixels).mean() > 1


def frames(count: int) -> Law:
    return lambda _, changed: changed.facts.frames == count


def rate(expected: int) -> Law:
    return lambda _, changed: changed.facts.rate == Fraction(expected)


def size(width: int, height: int) -> Law:
    return lambda _, changed: (changed.facts.width, changed.facts.height) == (width, height)


def larger_file(plain: Made, changed: Made) -> bool:
    return changed.path.stat().st_size > plain.path.stat().st_size


def backwards(plain: Made, changed: Made) -> bool:
    return np.abs(plain.pixels[::-1] - changed.pixels).mean() < np.abs(plain.pixels - changed.pixels).mean() / 2


def expanded(plain: Made, changed: Made) -> bool:
    return plain.answer["prompt"] == BASE["prompt"] != changed.answer["prompt"] and pictures(plain, changed)


ROWS: list[tuple[str, Any, dict[str, Any], Law]] = [
    ("prompt", "two cats", {}, pictures),
    ("negative_prompt", "rain", GUIDED, pictures),
    ("num_frames", 21, {}, frames(21)),
    ("frames_per_second", 24, {}, rate(24)),
    ("seed", 2, {}, pictures),
    ("resolution", "580p", {}, size(768, 768)),
    ("aspect_ratio", "9:16", {}, size(480, 832)),
    ("num_inference_steps", 3, {}, pictures),
    ("acceleration", "none", {"num_inference_steps": 10}, pictures),
    ("guidance_scale", 9, {}, pictures),
    ("guidance_scale_2", 9, {}, pictures),
    ("shift", 9, {"num_inference_steps": 3}, pictures),
    ("interpolator_model", "none", BETWEEN, frames(17)),
    ("num_interpolated_frames", 0, BETWEEN, frames(17)),
    ("adjust_fps_for_interpolation", False, BETWEEN, rate(16)),
    ("video_quality", "maximum", {}, larger_file),
    ("video_write_mode", "small", {"video_quality": "maximum"}, lambda plain, changed: larger_file(changed, plain)),
    ("loras", [{"path": LORA, "transformer": "both", "scale": 4}], {}, pictures),
    ("reverse_video", True, {}, backwards),
    ("enable_prompt_expansion", True, {}, expanded),
]
CHECKS = {"enable_safety_checker": "child pornography", "enable_output_safety_checker": "a red circle"}


def test_every_parameter_has_its_row() -> None:
    assert {name for name, *_ in ROWS} | set(CHECKS) == PARAMETERS


@pytest.mark.parametrize(("name", "value", "beside", "law"), ROWS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_parameter_has_its_effect(make: Make, name: str, value: Any, beside: dict[str, Any], law: Law) -> None:
    assert law(make(**beside), make(**{**beside, name: value}))


def test_the_expanded_prompt_is_told_when_comfyui_had_it_already(make: Make) -> None:
    first, second = (make(enable_prompt_expansion=True, num_inference_steps=steps) for steps in (2, 3))
    assert BASE["prompt"] != first.answer["prompt"] == second.answer["prompt"]


def test_an_interpolator_doubles_frames_and_rate(make: Make) -> None:
    made = make(**BETWEEN)
    assert (made.facts.frames, made.facts.rate) == (33, 32)


@pytest.mark.parametrize(("name", "prompt"), CHECKS.items())
def test_a_safety_check_is_answered_as_a_content_policy_violation(endpoint: ApiServer, name: str, prompt: str) -> None:
    reply = Client(endpoint).call("POST", RUN, {**BASE, "prompt": prompt, name: True})
    (entry,) = reply.body["detail"]
    assert (reply.status, entry["type"], entry["loc"]) == (422, "content_policy_violation", ["body", "prompt"])
    assert "0.5" in entry["msg"]


def test_the_answer_names_the_seed_and_without_one_it_is_random(make: Make) -> None:
    assert make(seed=7).answer["seed"] == 7
    assert make(seed=None).answer["seed"] != make(seed=None).answer["seed"]
