"""Bad input is refused with the value, the limit and the cure, and where possible before anything is loaded."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny_weights
import workflows
from comfyui import ComfyUI, Prompt, PromptFailed, PromptRejected

Build = Callable[..., Prompt]


@pytest.fixture(scope="module")
def bad_files(models: Path) -> Iterator[None]:
    """Weight files that do not belong where they lie, named after what is wrong with them."""
    experts, encoders = models / "diffusion_models", models / "text_encoders"
    whole = (experts / tiny_weights.HIGH).read_bytes()
    shutil.copy(experts / tiny_weights.HIGH, experts / "copy.safetensors")
    (experts / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    save_file(tiny_weights.expert(seed=5, channels=36), experts / "i2v.safetensors")
    save_file({"lora_unet_blocks_0_self_attn_q.lora_down.weight": tiny_weights.expert(seed=5)["head.modulation"]}, experts / "lora.safetensors")
    save_file({**tiny_weights.expert(seed=5), "blocks.0.ffn.0.comfy_quant": torch.tensor(list(b'{"format": "int2"}'), dtype=torch.uint8)},
              experts / "int2.safetensors")
    shutil.copy(experts / tiny_weights.HIGH, encoders / "expert.safetensors")
    yield
    for name in ("copy", "truncated", "i2v", "lora", "int2"):
        (experts / f"{name}.safetensors").unlink()
    (encoders / "expert.safetensors").unlink()


def rejection(server: ComfyUI, prompt: Prompt) -> str:
    with pytest.raises(PromptRejected) as refused:
        server.queue(prompt)
    return str(refused.value)


@pytest.mark.parametrize(("change", "words"), [
    ({"high_noise_model": "nowhere.safetensors"}, ["nowhere.safetensors", "models/diffusion_models", "https://huggingface.co", "press R"]),
    ({"low_noise_model": tiny_weights.HIGH}, ["hold the same weights", "low_noise_model", "high_noise and the low_noise file"]),
    ({"low_noise_model": "copy.safetensors"}, ["hold the same weights", "copy.safetensors"]),
    ({"low_noise_model": "truncated.safetensors"}, ["truncated.safetensors", "not a complete safetensors file", "fetch the file again"]),
    ({"low_noise_model": "int2.safetensors"}, ["int2.safetensors", "quantised as int2", "Update it", "fp8_scaled"]),
    ({"low_noise_model": "i2v.safetensors"}, ["i2v.safetensors", "image-to-video", "36 input channels", "takes 16"]),
    ({"low_noise_model": "lora.safetensors"}, ["lora.safetensors", "a LoRA", "models/loras"]),
    ({"weight_dtype": "int3"}, ["weight_dtype is 'int3'", "fp8_e4m3fn"]),
    ({"text_encoder": "nowhere.safetensors"}, ["models/text_encoders", "https://huggingface.co"]),
    ({"text_encoder": "expert.safetensors"}, ["expert.safetensors is not a UMT5 text encoder", "umt5_xxl"]),
    ({"device": "tpu"}, ["device is 'tpu'", "default, cpu"]),
    ({"width": 830}, ["width is 830", "use 816 or 832"]),
    ({"height": 8192}, ["height is 8192", "between 16 and 4096"]),
    ({"resolution": "1080p"}, ["resolution is '1080p'", "480p, 580p, 720p"]),
    ({"aspect_ratio": "21:9"}, ["aspect_ratio is '21:9'", "16:9, 9:16, 1:1, 4:3, 3:4"]),
    ({"num_frames": 0}, ["num_frames", "0", "1"]),
    ({"num_frames": 162}, ["num_frames", "162", "161"]),
    ({"steps": 0}, ["steps", "0", "1"]),
    ({"boundary": 1.5}, ["boundary", "1.5", "1.0"]),
    ({"opening_steps": 2}, ["opening_steps is 2, but the high-noise expert takes 1 of the 2 steps", "Set it to 1 at most"]),
    ({"opening_steps": 1, "denoise": 0.1}, ["opening_steps is 1, but the high-noise expert takes none of the 2 steps", "Set it to 0"]),
    ({"opening_steps": 201}, ["opening_steps is 201", "200"]),
    ({"opening_guidance": -1.0}, ["opening_guidance is -1.0", "0.0"]),
    ({"guidance_scale": -1.0}, ["guidance_scale", "-1.0", "0.0"]),
    ({"solver": "ddim"}, ["solver is 'ddim'", "unipc, dpm++, euler"]),
    ({"acceleration": "warp"}, ["acceleration is 'warp'", "none, regular, high"]),
    ({"frames_per_second": 61}, ["frames_per_second", "61", "60"]),
    ({"video_quality": "ultra"}, ["video_quality is 'ultra'", "low, medium, high, maximum"]),
    ({"video_write_mode": "slow"}, ["video_write_mode is 'slow'", "fast, balanced, small"]),
], ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "")
@pytest.mark.usefixtures("bad_files")
def test_refused_before_anything_runs(server: ComfyUI, small_prompt: Build, change: dict[str, Any], words: list[str]) -> None:
    message = rejection(server, small_prompt(**change))
    assert [word for word in words if word not in message] == []


def failure(server: ComfyUI, prompt: Prompt) -> str:
    with pytest.raises(PromptFailed) as failed:
        server.run(prompt)
    return str(failed.value)


@pytest.mark.parametrize(("channels", "nan", "message"), [
    (48, False, "Wan22Sampler: latent_image has shape (1, 48, 5, 4, 4); Wan 2.2 T2V A14B needs (batch, 16, frames, height, width)"),
    (16, True, "Wan22Sampler: latent_image holds NaN"),
])
def test_latents_that_do_not_fit(server: ComfyUI, small_prompt: Build, channels: int, nan: bool, message: str) -> None:
    prompt = small_prompt()
    prompt["bad"] = {"class_type": "ProbeSpoilLatent", "inputs": {"channels": channels, "nan": nan}}
    workflows.node_of(prompt, "Wan22Sampler")["latent_image"] = ["bad", 0]
    assert message in failure(server, prompt)


@pytest.mark.parametrize("slot", ["high_noise", "low_noise"])
def test_models_that_are_not_wan(server: ComfyUI, small_prompt: Build, slot: str) -> None:
    prompt = small_prompt()
    sampler = workflows.node_of(prompt, "Wan22Sampler")
    prompt["bad"] = {"class_type": "ProbeModelClass", "inputs": {"model": sampler[slot]}}
    sampler[slot] = ["bad", 0]
    assert f"Wan22Sampler: {slot} is a BaseModel model, not Wan" in failure(server, prompt)


@pytest.mark.parametrize("prefix", ["../outside", "/tmp/outside", "video/../../outside", "", "folder/"])
def test_prefixes_that_leave_the_output_folder_or_name_no_file(server: ComfyUI, small_prompt: Build, prefix: str) -> None:
    assert f"filename_prefix is '{prefix}'" in rejection(server, small_prompt(filename_prefix=prefix))


def test_swapped_names_are_only_warned_about(server: ComfyUI, small_prompt: Build) -> None:
    seen = len(server.log())
    server.run(small_prompt(high_noise_model=tiny_weights.LOW, low_noise_model=tiny_weights.HIGH))
    assert "by their names they are swapped" in server.log()[seen:]
