"""Two GPUs in one run, pretended on a CPU: each expert on its own device, and core's MultiGPU CFG Split under our sampler."""

import importlib
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
import torch

from sampling_runs import SHAPE, Prompts, block_runs, noise

OTHER = torch.device("cpu", 1)  # a tensor there says "cpu", so that only what asks a model for its device sees another one
GUIDED = (3.5, 4.0)
Pair = tuple[Any, Any]


def sampled(pack: ModuleType, pair: Pair, prompts: Prompts, acceleration: str = "none", guidance: tuple[float, float] = GUIDED) -> torch.Tensor:
    run, experts = pack.nodes.host.sampling.run, pack.nodes.engine.sampling.experts
    guider = run.guider(*pair, *([[prompt[None], {}]] for prompt in prompts), experts.Guidance(*guidance), 5.0, acceleration, 0.875)
    start = noise()
    return guider.sample(start, torch.zeros(SHAPE), run.solver("unipc"), experts.Schedule("unipc", 12, 5.0).sigmas(), disable_pbar=True, seed=1)


def on(device: torch.device, expert: Any) -> Any:
    """As Select Model Device and ComfyUI-MultiGPU leave a MODEL."""
    clone = expert.clone()
    clone.load_device = device
    return clone


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, torch.Size]]:
    """Every tensor that is sent to a device by name: where to, and its shape."""
    sent: list[tuple[str, torch.Size]] = []
    original = torch.Tensor.to

    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        device = kwargs.get("device", args[0] if args else None)
        if isinstance(device, torch.device):
            sent.append((str(device), self.shape))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", to)
    return sent


@pytest.mark.parametrize("acceleration", ["none", "regular"])
@pytest.mark.parametrize("side", ["high", "low"])
def test_an_expert_on_another_device_computes_the_same_bits(pack: ModuleType, experts: Pair, prompts: Prompts, side: str, acceleration: str) -> None:
    pair = (on(OTHER, experts[0]), experts[1]) if side == "high" else (experts[0], on(OTHER, experts[1]))
    assert torch.equal(sampled(pack, pair, prompts, acceleration), sampled(pack, experts, prompts, acceleration))


def test_the_latent_goes_to_the_expert_and_comes_back(pack: ModuleType, experts: Pair, prompts: Prompts, moves: list[tuple[str, torch.Size]]) -> None:
    """Of 12 steps six are the low-noise expert's: latent and noise level go there, its prompts once."""
    sampled(pack, (experts[0], on(OTHER, experts[1])), prompts)
    there = [shape for device, shape in moves if device == str(OTHER)]
    assert there.count(torch.Size(SHAPE)) >= 6
    assert torch.Size((1,)) in there


def test_nothing_leaves_at_a_switch_between_devices(pack: ModuleType, experts: Pair, prompts: Prompts, monkeypatch: pytest.MonkeyPatch) -> None:
    management = importlib.import_module("comfy.model_management")
    if management.get_torch_device().type != "cpu":
        pytest.skip("the GPU here is not pretended")
    asked: list[tuple[str, set[int]]] = []

    def free_memory(needed: float, device: torch.device, keep_loaded: Sequence[Any] = (), **_: Any) -> None:
        leaving = [loaded for loaded in management.current_loaded_models if loaded not in keep_loaded and loaded.device == device]
        asked.append((str(device), {id(loaded.model.model) for loaded in leaving}))

    monkeypatch.setattr(pack.nodes.host.models.memory, "shares_memory", lambda device: False)
    monkeypatch.setattr(management, "free_memory", free_memory)
    sampled(pack, (experts[0], on(OTHER, experts[1])), prompts)
    ours = {id(expert.model) for expert in experts}
    assert [device for device, _ in asked[:2]] == ["cpu", str(OTHER)]  # once for each, before the first step
    assert not any(leaving & ours for _, leaving in asked)


# --- MultiGPU CFG Split ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def multi_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Core's module, with two devices for it to find."""
    management: Any = importlib.import_module("comfy.model_management")
    if not hasattr(management, "get_all_torch_devices") or not hasattr(importlib.import_module("comfy.sampler_helpers"),
                                                                       "prepare_model_patcher_multigpu_clones"):
        pytest.skip("this ComfyUI has no MultiGPU CFG Split")
    monkeypatch.setattr(management, "get_all_torch_devices", lambda exclude_current=False: [management.get_torch_device(), OTHER])
    return importlib.import_module("comfy.multigpu")


@pytest.fixture
def split_experts(multi_gpu: Any, experts: Pair) -> Pair:
    high, low = (multi_gpu.create_multigpu_deepclones(expert, 2) for expert in experts)
    assert [len(expert.get_additional_models_with_key("multigpu")) for expert in (high, low)] == [1, 1]
    return high, low


@pytest.mark.parametrize("acceleration", ["none", "regular"])
def test_prompts_split_over_two_devices_give_the_same_bits(pack: ModuleType, experts: Pair, split_experts: Pair, prompts: Prompts,
                                                           acceleration: str) -> None:
    clones = [expert.get_additional_models_with_key("multigpu")[0] for expert in split_experts]
    with block_runs(*split_experts) as here, block_runs(*clones) as there:
        split = sampled(pack, split_experts, prompts, acceleration)
    assert len(here) == len(there) > 0 and set(here) == set(there) == {1}  # each device one of two prompts in each step
    assert torch.equal(split, one_by_one(pack, experts, prompts, acceleration))


def one_by_one(pack: ModuleType, experts: Pair, prompts: Prompts, acceleration: str) -> torch.Tensor:
    """On one device, prompt by prompt: a batch of two rounds otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("comfy.samplers"), "cond_equal_size", lambda one, other: one is other)
        return sampled(pack, experts, prompts, acceleration)


def test_threads_and_clones_of_a_split_end_with_the_run(pack: ModuleType, split_experts: Pair, prompts: Prompts) -> None:
    before = threading.active_count()
    sampled(pack, split_experts, prompts)
    assert threading.active_count() == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack.nodes.host.sampling.expert.Expert, "denoised", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sampled(pack, split_experts, prompts)
    assert threading.active_count() == before


def test_a_split_expert_on_its_own_device_is_split_there(pack: ModuleType, experts: Pair, split_experts: Pair, prompts: Prompts) -> None:
    """Both together: four GPUs serve one run."""
    high, low = split_experts
    low = on(torch.device("cpu", 2), low)
    assert torch.equal(sampled(pack, (high, low), prompts), one_by_one(pack, experts, prompts, "none"))
