"""The sampler beside core's guiders, context windows and caches, and between two of core's samplers."""

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from sampling_runs import SHAPE, noise

SETTINGS = 5.0, (3.5, 4.0), 0.875  # shift, guidance, boundary


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
    found: list[list[int]] = []

    def wrapper(apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
        published = args["c"]["transformer_options"]["sample_sigmas"]
        found.append(torch.nonzero(published == args["timestep"][0].to(published)).flatten().tolist())
        return apply_model(args["input"], args["timestep"], **args["c"])

    with contextlib.ExitStack() as stack:
        for expert in experts:
            stack.enter_context(replacing(expert, model_function_wrapper=wrapper))
        request.getfixturevalue(kind)().sample(noise(), torch.zeros(SHAPE), pack.nodes.host.sampling.run.solver(solver), sigmas(pack, solver, 6))
    assert found == [[step] for step in range(6)]


@pytest.mark.parametrize("kind", ["core_guider", "guider"])
def test_uniform_context_windows_move_with_the_steps(pack: ModuleType, request: pytest.FixtureRequest, experts: tuple[Any, Any], kind: str) -> None:
    windows = importlib.import_module("comfy.context_windows")
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
