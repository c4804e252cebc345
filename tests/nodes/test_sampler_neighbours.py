"""The sampler beside core's guiders, context windows and caches, and between two of core's samplers."""

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from sampling_runs import SHAPE, Sample, block_runs, noise

SETTINGS = 5.0, (3.5, 4.0), 0.875  # shift, guidance, boundary
CACHES = ["EasyCacheNode", "LazyCacheNode"]
ALWAYS, NEVER, AT_ONCE = (3.0, 0.0, 1.0), (0.0, 0.15, 0.95), (3.0, 1.0, 1.0)  # threshold, start and end of a cache of core's


@pytest.fixture
def guider(pack: ModuleType, experts: tuple[Any, Any], prompts: tuple[torch.Tensor, torch.Tensor]) -> Any:
    """Makes one over both experts."""
    sampling, plan = pack.nodes.host.sampling.run, pack.nodes.engine.sampling.experts
    conditioning = [[[prompt[None], {}]] for prompt in prompts]

    def made(high: Any = experts[0], low: Any = experts[1], acceleration: str = "none") -> Any:
        return sampling.guider(high, low, *conditioning, plan.Guidance(*SETTINGS[1]), SETTINGS[0], acceleration, SETTINGS[2])

    return made


@pytest.fixture
def core_guider(experts: tuple[Any, Any], prompts: tuple[torch.Tensor, torch.Tensor]) -> Any:
    """Makes core's over the high-noise expert alone."""
    import comfy.samplers
    shifted = importlib.import_module("comfy_extras.nodes_model_advanced").ModelSamplingSD3()

    def made(model: Any = experts[0]) -> Any:
        guider = comfy.samplers.CFGGuider(shifted.patch(model, SETTINGS[0])[0])
        guider.set_conds(*([[prompt[None], {}]] for prompt in prompts))
        guider.set_cfg(SETTINGS[1][0])
        return guider

    return made


@contextlib.contextmanager
def replacing(expert: Any, **options: Any) -> Iterator[None]:
    kept, expert.model_options = expert.model_options, {**expert.model_options, **options}
    try:
        yield
    finally:
        expert.model_options = kept


def sigmas(pack: ModuleType, solver: str, steps: int) -> torch.Tensor:
    return pack.nodes.engine.sampling.experts.Schedule(solver, steps, SETTINGS[0]).sigmas()


# --- who looks the current step up -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
@pytest.mark.parametrize("kind", ["core_guider", "guider"])
def test_the_levels_of_a_run_are_published_as_the_network_is_told_them(pack: ModuleType, request: pytest.FixtureRequest, experts: tuple[Any, Any],
                                                                       solver: str, kind: str) -> None:
    """On any guider: step n is the n-th of sample_sigmas, for context windows, hooks and whoever else looks it up there."""
    places: list[list[int]] = []

    def wrapper(apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
        published = args["c"]["transformer_options"]["sample_sigmas"]
        places.append(torch.nonzero(published == args["timestep"][0].to(published)).flatten().tolist())
        return apply_model(args["input"], args["timestep"], **args["c"])

    with contextlib.ExitStack() as stack:
        for expert in experts:
            stack.enter_context(replacing(expert, model_function_wrapper=wrapper))
        request.getfixturevalue(kind)().sample(noise(), torch.zeros(SHAPE), pack.nodes.host.sampling.run.solver(solver), sigmas(pack, solver, 6))
    assert places == [[step] for step in range(6)]


@pytest.mark.parametrize("kind", ["core_guider", "guider"])
def test_uniform_context_windows_move_with_the_steps(pack: ModuleType, request: pytest.FixtureRequest, experts: tuple[Any, Any], kind: str) -> None:
    windows: Any = importlib.import_module("comfy.context_windows")
    steps: list[int] = []

    class Handler(windows.IndexListContextHandler):
        def get_context_windows(self, *args: Any, **kwargs: Any) -> Any:
            steps.append(self._step)
            return super().get_context_windows(*args, **kwargs)

    handler = Handler(context_schedule=windows.get_matching_context_schedule("standard_uniform"), context_length=4, context_overlap=1, dim=2,
                      fuse_method=windows.get_matching_fuse_method("pyramid"))
    shape = (1, 16, 7, 4, 6)
    with contextlib.ExitStack() as stack:
        for expert in experts:
            stack.enter_context(replacing(expert, context_handler=handler))
        request.getfixturevalue(kind)().sample(torch.randn(shape), torch.zeros(shape), pack.nodes.host.sampling.run.solver("unipc"),
                                               sigmas(pack, "unipc", 5))
    assert steps == list(range(5))


def test_wrappers_around_a_run_see_the_guidance_of_their_expert(pack: ModuleType, guider: Any, experts: tuple[Any, Any]) -> None:
    extension: Any = importlib.import_module("comfy.patcher_extension")
    seen: list[float] = []

    def wrapper(executor: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(executor.class_obj.cfg)
        return executor(*args, **kwargs)

    clones = [expert.clone() for expert in experts]
    for clone in clones:
        clone.add_wrapper_with_key(extension.WrappersMP.OUTER_SAMPLE, "test", wrapper)
    guider(*clones).sample(noise(), torch.zeros(SHAPE), pack.nodes.host.sampling.run.solver("unipc"), sigmas(pack, "unipc", 4))
    assert tuple(seen) == SETTINGS[1]


# --- a latent that still holds noise ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["unipc", "euler"])
@pytest.mark.parametrize("split", [1, 3])
def test_a_latent_goes_on_with_the_noise_it_holds(pack: ModuleType, guider: Any, solver: str, split: int) -> None:
    """DisableNoise from any step on: for Euler, which has no history, two halves are the whole run."""
    levels, sampler = sigmas(pack, solver, 6), pack.nodes.host.sampling.run.solver(solver)
    whole = guider().sample(noise(), torch.zeros(SHAPE), sampler, levels)
    first = guider().sample(noise(), torch.zeros(SHAPE), sampler, levels[: split + 1])
    second = guider().sample(torch.zeros(SHAPE), first, sampler, levels[split:])
    assert (second - whole).norm() / whole.norm() < (1e-4 if solver == "euler" else 0.2)


def test_without_new_noise_the_first_step_starts_from_the_latent(pack: ModuleType, guider: Any) -> None:
    """Also at the level at which the official solvers otherwise start from pure noise."""
    levels, sampler = sigmas(pack, "unipc", 4), pack.nodes.host.sampling.run.solver("unipc")
    one, other = (guider().sample(torch.zeros(SHAPE), scale * torch.ones(SHAPE), sampler, levels) for scale in (1e3, 2e3))
    assert not torch.allclose(one, other, rtol=1e-3)


@pytest.mark.parametrize("end", [1, 2, 3, 4])
@pytest.mark.parametrize("denoise", [0.5, 1.0])
def test_new_noise_on_a_latent_that_holds_noise_is_refused(experts: tuple[Any, Any], sample: Sample, end: int, denoise: float) -> None:
    """As core's KSamplerAdvanced returns it after an expert that knows the video, a wave; without leftover noise it is taken."""
    core, wave = importlib.import_module("nodes").KSamplerAdvanced(), torch.linspace(0, 6, 16 * 3 * 8 * 12).sin().view(1, 16, 3, 8, 12) * 1.4

    def sampled(leftover: str) -> dict[str, Any]:
        return core.sample(experts[0], "enable", 1, 6, 1.0, "euler", "simple", *sample.conditioning, {"samples": torch.zeros_like(wave)},
                           0, end, leftover)[0]

    with replacing(experts[0], model_function_wrapper=lambda apply_model, args: wave.expand_as(args["input"])):
        noisy, finished = sampled("enable"), sampled("disable")
    assert sample.latent(finished, "unipc", 4, *SETTINGS, denoise=denoise).isfinite().all()
    with pytest.raises(ValueError, match=r"latent_image still holds noise, \d+\.\d times.*; 1\.5 is the most.*to disable.*DisableNoise"):
        sample.latent(noisy, "unipc", 4, *SETTINGS, denoise=denoise)


# --- core's caches ---------------------------------------------------------------------------------------------------------------


def cached(node: str, expert: Any, threshold: float, start: float, end: float) -> Any:
    return getattr(importlib.import_module("comfy_extras.nodes_easycache"), node).execute(expert, threshold, start, end, False).result[0]


@pytest.mark.parametrize("off", [NEVER, AT_ONCE])
@pytest.mark.parametrize("node", CACHES)
def test_a_cache_of_cores_that_skips_nothing_changes_no_bit(pack: ModuleType, guider: Any, experts: tuple[Any, Any], node: str,
                                                            off: tuple[float, float, float]) -> None:
    run = torch.zeros(SHAPE), pack.nodes.host.sampling.run.solver("unipc"), sigmas(pack, "unipc", 8)
    plain = guider().sample(noise(), *run)
    assert torch.equal(guider(*(cached(node, expert, *off) for expert in experts)).sample(noise(), *run), plain)


@pytest.mark.parametrize("node", CACHES)
def test_a_cache_of_cores_skips_in_our_run_what_it_skips_in_cores(pack: ModuleType, guider: Any, core_guider: Any, experts: tuple[Any, Any],
                                                                  node: str) -> None:
    """Steps of the high-noise expert alone, so that one of core's guiders can run them."""
    levels, sampler = sigmas(pack, "euler", 24)[:12], pack.nodes.host.sampling.run.solver("euler")
    results, runs = [], []
    for make in (core_guider, guider):
        with block_runs(experts[0]) as each:
            results.append(make(cached(node, experts[0], *ALWAYS)).sample(noise(), torch.zeros(SHAPE), sampler, levels))
        runs.append(len(each))
    assert runs[0] == runs[1] < 11
    assert (results[0] - results[1]).norm() / results[0].norm() < 1e-4


@pytest.mark.parametrize("side", ["high", "low", "both"])
@pytest.mark.parametrize("node", CACHES)
def test_our_acceleration_steps_aside_for_a_cache_of_cores(pack: ModuleType, guider: Any, experts: tuple[Any, Any], node: str, side: str) -> None:
    """On either expert; no step is left out by both."""
    models = [cached(node, expert, *ALWAYS) if side in (name, "both") else expert for name, expert in zip(("high", "low"), experts, strict=True)]
    run = pack.nodes.host.sampling.run.solver("unipc"), sigmas(pack, "unipc", 12)
    ours = {acceleration: guider(*models, acceleration).sample(noise(), torch.zeros(SHAPE), *run) for acceleration in ("none", "regular")}
    assert torch.equal(ours["none"], ours["regular"])
    plan = guider(*models, "regular").plan(*run)
    assert f"acceleration off: {node.removesuffix('Node')} is on an expert" in plan.describe()
