"""What an encoder refuses is refused before anything is sampled, where the prompt says it; and who waits is not shown at work."""

import importlib
from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest

import workflows
from comfyui import PACK_FOLDER, ComfyUI, Prompt

Build = Callable[..., Prompt]


def rate_of(pack: ModuleType, prompt: Prompt) -> Fraction | None:
    plan = importlib.import_module(f"{PACK_FOLDER}.nodes.host.video.plan")
    rate: Fraction | None = plan.planned_rate(prompt, workflows.nodes_of(prompt, "Wan22SaveVideo")[0])
    return rate


def graph(**interpolate: Any) -> Prompt:
    return {"decode": {"class_type": "Wan22Decode", "inputs": {"frames_per_second": 60}},
            "check": {"class_type": "Wan22CheckVideo", "inputs": {"video": ["decode", 0]}},
            "loader": {"class_type": "Wan22InterpolatorLoader", "inputs": {"model": "rife"}},
            "between": {"class_type": "Wan22Interpolate", "inputs": {
                "video": ["check", 0], "interpolator": ["loader", 0], "num_interpolated_frames": 4, "adjust_fps_for_interpolation": True,
                **interpolate}},
            "save": {"class_type": "Wan22SaveVideo", "inputs": {"video": ["between", 0]}}}


def test_a_picture_keeps_its_rate(pack: ModuleType) -> None:
    prompt = {**graph(), "latent": {"class_type": "Wan22EmptyLatent", "inputs": {"num_frames": 1}}}
    assert (rate_of(pack, graph()), rate_of(pack, prompt)) == (300, 60)


SAMPLED = {"drafts": {"class_type": "Wan22Sampler", "inputs": {}}, "pick": {"class_type": "LatentFromBatch", "inputs": {"samples": ["drafts", 0]}},
           "refine": {"class_type": "Wan22Sampler", "inputs": {"latent_image": ["pick", 0]}},
           "slow": {"class_type": "Wan22Decode", "inputs": {"samples": ["refine", 0], "frames_per_second": 8}},
           "vae": {"class_type": "VAEDecode", "inputs": {"samples": ["drafts", 0]}},
           "fast": {"class_type": "CreateVideo", "inputs": {"images": ["vae", 0], "fps": 24.5}},
           "loop": {"class_type": "X", "inputs": {"a": ["loop", 0], "b": ["alone", 0]}}, "alone": {"class_type": "X", "inputs": {"a": ["loop", 0]}},
           "linked": {"class_type": "Wan22Decode", "inputs": {"samples": ["alone", 0], "frames_per_second": ["loop", 0]}}}


@pytest.mark.parametrize(("node", "rate"), [("refine", 8), ("pick", 8), ("drafts", Fraction(49, 2)), ("alone", None), ("slow", None), ("no", None)])
def test_a_clip_moves_at_the_rate_at_which_it_will_be_shown(pack: ModuleType, node: str, rate: Fraction | None) -> None:
    assert importlib.import_module(f"{PACK_FOLDER}.nodes.host.video.plan").rate_of_clip(SAMPLED, node) == rate


@pytest.mark.parametrize(("changes", "rate"), [
    ({}, 300), ({"num_interpolated_frames": 0}, 60), ({"adjust_fps_for_interpolation": False}, 60), ({"num_interpolated_frames": ["x", 0]}, None),
    ({"video": ["nobody", 0]}, None), ({"interpolator": ["nobody", 0]}, 300)])
def test_the_rate_is_planned_as_far_as_the_prompt_says_it(pack: ModuleType, changes: dict[str, Any], rate: int | None) -> None:
    assert rate_of(pack, graph(**changes)) == rate


def test_only_without_a_network_nothing_is_multiplied_and_core_says_its_rate(pack: ModuleType) -> None:
    prompt = graph()
    prompt["loader"]["inputs"]["model"] = "flow"
    assert rate_of(pack, prompt) == 300
    prompt["loader"]["inputs"]["model"] = "none"
    assert rate_of(pack, prompt) == 60
    prompt["check"]["inputs"]["video"] = ["core", 0]
    prompt["core"] = {"class_type": "CreateVideo", "inputs": {"fps": 29.97}}
    assert rate_of(pack, prompt) == Fraction(2997, 100)
    prompt["core"]["inputs"]["fps"] = ["x", 0]
    assert rate_of(pack, prompt) is None


def heard(server: ComfyUI, prompt: Prompt) -> list[tuple[str, dict[str, Any]]]:
    """What the server says until a prompt has ended."""
    listening, events = server.events(), []
    prompt_id = server.queue(prompt)
    for kind, data in listening:
        events.append((kind, data))
        if kind in ("execution_success", "execution_error") and data["prompt_id"] == prompt_id:
            break
    return events


def test_a_rate_that_the_encoder_refuses_is_refused_before_anything_is_loaded(server: ComfyUI, small_prompt: Build) -> None:
    server.free()
    events = heard(server, small_prompt(frames_per_second=60, num_interpolated_frames=4, codec="av1", prompt="refused early"))
    assert events[-1][0] == "execution_error"
    assert "300 frames per second, and av1 takes 240 at most" in events[-1][1]["exception_message"]
    assert events[-1][1]["node_type"] == "Wan22SaveVideo" and events[-1][1]["executed"] == []


def test_who_waits_for_the_video_is_not_shown_at_work(server: ComfyUI, small_prompt: Build) -> None:
    prompt = small_prompt(seed=19)
    (save,), (sampler,) = (workflows.nodes_of(prompt, name) for name in ("Wan22SaveVideo", "Wan22Sampler"))
    states = [data["nodes"] for kind, data in heard(server, prompt) if kind == "progress_state"]
    sampling = [nodes for nodes in states if nodes.get(sampler, {}).get("state") == "running"]
    assert sampling and not any(save in nodes for nodes in sampling)


def test_a_warning_about_the_sound_stands_on_the_node(server: ComfyUI) -> None:
    prompt = {"image": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 3, "color": 0}},
              "sound": {"class_type": "EmptyAudio", "inputs": {"duration": 0.0, "sample_rate": 44100, "channels": 2}},
              "video": {"class_type": "CreateVideo", "inputs": {"images": ["image", 0], "audio": ["sound", 0], "fps": 8.0}},
              "save": {"class_type": "Wan22SaveVideo", "inputs": {"video": ["video", 0], "filename_prefix": "silent", "video_quality": "low",
                                                                 "video_write_mode": "fast", "reverse_video": False}}}
    length = len(server.log())
    outputs = server.run(prompt)
    assert len(server.saved_videos(outputs)) == 1
    assert "the video is written without sound" in server.log()[length:]
