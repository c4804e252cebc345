"""The main job in a real ComfyUI: the shipped workflow, whole and with pieces swapped for core's."""

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

import tiny_weights
import videos
import workflows
from comfyui import ComfyUI, Prompt

Build = Callable[..., Prompt]


def make_video(server: ComfyUI, prompt: Prompt) -> Path:
    (path,) = server.saved_videos(server.run(prompt))
    return path


def make_frames(server: ComfyUI, prompt: Prompt) -> np.ndarray:
    """Frames (T, H, W, 3) that are equal whenever the prompts make equal ones."""
    return videos.pixels(make_video(server, workflows.repeatably_coded(prompt)))


def forget(server: ComfyUI) -> None:
    """Empty ComfyUI's cache, so that the next prompt is really executed."""
    server.free()


def test_a_batch_becomes_a_file_for_each_of_its_videos(server: ComfyUI, small_prompt: Build) -> None:
    """Of core's nodes, the whole chain: two videos of nine frames, interpolated each for itself, and all of them together for core."""
    prompt = small_prompt(num_interpolated_frames=1, filename_prefix="batch/clip")
    prompt["batch"] = {"class_type": "EmptyHunyuanLatentVideo", "inputs": {"width": 32, "height": 32, "length": 9, "batch_size": 2}}
    workflows.node_of(prompt, "Wan22Sampler")["latent_image"] = ["batch", 0]
    core = {"video": workflows.node_of(prompt, "Wan22SaveVideo")["video"], "filename_prefix": "batch/core", "format": "auto", "codec": "auto"}
    prompt["core"] = {"class_type": "SaveVideo", "inputs": core}
    files = {path.name: videos.facts(path).frames for path in server.saved_videos(server.run(prompt))}
    assert files == {"clip_00001_.mp4": 17, "clip_00002_.mp4": 17, "core_00001_.mp4": 34}


@pytest.mark.parametrize("num_frames", [1, 2, 17, 18, 80, 81])
def test_every_number_of_frames_is_honoured(server: ComfyUI, small_prompt: Build, num_frames: int) -> None:
    facts = videos.facts(make_video(server, small_prompt(num_frames=num_frames, frames_per_second=24)))
    assert facts == videos.VideoFacts(num_frames, 32, 32, Fraction(24), "h264", "yuv420p")


def test_a_named_resolution_gives_its_size(server: ComfyUI, small_prompt: Build) -> None:
    prompt = small_prompt(resolution="580p", aspect_ratio="9:16")
    (latent,) = workflows.nodes_of(prompt, "Wan22EmptyLatent")
    shows = {side: {"class_type": "PreviewAny", "inputs": {"source": [latent, slot]}} for slot, side in ((1, "width"), (2, "height"))}
    outputs = server.run({latent: prompt[latent], **shows})
    assert (outputs["width"]["text"], outputs["height"]["text"]) == (["576"], ["1024"])


def test_a_seed_names_a_video(server: ComfyUI, small_prompt: Build) -> None:
    first = make_frames(server, small_prompt(seed=7))
    forget(server)
    again = make_frames(server, small_prompt(seed=7))
    other = make_frames(server, small_prompt(seed=8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("name", "value"), [
    ("prompt", "two cats"), ("negative_prompt", "rain"), ("guidance_scale", 1.0), ("guidance_scale_2", 1.0), ("shift", 9.0),
    ("solver", "euler"), ("solver", "dpm++"), ("boundary", 0.0), ("boundary", 1.0), ("steps", 3), ("reverse_video", True)])
def test_every_setting_changes_the_frames(server: ComfyUI, small_prompt: Build, name: str, value: Any) -> None:
    plain = make_frames(server, small_prompt())
    changed = make_frames(server, small_prompt(**{name: value}))
    assert plain.shape == changed.shape
    assert not np.array_equal(plain, changed)


@pytest.fixture(scope="module")
def half_experts(models: Path) -> Iterator[dict[str, str]]:
    """The tiny experts in fp16, by the loader's widgets."""
    names = {f"{side}_noise_model": f"half_{side}_noise.safetensors" for side in ("high", "low")}
    for seed, name in enumerate(names.values(), 1):
        save_file({key: tensor.half() for key, tensor in tiny_weights.expert(seed).items()}, models / "diffusion_models" / name)
    yield names
    for name in names.values():
        (models / "diffusion_models" / name).unlink()


@pytest.mark.parametrize("weight_dtype", ["fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"])
def test_every_weight_dtype_loads(server: ComfyUI, small_prompt: Build, half_experts: dict[str, str], weight_dtype: str) -> None:
    assert videos.facts(make_video(server, small_prompt(weight_dtype=weight_dtype, **half_experts))).frames == 17


def test_a_type_for_a_quantised_file_and_a_gpu_that_is_not_here_are_both_warned_of(server: ComfyUI, small_prompt: Build) -> None:
    length = len(server.log())
    make_video(server, small_prompt(weight_dtype="fp8_e5m2", low_device="gpu:7"))
    said = server.log()[length:]
    assert "weight_dtype fp8_e5m2 is not followed: " in said and "low_device is gpu:7, which is not here" in said


def test_reversed_video_runs_backwards(server: ComfyUI, small_prompt: Build) -> None:
    forwards = make_frames(server, small_prompt())
    backwards = make_frames(server, small_prompt(reverse_video=True))
    assert np.array_equal(forwards[::-1], backwards)


def test_the_file_carries_prompt_and_workflow(server: ComfyUI, small_prompt: Build) -> None:
    prompt, workflow = small_prompt(filename_prefix="nested/folder/clip"), workflows.shipped("text_to_video")
    (path,) = server.saved_videos(server.run(prompt, workflow))
    assert path.parent == server.base / "output" / "nested" / "folder"
    assert json.loads(videos.tags(path)["workflow"]) == workflow
    saved = json.loads(videos.tags(path)["prompt"])
    assert {node_id: node["inputs"] for node_id, node in saved.items()} == {node_id: node["inputs"] for node_id, node in prompt.items()}


def replace(prompt: Prompt, node_class: str, *nodes: tuple[str, str, dict[str, Any]], outputs: dict[int, tuple[str, int]]) -> None:
    """Take the only node of `node_class` out, put (id, class, inputs) in, and lead its outputs' links to (id, slot)."""
    (old,) = workflows.nodes_of(prompt, node_class)
    del prompt[old]
    for node_id, class_type, inputs in nodes:
        prompt[node_id] = {"class_type": class_type, "inputs": inputs}
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] == old:
                node["inputs"][name] = list(outputs[value[1]])


def with_core_decode_and_save(prompt: Prompt) -> None:
    decode = workflows.node_of(prompt, "Wan22Decode")
    replace(prompt, "Wan22Decode", ("d", "VAEDecode", {"samples": decode["samples"], "vae": decode["vae"]}),
            ("c", "CreateVideo", {"images": ["d", 0], "fps": 16.0}), outputs={0: ("c", 0)})
    core_save = {"video": ["c", 0], "filename_prefix": "core", "format": "auto", "codec": "auto"}
    replace(prompt, "Wan22SaveVideo", ("s", "SaveVideo", core_save), outputs={})


def with_core_expert_loaders_and_shift(prompt: Prompt) -> None:
    files = workflows.node_of(prompt, "Wan22ExpertLoader")
    replace(prompt, "Wan22ExpertLoader",
            *((side, "UNETLoader", {"unet_name": files[f"{side}_noise_model"], "weight_dtype": "default"}) for side in ("high", "low")),
            *((f"{side}_shift", "ModelSamplingSD3", {"model": [side, 0], "shift": 8.0}) for side in ("high", "low")),
            outputs={0: ("high_shift", 0), 1: ("low_shift", 0)})


def with_core_prompts_and_latent(prompt: Prompt) -> None:
    text = workflows.node_of(prompt, "Wan22TextEncode")
    texts = ("prompt", "negative_prompt")
    replace(prompt, "Wan22TextEncode", *((name, "CLIPTextEncode", {"clip": text["clip"], "text": text[name]}) for name in texts),
            outputs={0: ("prompt", 0), 1: ("negative_prompt", 0)})
    empty = {"width": 32, "height": 32, "length": 17, "batch_size": 1}
    replace(prompt, "Wan22EmptyLatent", ("e", "EmptyHunyuanLatentVideo", empty), outputs={0: ("e", 0)})


def with_core_samplers(prompt: Prompt) -> None:
    ours = workflows.node_of(prompt, "Wan22Sampler")
    shared = {"positive": ours["positive"], "negative": ours["negative"], "sampler_name": "euler", "scheduler": "simple", "steps": 2,
              "noise_seed": 0, "cfg": 3.5}
    replace(prompt, "Wan22Sampler",
            ("first", "KSamplerAdvanced", {**shared, "model": ours["high_noise"], "latent_image": ours["latent_image"], "add_noise": "enable",
                                           "start_at_step": 0, "end_at_step": 1, "return_with_leftover_noise": "enable"}),
            ("second", "KSamplerAdvanced", {**shared, "model": ours["low_noise"], "latent_image": ["first", 0], "add_noise": "disable",
                                            "start_at_step": 1, "end_at_step": 10000, "return_with_leftover_noise": "disable"}),
            outputs={0: ("second", 0)})


SWAPS = [with_core_decode_and_save, with_core_expert_loaders_and_shift, with_core_prompts_and_latent, with_core_samplers]


@pytest.mark.parametrize("swap", SWAPS, ids=lambda swap: swap.__name__)
def test_pieces_can_be_core_nodes(server: ComfyUI, small_prompt: Build, swap: Callable[[Prompt], None]) -> None:
    prompt = small_prompt()
    swap(prompt)
    facts = videos.facts(make_video(server, prompt))
    assert (facts.frames, facts.width, facts.height, facts.rate) == (17, 32, 32, 16)


def test_core_loaders_give_the_same_video_and_an_earlier_shift_is_replaced(server: ComfyUI, small_prompt: Build) -> None:
    ours, core = small_prompt(), small_prompt()
    with_core_expert_loaders_and_shift(core)
    assert np.array_equal(make_frames(server, ours), make_frames(server, core))


def test_eulers_split_is_cores_two_samplers(server: ComfyUI, small_prompt: Build) -> None:
    """Steps 2, shift 5: t 1000 goes to the high expert and t 833 to the low one, in both graphs."""
    ours = small_prompt(solver="euler", guidance_scale=3.5, guidance_scale_2=3.5)
    core = small_prompt()
    with_core_samplers(core)
    (loaded,) = workflows.nodes_of(core, "Wan22ExpertLoader")
    for slot, side in enumerate(("first", "second")):
        core[f"{side}_shift"] = {"class_type": "ModelSamplingSD3", "inputs": {"model": [loaded, slot], "shift": 5.0}}
        core[side]["inputs"]["model"] = [f"{side}_shift", 0]
    difference = make_frames(server, ours).astype(int) - make_frames(server, core).astype(int)
    assert np.abs(difference).mean() < 0.5  # lossy 8-bit video of a random decoder; tests of the latents hold the exact law
