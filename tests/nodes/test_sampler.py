"""The sampler beside core's: the same pieces, the same results, no more work than needed, and nothing left on the user's models."""

import contextlib
import functools
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from sampling_runs import SHAPE, Sample, noise

Call = tuple[str, float, tuple[int, ...]]
TOLERANCE = 1e-7  # in float64


@pytest.fixture(scope="module")
def core(pack: ModuleType) -> ModuleType:
    """ComfyUI's own nodes."""
    return importlib.import_module("nodes")


@pytest.fixture(scope="module")
def conditioning(prompts: tuple[torch.Tensor, torch.Tensor]) -> tuple[Any, Any]:
    positive, negative = ([[prompt[None], {}]] for prompt in prompts)
    return positive, negative


@pytest.fixture
def calls(experts: tuple[Any, Any]) -> Iterator[list[Call]]:
    with watched(experts) as seen:
        yield seen


@contextlib.contextmanager
def watched(experts: tuple[Any, Any]) -> Iterator[list[Call]]:
    """(expert, timestep, conditionings) of every call of the network, seen by a model function wrapper as other packs set them."""
    seen: list[Call] = []
    kept = [expert.model_options for expert in experts]
    for name, expert in zip(("high", "low"), experts, strict=True):
        def wrapper(apply_model: Any, args: dict[str, Any], name: str = name) -> torch.Tensor:
            seen.append((name, round(float(args["timestep"][0]) * 1000, 2), tuple(args["cond_or_uncond"])))
            return apply_model(args["input"], args["timestep"], **args["c"])

        expert.model_options = {**expert.model_options, "model_function_wrapper": wrapper}
    try:
        yield seen
    finally:
        for expert, options in zip(experts, kept, strict=True):
            expert.model_options = options


def conditionings(seen: list[Call], expert: str) -> set[int]:
    return {branch for name, _, branches in seen if name == expert for branch in branches}


@pytest.mark.parametrize("steps", [4, 10, 20, 27])
def test_euler_equals_cores_two_samplers(core: ModuleType, pack: ModuleType, exact_sample: Sample, steps: int) -> None:
    ours = exact_sample("euler", steps, 5.0, (3.5, 4.0), 0.875)
    shifted = importlib.import_module("comfy_extras.nodes_model_advanced").ModelSamplingSD3()
    high, low = (shifted.patch(expert, 5.0)[0] for expert in exact_sample.experts)
    sigmas = pack.nodes.engine.sampling.experts.Schedule("euler", steps, 5.0).sigmas()
    split = int((sigmas[:-1] * 1000 >= 875).sum())
    latent, ksampler = {"samples": torch.zeros(SHAPE)}, core.KSamplerAdvanced()
    prompts = exact_sample.conditioning
    (first,) = ksampler.sample(high, "enable", 1, steps, 3.5, "euler", "simple", *prompts, latent, 0, split, "enable")
    (second,) = ksampler.sample(low, "disable", 1, steps, 4.0, "euler", "simple", *prompts, first, split, 10000, "disable")
    assert (ours - exact_sample.in_network_scale(second["samples"])).abs().max() < 1e-5  # core keeps the noise levels in float32


@pytest.mark.parametrize("acceleration", ["none", "regular"])
@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
def test_the_pieces_apart_give_the_same_bits(pack: ModuleType, experts: tuple[Any, Any], conditioning: tuple[Any, Any], sample: Sample,
                                             solver: str, acceleration: str) -> None:
    (guider,) = pack.Wan22Guider.execute(*experts, conditioning[0], 3.5, 4.0, 5.0, acceleration, 0.875, negative=conditioning[1]).result
    (sigmas,) = pack.Wan22Sigmas.execute(12, 5.0, solver, 1.0).result
    (sampler,) = pack.Wan22Solver.execute(solver).result
    custom = importlib.import_module("comfy_extras.nodes_custom_sampler")
    output = custom.SamplerCustomAdvanced.execute(custom.Noise_RandomNoise(1), guider, sampler, sigmas, {"samples": torch.zeros(SHAPE)}).result[0]
    ours = sample(solver, 12, 5.0, (3.5, 4.0), 0.875, acceleration=acceleration)
    assert torch.equal(experts[0].model.process_latent_in(output["samples"]), ours)


@pytest.mark.parametrize("name", ["res_multistep", "heun", "dpmpp_2m", "uni_pc", "euler_ancestral", "euler_cfg_pp", "lcm"])
def test_core_samplers_follow_the_boundary_too(pack: ModuleType, experts: tuple[Any, Any], conditioning: tuple[Any, Any], calls: list,
                                               name: str) -> None:
    import comfy.samplers
    guidance = pack.nodes.engine.sampling.experts.Guidance(3.5, 4.0)
    guider = pack.nodes.host.sampling.run.guider(*experts, *conditioning, guidance, 5.0, "regular", 0.875)
    sigmas = torch.tensor([1.0, 0.93, 0.88, 0.84, 0.5, 0.0])
    result = guider.sample(noise(), torch.zeros(SHAPE), comfy.samplers.sampler_object(name), sigmas, seed=1)
    assert result.isfinite().all()
    assert {expert for expert, t, _ in calls if t >= 875} == {"high"}
    assert {expert for expert, t, _ in calls if t < 875} == {"low"}


@pytest.mark.parametrize(("guidance", "branches"), [((3.5, 4.0), ({0, 1}, {0, 1})), ((1.0, 4.0), ({0}, {0, 1})), ((3.5, 1.0), ({0, 1}, {0}))])
def test_guidance_one_skips_the_unconditional_call_of_that_expert(sample: Sample, calls: list, guidance: tuple, branches: tuple) -> None:
    sample("unipc", 6, 5.0, guidance, 0.875)
    assert (conditionings(calls, "high"), conditionings(calls, "low")) == branches
    assert len([1 for _, _, b in calls for _ in b]) == sum(len(b) * 3 for b in branches)


def test_the_network_sees_the_official_whole_timesteps(sample: Sample, calls: list) -> None:
    sample("unipc", 27, 5.0, (1.0, 1.0), 0.875)
    timesteps = [t for _, t, _ in calls]
    assert timesteps[:3] == [999, 992, 984]
    assert timesteps[11:13] == [878, 861]
    assert [name for name, _, _ in calls] == ["high"] * 12 + ["low"] * 15


def test_the_negative_prompt_is_only_needed_for_guidance(pack: ModuleType, experts: tuple[Any, Any], conditioning: tuple[Any, Any],
                                                         sample: Sample) -> None:
    sampling, plan = pack.nodes.host.sampling.run, pack.nodes.engine.sampling.experts

    def run(guidance: tuple[float, float]) -> torch.Tensor:
        guider = sampling.guider(*experts, conditioning[0], None, plan.Guidance(*guidance), 5.0, "none", 0.875)
        return sampling.sample(guider, {"samples": torch.zeros(SHAPE)}, 1, plan.Schedule("unipc", 4, 5.0))[0]["samples"]

    assert torch.equal(experts[0].model.process_latent_in(run((1.0, 1.0))), sample("unipc", 4, 5.0, (1.0, 1.0), 0.875))
    with pytest.raises(ValueError, match=r"negative is not connected, but guidance is 1.0 / 4.0.*set both guidance scales to 1"):
        run((1.0, 4.0))


@pytest.mark.parametrize(("boundary", "used"), [(0.0, {"high"}), (1.0, {"low"}), (0.875, {"high", "low"})])
def test_an_expert_without_steps_is_not_loaded(pack: ModuleType, sample: Sample, monkeypatch: pytest.MonkeyPatch, experts: tuple[Any, Any],
                                               boundary: float, used: set[str]) -> None:
    loaded: list[str] = []
    expert_class = pack.nodes.host.sampling.expert.Expert
    original = expert_class.load

    def load(self: Any, run: Any) -> None:
        loaded.append("high" if self.model_patcher.model is experts[0].model else "low")
        original(self, run)

    monkeypatch.setattr(expert_class, "load", load)
    sample("unipc", 4, 5.0, (1.0, 1.0), boundary)
    assert sorted(loaded) == sorted(used)


def test_a_batch_is_its_single_latents(exact_sample: Sample) -> None:
    settings = "unipc", 12, 5.0, (3.5, 4.0), 0.875, "regular"
    batch = exact_sample.latent({"samples": torch.zeros(3, *SHAPE[1:])}, *settings)
    torch.testing.assert_close(exact_sample.in_network_scale(batch)[:1], exact_sample(*settings), rtol=0, atol=TOLERANCE)
    assert not torch.allclose(batch[0], batch[1])


def test_denoise_stays_near_the_latent_it_starts_from(pack: ModuleType, experts: tuple[Any, Any], conditioning: tuple[Any, Any],
                                                      sample: Sample) -> None:
    sampling, plan = pack.nodes.host.sampling.run, pack.nodes.engine.sampling.experts
    start = experts[0].model.process_latent_out(sample("unipc", 12, 5.0, (1.0, 1.0), 0.875))
    distance = []
    for denoise in (0.05, 0.4, 1.0):
        guider = sampling.guider(*experts, *conditioning, plan.Guidance(1.0, 1.0), 5.0, "none", 0.875)
        changed = sampling.sample(guider, {"samples": start}, 2, plan.Schedule("unipc", 12, 5.0, denoise))[0]["samples"]
        distance.append((changed - start).norm().item())
    assert distance[0] < distance[1] < distance[2]
    assert distance[0] < 0.4 * distance[2]


def test_a_noise_mask_keeps_what_it_covers(exact_sample: Sample) -> None:
    start = torch.randn(SHAPE)
    mask = torch.zeros(1, 1, *SHAPE[2:])
    mask[..., SHAPE[-1] // 2 :] = 1
    result = exact_sample.latent({"samples": start, "noise_mask": mask}, "euler", 4, 5.0, (3.5, 4.0), 0.875)
    kept = SHAPE[-1] // 2
    torch.testing.assert_close(result[..., :kept], start[..., :kept], rtol=0, atol=TOLERANCE)
    assert (result[..., kept:] - start[..., kept:]).abs().mean() > 0.1


def test_latents_keep_what_travels_with_them_and_lose_the_hints_of_newer_cores(pack: ModuleType, experts: tuple[Any, Any],
                                                                               conditioning: tuple[Any, Any]) -> None:
    sampling, plan = pack.nodes.host.sampling.run, pack.nodes.engine.sampling.experts
    guider = sampling.guider(*experts, *conditioning, plan.Guidance(1.0, 1.0), 5.0, "none", 0.875)
    latent: dict[str, Any] = {"samples": torch.zeros(SHAPE), "wan22_num_frames": 10, "downscale_ratio_spacial": 8, "downscale_ratio_temporal": 4}
    result, _ = sampling.sample(guider, latent, 1, plan.Schedule("unipc", 1, 5.0))
    assert set(result) == {"samples", "wan22_num_frames"}
    assert torch.equal(latent["samples"], torch.zeros(SHAPE))


def core_picture(node: str, batch: int) -> dict[str, Any]:
    """The empty latent of 40x24 pixels that a node of core makes for pictures."""
    if node == "EmptyLatentImage":
        return importlib.import_module("nodes").EmptyLatentImage().generate(40, 24, batch)[0]
    return importlib.import_module("comfy_extras.nodes_sd3").EmptySD3LatentImage.execute(40, 24, batch).result[0]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("node", ["EmptyLatentImage", "EmptySD3LatentImage"])
def test_what_core_makes_for_pictures_is_a_video_of_one_frame(sample: Sample, node: str, batch: int) -> None:
    """As KSampler takes it: the same as Wan's own zeros."""
    settings = "unipc", 4, 5.0, (3.5, 4.0), 0.875
    ours = sample.latent({"samples": torch.zeros(batch, 16, 1, 3, 5)}, *settings)
    assert torch.equal(sample.latent(core_picture(node, batch), *settings), ours)


def test_a_picture_of_another_model_that_holds_something_is_refused(sample: Sample) -> None:
    with pytest.raises(ValueError, match=r"latent_image has shape \(1, 4, 1, 4, 6\).*Wan 2.2 Empty Latent"):
        sample.latent({"samples": torch.ones(1, 4, 4, 6)}, "unipc", 4, 5.0, (1.0, 1.0), 0.875)


def fingerprint(value: Any) -> Any:
    """A nested structure with tensors and functions by identity, for telling whether anything was changed."""
    if isinstance(value, dict):
        return {str(key): fingerprint(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [fingerprint(item) for item in value]
    return id(value)


@pytest.mark.parametrize("acceleration", ["none", "regular"])
def test_nothing_is_left_on_the_users_models(sample: Sample, experts: tuple[Any, Any], acceleration: str) -> None:
    def state() -> Any:
        return [fingerprint([expert.model_options, expert.object_patches, expert.patches, expert.wrappers, expert.callbacks, expert.hook_patches])
                for expert in experts]

    for expert in experts:
        expert.detach()
    before = state()
    samplings = [expert.model.model_sampling for expert in experts]
    sample("unipc", 12, 9.0, (3.5, 4.0), 0.875, acceleration=acceleration)
    assert state() == before
    for expert, sampling in zip(experts, samplings, strict=True):
        expert.detach()
        assert expert.model.model_sampling is sampling


@pytest.mark.parametrize("acceleration", ["none", "regular"])
def test_branches_batched_or_apart_give_the_same_video(exact_sample: Sample, monkeypatch: pytest.MonkeyPatch, acceleration: str) -> None:
    import comfy.model_base
    with watched(exact_sample.experts) as calls:
        together = exact_sample("unipc", 12, 5.0, (3.5, 4.0), 0.875, acceleration=acceleration)
        assert {branches for _, _, branches in calls} <= {(0, 1), (1, 0)}
        calls.clear()
        monkeypatch.setattr(comfy.model_base.BaseModel, "memory_required", lambda *_, **__: 1e30)
        apart = exact_sample("unipc", 12, 5.0, (3.5, 4.0), 0.875, acceleration=acceleration)
        assert {branches for _, _, branches in calls} == {(0,), (1,)}
    torch.testing.assert_close(together, apart, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_boundaries_outside_the_range_are_refused(pack: ModuleType, experts: tuple[Any, Any], conditioning: tuple[Any, Any], bad: float) -> None:
    guidance = pack.nodes.engine.sampling.experts.Guidance(3.5, 4.0)
    with pytest.raises(ValueError, match="boundary is"):
        pack.nodes.host.sampling.run.guider(*experts, *conditioning, guidance, 5.0, "none", bad)


def test_wrappers_of_both_experts_run_around_the_whole_run(sample: Sample, experts: tuple[Any, Any]) -> None:
    """OUTER_SAMPLE and PREDICT_NOISE wrappers, as EasyCache and context windows register them."""
    import comfy.patcher_extension
    order: list[str] = []
    kind = comfy.patcher_extension.WrappersMP
    kept = [(expert.wrappers, expert) for expert in experts]
    for name, expert in zip(("high", "low"), experts, strict=True):
        def note(executor: Any, *args: Any, event: str, **kwargs: Any) -> torch.Tensor:
            order.append(event)
            return executor(*args, **kwargs)

        expert.wrappers = {}
        expert.add_wrapper_with_key(kind.OUTER_SAMPLE, "test", functools.partial(note, event=f"outer {name}"))
        expert.add_wrapper_with_key(kind.PREDICT_NOISE, "test", functools.partial(note, event=name))
    try:
        sample("unipc", 4, 5.0, (1.0, 1.0), 0.875)
    finally:
        for wrappers, expert in kept:
            expert.wrappers = wrappers
    assert order == ["outer high", "outer low", "high", "high", "low", "low"]


def test_the_published_sigmas_hold_every_level_the_network_is_told(pack: ModuleType, experts: tuple[Any, Any], sample: Sample) -> None:
    """Context windows look the current level up in sample_sigmas, to four digits."""
    seen: list[tuple[float, torch.Tensor]] = []
    kept = [expert.model_options for expert in experts]

    def wrapper(apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
        seen.append((float(args["timestep"][0]), args["c"]["transformer_options"]["sample_sigmas"]))
        return apply_model(args["input"], args["timestep"], **args["c"])

    for expert in experts:
        expert.model_options = {**expert.model_options, "model_function_wrapper": wrapper}
    sample("unipc", 27, 5.0, (1.0, 1.0), 0.875)
    for expert, options in zip(experts, kept, strict=True):
        expert.model_options = options
    assert len(seen) == 27
    assert all(torch.isclose(torch.tensor(sigma), published, rtol=1e-6).any() for sigma, published in seen)


def test_post_cfg_functions_run_once_per_step_on_their_expert(sample: Sample, experts: tuple[Any, Any]) -> None:
    seen: list[str] = []
    kept = [expert.model_options for expert in experts]
    for name, expert in zip(("high", "low"), experts, strict=True):
        def note(args: dict[str, Any], name: str = name) -> torch.Tensor:
            seen.append(name)
            return args["denoised"]

        expert.model_options = {**expert.model_options, "sampler_post_cfg_function": [note]}
    sample("unipc", 4, 5.0, (3.5, 4.0), 0.875)
    for expert, options in zip(experts, kept, strict=True):
        expert.model_options = options
    assert seen == ["high", "high", "low", "low"]


def test_a_mask_function_of_the_model_is_used(pack: ModuleType, experts: tuple[Any, Any], conditioning: tuple[Any, Any]) -> None:
    """As differential diffusion sets it."""
    sampling, plan = pack.nodes.host.sampling.run, pack.nodes.engine.sampling.experts
    levels: list[float] = []

    def noted(sigma: torch.Tensor, mask: torch.Tensor, extra_options: dict[str, Any]) -> torch.Tensor:
        levels.append(float(sigma[0]))
        return mask

    masked = [expert.clone() for expert in experts]
    for clone in masked:
        clone.set_model_denoise_mask_function(noted)
    guider = sampling.guider(*masked, *conditioning, plan.Guidance(1.0, 1.0), 5.0, "none", 0.875)
    sampling.sample(guider, {"samples": torch.randn(SHAPE), "noise_mask": torch.ones(1, 1, *SHAPE[2:])}, 1, plan.Schedule("unipc", 4, 5.0))
    assert len(levels) == 4


def test_other_wan_models_are_named(pack: ModuleType, experts: tuple[Any, Any], conditioning: tuple[Any, Any],
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(experts[1].model.model_config.unet_config, "model_type", "vace")
    guidance = pack.nodes.engine.sampling.experts.Guidance(3.5, 4.0)
    with pytest.raises(ValueError, match="low_noise is a Wan vace model"):
        pack.nodes.host.sampling.run.guider(*experts, *conditioning, guidance, 5.0, "none", 0.875)
