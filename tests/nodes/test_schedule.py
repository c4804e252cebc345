"""The HTTP edge: the schedule that the sampler's picture is drawn from is the one that it runs."""

import json
import urllib.error
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import tiny_weights
from comfyui import ComfyUI
from engine.sampling.schedules import TRAIN_TIMESTEPS
from engine.sampling.solvers import SOLVERS
from sampling_runs import SHAPE, Sample

DEFAULTS = {"steps": 27, "shift": 5, "solver": "unipc", "acceleration": "regular", "guidance_scale": 3.5, "guidance_scale_2": 4}


def schedule(server: ComfyUI, **changes: Any) -> dict[str, Any]:
    settings = {name: value for name, value in {**DEFAULTS, **changes}.items() if value is not None}
    return server.get(f"/wan22/schedule?{urllib.parse.urlencode(settings)}")


def refusal(server: ComfyUI, **changes: Any) -> str:
    with pytest.raises(urllib.error.HTTPError) as caught:
        schedule(server, **changes)
    assert caught.value.code == 400
    return json.loads(caught.value.read())["error"]


def test_the_defaults_are_the_hosted_ones(server: ComfyUI) -> None:
    plan = schedule(server)
    assert len(plan["sigmas"]) == 28 and plan["sigmas"][0] == pytest.approx(0.9998, abs=1e-4) and plan["sigmas"][-1] == 0
    assert plan["experts"] == ["high"] * 12 + ["low"] * 15
    assert (sum(plan["calls"]), plan["all_calls"], plan["boundary"]) == (28, 54, 0.875)
    assert plan["text"] == server.get(f"/api/wan22/schedule?{urllib.parse.urlencode(DEFAULTS)}")["text"]
    assert plan["text"].startswith("27 steps: 12 high")


class Watch:
    """What really runs: for every computed step its expert, its timestep, and the prompts that went through the network's blocks."""

    def __init__(self, experts: tuple[Any, Any]) -> None:
        self.steps: list[tuple[str, float]] = []
        self.calls: list[int] = []
        self.experts, self.kept = experts, [expert.model_options for expert in experts]

    def __enter__(self) -> "Watch":
        first_blocks = [expert.model.diffusion_model.blocks[0] for expert in self.experts]
        self.hooks = [block.register_forward_pre_hook(self._note_call) for block in first_blocks]
        for name, expert in zip(("high", "low"), self.experts, strict=True):
            expert.model_options = {**expert.model_options, "model_function_wrapper": self._wrapper(name)}
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self.hooks:
            hook.remove()
        for expert, options in zip(self.experts, self.kept, strict=True):
            expert.model_options = options

    def _wrapper(self, name: str) -> Callable[..., torch.Tensor]:
        def note_step(apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
            step = name, float(args["timestep"][0])
            if not self.steps or self.steps[-1] != step:
                self.steps.append(step)
                self.calls.append(0)
            return apply_model(args["input"], args["timestep"], **args["c"])

        return note_step  # ComfyUI copies what is not a plain function

    def _note_call(self, block: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.calls[-1] += len(inputs[0])


@pytest.mark.parametrize(("solver", "steps", "shift", "denoise", "boundary", "guidance", "acceleration"), [
    ("unipc", 27, 5.0, 1.0, 0.875, (3.5, 4.0), "regular"), ("unipc", 13, 3.0, 0.6, 0.0, (1.0, 4.0), "regular"),
    ("dpm++", 12, 12.0, 1.0, 0.9, (3.5, 1.0), "regular"), ("dpm++", 4, 5.0, 1.0, 0.875, (3.5, 4.0), "none"),
    ("euler", 20, 5.0, 1.0, 0.875, (1.0, 4.0), "high"), ("euler", 1, 1.0, 1.0, 1.0, (1.0, 1.0), "none")])
def test_what_is_shown_is_what_runs(server: ComfyUI, sample: Sample, solver: str, steps: int, shift: float, denoise: float, boundary: float,
                                    guidance: tuple[float, float], acceleration: str) -> None:
    shown = schedule(server, solver=solver, steps=steps, shift=shift, denoise=denoise, boundary=boundary, guidance_scale=guidance[0],
                     guidance_scale_2=guidance[1], acceleration=acceleration)
    with Watch(sample.experts) as watch:
        sample.latent({"samples": torch.zeros(SHAPE)}, solver, steps, shift, guidance, boundary, acceleration, denoise=denoise)
    computed = [step for step, calls in enumerate(shown["calls"]) if calls]
    assert [name for name, _ in watch.steps] == [shown["experts"][step] for step in computed]
    assert watch.calls == [shown["calls"][step] for step in computed]
    levels = [SOLVERS[solver].timestep(shown["sigmas"][step]) / TRAIN_TIMESTEPS for step in computed]
    assert [sigma for _, sigma in watch.steps] == pytest.approx(levels, rel=1e-6)
    assert shown["sigmas"][-1] == 0 and len(shown["sigmas"]) == steps + 1
    assert shown["text"].startswith(f"{steps} steps: ") and f", {sum(watch.calls)} model calls" in shown["text"]
    assert shown["all_calls"] == sum(1 + (guidance[name == "low"] > 1) for name in shown["experts"])


def entry(name: str, **changes: Any) -> dict[str, Any]:
    return {"lora": name, "scale": 1, "transformer": "auto", "first_step": 1, "last_step": 0, **changes}


def test_loras_by_step_and_an_opening_are_planned_by_the_names_of_the_files(server: ComfyUI) -> None:
    """A file named high brings its partner; one that is named neither goes to both, one at scale 0 nowhere."""
    high, low = (tiny_weights.LORAS[0].format(side) for side in ("high", "low"))
    stack = [entry(high, first_step=3), entry("style.safetensors", last_step=5), entry("off.safetensors", scale=0, first_step=2),
             entry("whole.safetensors")]
    plan = schedule(server, solver="euler", steps=6, guidance_scale=1, guidance_scale_2=1, opening_steps=2, loras=json.dumps(stack))
    assert plan["guidance"] == [3.5, 3.5, 1, 1, 1, 1] and plan["calls"] == [2, 2, 1, 1, 1, 1]
    assert plan["lora_changes"] == {"3": [f"with {high}"], "6": ["without style.safetensors"]}
    assert f"; high has {high} on step 3; low has style.safetensors on steps 4 to 5; acceleration off" in plan["text"]
    assert low not in plan["text"]  # it is on in all steps of its expert


def test_a_saved_stack_is_planned_by_what_it_says(server: ComfyUI, models: Path) -> None:
    saved = {"file": "style.safetensors", "sha256": "0" * 64, "scale": 1.0, "transformer": "high", "first_step": 2, "last_step": 2}
    path = models / "loras" / "stacks" / "planned.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"version": 1, "loras": [saved]}))
    try:
        plan = schedule(server, solver="euler", steps=6, loras=json.dumps([{"stack": "planned.json", "scale": 2}]))
        assert plan["lora_changes"] == {"2": ["with style.safetensors"], "3": ["without style.safetensors"]}
        assert "scale is 9" in refusal(server, loras=json.dumps([{"stack": "planned.json", "scale": 9}]))
    finally:
        path.unlink()


@pytest.mark.parametrize(("change", "message"), [
    ({"opening_steps": 13},
     "opening_steps is 13, but the high-noise expert takes 12 of the 27 steps. Set it to 12 at most, or raise steps or shift."),
    ({"loras": "["}, "loras is no list of LoRAs in JSON: Expecting value: line 1 column 2 (char 1)."),
    ({"loras": "[{}]"}, "loras is no list of LoRAs in JSON: 'lora'."),
    ({"loras": json.dumps([entry("a.safetensors", first_step=28)])},
     "first_step of the LoRA a.safetensors is 28, beyond the run of 27 steps. Set it to 27 at most."),
    ({"steps": 0}, "steps is 0; it must be between 1 and 200."),
    ({"steps": 2.5}, "steps is '2.5'; it must be a whole number."),
    ({"steps": None}, "steps is missing."),
    ({"shift": "much"}, "shift is 'much'; it must be a number."),
    ({"shift": "nan"}, "shift is nan; it must be between 0.01 and 100.0."),
    ({"denoise": 0}, "denoise is 0.0; it must be between 0.01 and 1.0."),
    ({"boundary": 2}, "boundary is 2.0; it must be between 0.0 and 1.0."),
    ({"guidance_scale_2": -1}, "guidance_scale_2 is -1.0; it must be between 0.0 and 100.0."),
    ({"solver": "heun"}, "solver is 'heun'; choose one of: unipc, dpm++, euler."),
    ({"acceleration": "fast"}, "acceleration is 'fast'; choose one of: none, regular, high."),
], ids=str)
def test_wrong_values_are_refused_in_words(server: ComfyUI, change: dict[str, Any], message: str) -> None:
    assert refusal(server, **change) == message


def test_without_a_server_nothing_is_registered(pack: ModuleType) -> None:
    import server as comfyui_server
    assert getattr(comfyui_server.PromptServer, "instance", None) is None
    pack.nodes.schedule.register()
