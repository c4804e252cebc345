"""A stack of LoRAs in the real ComfyUI: it changes the video, each file alone at scale 0 does not, and the report lists them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

import lora_files
import tiny_weights
import videos
import workflows
from comfyui import ComfyUI, Prompt, PromptFailed, PromptRejected

Build = Callable[..., Prompt]
FILES = {"pair_high.safetensors": "diffusers", "pair_low.safetensors": "kohya, musubi-tuner", "both.safetensors": "LoHa",
         "detail.safetensors": "DiffSynth"}
STACK = [("pair_high.safetensors", "auto"), ("both.safetensors", "both"), ("detail.safetensors", "low")]


@pytest.fixture(scope="module", autouse=True)
def loras(models: Path) -> Iterator[None]:
    shapes = {key: tuple(tensor.shape) for key, tensor in tiny_weights.expert(seed=1).items()}
    for name, family in FILES.items():
        tensors = lora_files.FAMILIES[family](shapes).tensors
        save_file({key: tensor * 4 if key.endswith(("weight", "_a", "_b")) else tensor for key, tensor in tensors.items()}, models / "loras" / name)
    yield
    for name in FILES:
        (models / "loras" / name).unlink()


def with_stack(prompt: Prompt, *stack: tuple[str, str, float]) -> Prompt:
    """The prompt with Wan22LoRA nodes for (file, transformer, scale) and Wan22ApplyLoRAs between loader and sampler."""
    sampler = workflows.node_of(prompt, "Wan22Sampler")
    chained: dict[str, Any] = {}
    for index, (name, transformer, scale) in enumerate(stack):
        prompt[f"lora{index}"] = {"class_type": "Wan22LoRA", "inputs": {"lora": name, "scale": scale, "transformer": transformer, **chained}}
        chained = {"stack": [f"lora{index}", 0]}
    loras = {"loras": chained["stack"]} if chained else {}
    prompt["apply"] = {"class_type": "Wan22ApplyLoRAs", "inputs": {"high_noise": sampler["high_noise"], "low_noise": sampler["low_noise"], **loras}}
    sampler["high_noise"], sampler["low_noise"] = ["apply", 0], ["apply", 1]
    prompt["report"] = {"class_type": "PreviewAny", "inputs": {"source": ["apply", 2]}}
    return prompt


def run(server: ComfyUI, prompt: Prompt) -> tuple[np.ndarray, str]:
    outputs = server.run(workflows.repeatably_coded(prompt))
    report = outputs.get("report", {}).get("text", [""])[0]
    (path,) = server.saved_videos({key: value for key, value in outputs.items() if key != "report"})
    return videos.pixels(path), report


def test_the_stack_changes_the_video_and_the_report_lists_it(server: ComfyUI, small_prompt: Build) -> None:
    plain, _ = run(server, small_prompt())
    changed, report = run(server, with_stack(small_prompt(), *((name, target, 1.0) for name, target in STACK)))
    assert not np.array_equal(plain, changed)
    assert [line.split(" (")[0] for line in report.splitlines()] == [
        "high: pair_high.safetensors", "low: pair_low.safetensors", "high: both.safetensors", "low: both.safetensors", "low: detail.safetensors"]
    log = server.log()
    assert all(f"[Wan 2.2] {line}" in log for line in report.splitlines())


def test_a_lora_of_one_step_changes_the_video_by_that_step_alone(server: ComfyUI, small_prompt: Build) -> None:
    whole = with_stack(small_prompt(), ("both.safetensors", "both", 1.0))
    late = with_stack(small_prompt(), ("both.safetensors", "both", 1.0))
    late["lora0"]["inputs"].update(first_step=2, last_step=2)
    pictures, report = run(server, late)
    assert ", step 2, " in report
    assert not any(np.array_equal(pictures, run(server, other)[0]) for other in (whole, small_prompt()))


def test_a_step_beyond_the_run_ends_it_with_the_limit(server: ComfyUI, small_prompt: Build) -> None:
    prompt = with_stack(small_prompt(), ("both.safetensors", "both", 1.0))
    prompt["lora0"]["inputs"].update(first_step=3)
    with pytest.raises(PromptFailed, match="first_step of the LoRA both.safetensors is 3, beyond the run of 2 steps. Set it to 2 at most"):
        server.run(prompt)


def test_without_a_stack_the_experts_pass_as_they_are(server: ComfyUI, small_prompt: Build) -> None:
    prompt = with_stack(small_prompt())
    assert "loras" not in prompt["apply"]["inputs"]
    plain, _ = run(server, small_prompt())
    passed, report = run(server, prompt)
    assert np.array_equal(plain, passed)
    assert report == ""


@pytest.mark.parametrize(("name", "target"), STACK)
def test_each_alone_changes_the_video_at_one_and_not_at_zero(server: ComfyUI, small_prompt: Build, name: str, target: str) -> None:
    plain, _ = run(server, small_prompt())
    at_zero, report = run(server, with_stack(small_prompt(), (name, target, 0.0)))
    at_one, _ = run(server, with_stack(small_prompt(), (name, target, 1.0)))
    assert np.array_equal(plain, at_zero)
    assert "scale is 0" in report
    assert not np.array_equal(plain, at_one)


def test_changing_a_scale_runs_neither_loaders_nor_text_encoder_again(server: ComfyUI, small_prompt: Build) -> None:
    run(server, with_stack(small_prompt(), ("both.safetensors", "both", 0.5)))
    prompt = with_stack(small_prompt(), ("both.safetensors", "both", 0.6))
    entry = server.wait(server.queue(prompt))
    (cached,) = (message["nodes"] for kind, message in entry["status"]["messages"] if kind == "execution_cached")
    for class_type in ("Wan22ExpertLoader", "Wan22TextEncoderLoader", "Wan22TextEncode", "VAELoader"):
        assert workflows.nodes_of(prompt, class_type)[0] in cached
    assert workflows.nodes_of(prompt, "Wan22ApplyLoRAs")[0] not in cached


@pytest.mark.parametrize(("change", "message"), [({"lora": "gone.safetensors"}, "'gone.safetensors' is not in models/loras"),
                                                 ({"scale": 5.0}, "scale is 5.0; it must be between -4.0 and 4.0"),
                                                 ({"transformer": "middle"}, "transformer is 'middle'"),
                                                 ({"first_step": 0}, "first_step is 0; it must be between 1 and 200"),
                                                 ({"first_step": 5, "last_step": 2}, "first_step is 5, after last_step 2. Set last_step to 5")])
def test_bad_choices_are_refused_before_anything_runs(server: ComfyUI, small_prompt: Build, change: dict[str, Any], message: str) -> None:
    prompt = with_stack(small_prompt(), ("both.safetensors", "both", 1.0))
    prompt["lora0"]["inputs"].update(change)
    with pytest.raises(PromptRejected) as refused:
        server.queue(prompt)
    assert message in str(refused.value)


def test_fp8_experts_take_loras_beside_core_lora_nodes(server: ComfyUI, small_prompt: Build) -> None:
    ours, _ = run(server, with_stack(small_prompt(weight_dtype="fp8_e4m3fn"), ("both.safetensors", "both", 1.0)))
    prompt = with_stack(small_prompt(weight_dtype="fp8_e4m3fn"), ("both.safetensors", "both", 1.0))
    core = {"model": ["apply", 0], "lora_name": "pair_low.safetensors", "strength_model": 1.0}
    prompt["core"] = {"class_type": "LoraLoaderModelOnly", "inputs": core}
    workflows.node_of(prompt, "Wan22Sampler")["high_noise"] = ["core", 0]
    assert not np.array_equal(ours, run(server, prompt)[0])


def test_half_of_a_pair_is_in_the_schedule(server: ComfyUI, small_prompt: Build, models: Path) -> None:
    alone = models / "loras" / "alone_HIGH.safetensors"
    alone.write_bytes((models / "loras" / "pair_high.safetensors").read_bytes())
    prompt = with_stack(small_prompt(), (alone.name, "auto", 1.0))
    sampler = next(name for name, node in prompt.items() if node["class_type"] == "Wan22Sampler")
    prompt["schedule"] = {"class_type": "PreviewAny", "inputs": {"source": [sampler, 1]}}
    outputs = server.run(workflows.repeatably_coded(prompt))
    alone.unlink()
    assert "the low-noise expert goes without alone_LOW.safetensors" in outputs["schedule"]["text"][0]
    assert "[Wan 2.2] alone_HIGH.safetensors goes to the high-noise expert only" in server.log()
