"""Accelerated runs: the network rests at forecast steps, everything around it goes on, and what is forecast is what the plan says."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny_weights
from sampling_runs import SHAPE, Sample, block_runs, noise, relative_error

GUIDED = (3.5, 4.0)
DEFAULTS = "unipc", 27, 5.0, GUIDED, 0.875
NEAR = 0.2  # of `none`: random weights turn faster than trained ones
Guide = Callable[..., Any]


@pytest.fixture(scope="module")
def guide(pack: ModuleType, prompts: tuple[torch.Tensor, torch.Tensor]) -> Guide:
    """A guider over a pair of experts."""
    positive, negative = ([[prompt[None], {}]] for prompt in prompts)

    def made(pair: Any, acceleration: str, guidance: tuple[float, float] = GUIDED) -> Any:
        plan = pack.nodes.engine.sampling.experts
        return pack.nodes.host.sampling.run.guider(*pair, positive, negative, plan.Guidance(*guidance), 5.0, acceleration, 0.875)

    return made


@pytest.fixture(scope="module")
def sampled(pack: ModuleType, guide: Guide) -> Callable[..., torch.Tensor]:
    """The latent of a run of the pair over 12 steps or more."""

    def run(pair: Any, acceleration: str, latent: dict[str, Any] | None = None, steps: int = 12, denoise: float = 1.0, solver: str = "unipc") -> Any:
        schedule = pack.nodes.engine.sampling.experts.Schedule(solver, steps, 5.0, denoise)
        return pack.nodes.host.sampling.run.sample(guide(pair, acceleration), latent or {"samples": torch.zeros(SHAPE)}, 1, schedule)[0]["samples"]

    return run


@pytest.mark.parametrize(("acceleration", "computed_steps"), [("none", 27), ("regular", 14), ("high", 12)])
def test_at_forecast_steps_no_block_runs(sample: Sample, experts: tuple[Any, Any], acceleration: str, computed_steps: int) -> None:
    with block_runs(*experts) as runs:
        sample("unipc", 27, 5.0, (1.0, 1.0), 0.875, acceleration=acceleration)
    assert len(runs) == computed_steps


@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
def test_an_acceleration_that_forecasts_nothing_changes_no_bit(pack: ModuleType, experts: tuple[Any, Any], sampled: Callable[..., torch.Tensor],
                                                               solver: str) -> None:
    settings = pack.nodes.engine.sampling.forecast.ForecastSettings(first=2, in_a_row=0, nearest=0.0, trend=0.5)
    pair = [expert.clone() for expert in experts]
    for expert in pair:
        expert.set_attachments(pack.nodes.host.models.forecast_files.MEASURED, settings)
    assert torch.equal(sampled(pair, "regular", solver=solver), sampled(experts, "none", solver=solver))


def test_a_run_is_near_none_and_alike_twice_and_more_calls_are_nearer(sample: Sample) -> None:
    exact = sample(*DEFAULTS)
    regular, high = sample(*DEFAULTS, acceleration="regular"), sample(*DEFAULTS, acceleration="high")
    assert torch.equal(regular, sample(*DEFAULTS, acceleration="regular"))
    assert 0 < relative_error(regular, exact) < relative_error(high, exact) < NEAR


@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
def test_a_forecast_step_goes_on_from_the_last_two_computed_ones_of_its_expert(pack: ModuleType, exact_sample: Sample, guide: Guide,
                                                                               solver: str) -> None:
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []
    run = pack.nodes.host.sampling.run.solver(solver), pack.nodes.engine.sampling.experts.Schedule(solver, 27, 5.0).sigmas()
    guider = guide(exact_sample.experts, "regular")
    plan = guider.plan(*run).steps
    guider.sample(noise(), torch.zeros(SHAPE), *run, callback=lambda number, x0, x, total: steps.append((x0, x)), disable_pbar=True, seed=1)
    computed: dict[bool, list[tuple[float, torch.Tensor]]] = {True: [], False: []}
    for step, (x0, x) in zip(plan, steps, strict=True):
        velocity = (x - x0) / step.sigma
        if step.trend is None:
            computed[step.high].append((step.timestep, velocity))
            continue
        (before, earlier), (last, latest) = computed[step.high][-2:]
        along = step.trend * min(1.0, (step.timestep - last) / (last - before))
        torch.testing.assert_close(velocity, latest + along * (latest - earlier), rtol=1e-4, atol=1e-4)


def test_block_patches_of_other_packs_run_at_computed_steps(experts: tuple[Any, Any], guide: Guide, pack: ModuleType) -> None:
    seen = []

    def patch(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        seen.append(args["img"].shape)
        return extra["original_block"](args)

    high = experts[0].clone()
    high.set_model_patch_replace(patch, "dit", "double_block", 0)
    pack.nodes.host.sampling.run.sample(guide((high, experts[1]), "regular", (1.0, 1.0)), {"samples": torch.zeros(SHAPE)}, 1,
                                        pack.nodes.engine.sampling.experts.Schedule("unipc", 27, 5.0))
    assert len(seen) == 4  # of twelve steps


def windowed(expert: Any) -> Any:
    """With core's context windows of 4 latent frames."""
    context_windows = importlib.import_module("comfy.context_windows")
    clone = expert.clone()
    clone.model_options["context_handler"] = context_windows.IndexListContextHandler(
        context_schedule=context_windows.get_matching_context_schedule("standard_static"),
        fuse_method=context_windows.get_matching_fuse_method("pyramid"), context_length=4, context_overlap=1, dim=2)
    context_windows.create_prepare_sampling_wrapper(clone)
    return clone


def skipping_layers(expert: Any) -> Any:
    """With core's skip-layer guidance over all noise levels."""
    node = importlib.import_module("comfy_extras.nodes_slg").SkipLayerGuidanceDiT
    return node.execute(expert, scale=1.0, start_percent=0.0, end_percent=1.0, double_layers="0").result[0]


@pytest.mark.parametrize(("changed", "frames", "runs_a_step"), [(windowed, 7, 2), (skipping_layers, 3, 1)])
def test_what_evaluates_a_prompt_more_than_once_in_a_step_is_accelerated(experts: tuple[Any, Any], sampled: Callable[..., torch.Tensor],
                                                                         changed: Callable[[Any], Any], frames: int, runs_a_step: int) -> None:
    pair, latent = [changed(expert) for expert in experts], {"samples": torch.zeros(1, 16, frames, 4, 6)}
    results, counts = {}, {}
    for acceleration in ("none", "regular"):
        with block_runs(*experts) as runs:
            results[acceleration] = sampled(pair, acceleration, latent, steps=20)
        counts[acceleration] = len(runs)
    assert counts["none"] >= 20 * runs_a_step
    assert counts["regular"] <= 0.65 * counts["none"]
    assert 0 < relative_error(results["regular"], results["none"]) < NEAR
    assert relative_error(sampled(experts, "none", latent, steps=20), results["none"]) > 1e-3


def test_what_a_mask_keeps_is_kept_at_forecast_steps_too(exact_sample: Sample, sampled: Callable[..., torch.Tensor]) -> None:
    """With euler; the official solvers' whole timesteps move even what is kept by a thousandth."""
    start, mask = torch.randn(SHAPE), torch.zeros(1, 1, *SHAPE[2:])
    kept = SHAPE[-1] // 2
    mask[..., kept:] = 1
    latent = {"samples": start, "noise_mask": mask}
    fast, exact = (sampled(exact_sample.experts, acceleration, latent, steps=20, solver="euler") for acceleration in ("regular", "none"))
    torch.testing.assert_close(fast[..., :kept], start[..., :kept], rtol=0, atol=1e-7)
    assert 0 < relative_error(fast[..., kept:], exact[..., kept:]) < NEAR


def test_part_of_a_schedule_is_accelerated(experts: tuple[Any, Any], sampled: Callable[..., torch.Tensor]) -> None:
    start = {"samples": 0.2 * noise(2)}
    with block_runs(*experts) as runs:
        fast = sampled(experts, "regular", start, steps=20, denoise=0.6)
    assert len(runs) < 20
    assert 0 < relative_error(fast, sampled(experts, "none", start, steps=20, denoise=0.6)) < NEAR


def test_packed_weights_with_a_lora_are_accelerated(pack: ModuleType, lora_folder: Path, experts: tuple[Any, Any], packed_experts: tuple[Any, Any],
                                                    sampled: Callable[..., torch.Tensor]) -> None:
    """As GGUF files have them: the LoRA hangs on the packed tensor and is added where it is unpacked, at computed steps alone."""
    save_file(tiny_weights.lora(31), lora_folder / "style.safetensors")
    choice = pack.nodes.engine.lora.routing.LoraChoice("style.safetensors")
    pair, plain = (pack.nodes.host.models.lora.apply(*experts, [choice])[:2] for experts in (packed_experts, experts))
    results, counts = {}, {}
    for acceleration in ("none", "regular"):
        with block_runs(*packed_experts) as runs:
            results[acceleration] = sampled(pair, acceleration, steps=20)
        counts[acceleration] = len(runs)
    assert counts["regular"] <= 0.65 * counts["none"]
    assert 0 < relative_error(results["regular"], results["none"]) < NEAR
    merged, without = sampled(plain, "none", steps=20), sampled(packed_experts, "none", steps=20)
    assert relative_error(results["none"], merged) < 0.5 * relative_error(without, merged)
