"""Who leaves the GPU, in which order; with ComfyUI's list of loaded models, and a GPU that is only pretended."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

import tiny_weights

Sample = Callable[..., torch.Tensor]


class Ledger:
    """What free_memory was asked for: bytes, and which of the loaded models were allowed to leave."""

    def __init__(self, names: dict[int, str], clip: Any) -> None:
        self.names = names
        self.clip = clip  # keeps it loaded
        self.requests: list[tuple[float, set[str]]] = []

    def free_memory(self, needed: float, device: torch.device, keep_loaded: list[Any]) -> None:
        import comfy.model_management
        leaving = [loaded for loaded in comfy.model_management.current_loaded_models if loaded not in keep_loaded]
        self.requests.append((needed, {self.names[id(loaded.model.model)] for loaded in leaving}))


@pytest.fixture
def ledger(pack: ModuleType, experts: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> Ledger:
    import comfy.model_management
    if comfy.model_management.get_torch_device().type != "cpu":
        pytest.skip("the GPU here is not pretended")
    clip = pack.nodes.host.models.files.load_text_encoder(tiny_weights.TEXT_ENCODER, "default")
    comfy.model_management.unload_all_models()
    comfy.model_management.load_models_gpu([clip.patcher, *experts])
    names = {id(clip.patcher.model): "text encoder", id(experts[0].model): "high", id(experts[1].model): "low"}
    made = Ledger(names, clip)
    monkeypatch.setattr(pack.nodes.host.models.memory, "shares_memory", lambda device: False)
    monkeypatch.setattr(comfy.model_management, "free_memory", made.free_memory)
    return made


def test_the_text_encoder_leaves_first_and_then_the_finished_expert(ledger: Ledger, sample: Sample) -> None:
    sample("unipc", 4, 5.0, (3.5, 4.0), 0.875)
    assert [leaving for _, leaving in ledger.requests] == [{"text encoder"}, {"high"}]


def test_only_the_experts_with_steps_claim_memory(ledger: Ledger, sample: Sample, experts: tuple[Any, Any]) -> None:
    for expert in experts:
        expert.detach()
    asked = {}
    for boundary in (0.0, 0.875):
        ledger.requests.clear()
        for expert in experts:
            expert.detach()
        sample("unipc", 4, 5.0, (3.5, 4.0), boundary)
        asked[boundary] = ledger.requests[0][0]
    assert asked[0.875] - asked[0.0] == pytest.approx(1.1 * experts[1].model_size(), rel=0.01)


def test_one_model_in_both_slots_never_leaves(ledger: Ledger, pack: ModuleType, experts: tuple[Any, Any], prompts: tuple) -> None:
    sampling, plan = pack.nodes.host.sampling.run, pack.nodes.engine.sampling.experts
    positive, negative = ([[prompt[None], {}]] for prompt in prompts)
    guider = sampling.guider(experts[0], experts[0], positive, negative, plan.Guidance(3.5, 4.0), 5.0, "none", 0.875)
    sampling.sample(guider, {"samples": torch.zeros(1, 16, 2, 4, 4)}, 1, plan.Schedule("unipc", 4, 5.0))
    assert all("high" not in leaving for _, leaving in ledger.requests)
