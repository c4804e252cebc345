"""What users put on their models keeps working: LoRA patches and hooks, attention overrides, load callbacks, other weight types."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny_weights
from sampling_runs import SHAPE, relative_error

GUIDED = (3.5, 4.0)


@pytest.fixture(scope="module")
def lora() -> tiny_weights.Weights:
    """A LoRA on the first self-attention query, strong enough to be seen."""
    generator = torch.Generator().manual_seed(31)
    key = "diffusion_model.blocks.0.self_attn.q"
    down, up = torch.randn(4, 128, generator=generator) / 8, torch.randn(128, 4, generator=generator)
    return {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}


@pytest.fixture(scope="module")
def run(pack: ModuleType) -> Callable[..., torch.Tensor]:
    def sample(high: Any, low: Any, positive: Any, negative: Any, steps: int = 4, acceleration: str = "none") -> torch.Tensor:
        sampling, plan = pack.nodes.host.sampling.run, pack.nodes.engine.sampling.experts
        guider = sampling.guider(high, low, positive, negative, plan.Guidance(*GUIDED), 5.0, acceleration, 0.875)
        return sampling.sample(guider, {"samples": torch.zeros(SHAPE)}, 1, plan.Schedule("unipc", steps, 5.0))[0]["samples"]

    return sample


@pytest.fixture(scope="module")
def conds(prompts: tuple[torch.Tensor, torch.Tensor]) -> tuple[Any, Any]:
    positive, negative = ([[prompt[None], {}]] for prompt in prompts)
    return positive, negative


@pytest.mark.parametrize("side", ["high", "low", "both"])
def test_a_lora_on_an_expert_changes_the_video(experts: tuple[Any, Any], conds: tuple[Any, Any], lora: Any, run: Callable[..., torch.Tensor],
                                               side: str) -> None:
    import comfy.sd
    patched = [comfy.sd.load_lora_for_models(expert, None, lora, 1.0, 0.0)[0] if side in (name, "both") else expert
               for name, expert in zip(("high", "low"), experts, strict=True)]
    plain, changed, again = run(*experts, *conds), run(*patched, *conds), run(*experts, *conds)
    assert relative_error(changed, plain) > 1e-3
    assert torch.equal(plain, again)


@pytest.mark.parametrize("acceleration", ["none", "regular"])
def test_lora_hooks_on_the_conditioning_equal_lora_patches(experts: tuple[Any, Any], conds: tuple[Any, Any], lora: Any,
                                                           run: Callable[..., torch.Tensor], acceleration: str) -> None:
    import comfy.hooks
    import comfy.sd
    patched = [comfy.sd.load_lora_for_models(expert, None, lora, 1.0, 0.0)[0] for expert in experts]
    hooked = [comfy.hooks.set_hooks_for_conditioning(cond, comfy.hooks.create_hook_lora(lora, 1.0, 0.0)) for cond in conds]
    by_patch, by_hook = run(*patched, *conds, 12, acceleration), run(*experts, *hooked, 12, acceleration)
    assert relative_error(by_hook, by_patch) < 1e-3
    assert relative_error(by_hook, run(*experts, *conds, 12, acceleration)) > 1e-3


def test_attention_overrides_are_used_for_both_experts(experts: tuple[Any, Any], conds: tuple[Any, Any], run: Callable[..., torch.Tensor]) -> None:
    """As SageAttention nodes install them."""
    seen: set[str] = set()
    patched = []
    for name, expert in zip(("high", "low"), experts, strict=True):
        def override(attention: Callable[..., torch.Tensor], *args: Any, name: str = name, **kwargs: Any) -> torch.Tensor:
            seen.add(name)
            return attention(*args, **kwargs)

        clone = expert.clone()
        clone.model_options["transformer_options"]["optimized_attention_override"] = override
        patched.append(clone)
    assert torch.equal(run(*patched, *conds), run(*experts, *conds))
    assert seen == {"high", "low"}


def test_load_callbacks_run_for_each_expert(experts: tuple[Any, Any], conds: tuple[Any, Any], run: Callable[..., torch.Tensor]) -> None:
    """As block-swap nodes use them."""
    import comfy.patcher_extension
    loaded: list[str] = []
    patched = []
    for name, expert in zip(("high", "low"), experts, strict=True):
        expert.detach()
        clone = expert.clone()
        clone.add_callback_with_key(comfy.patcher_extension.CallbacksMP.ON_LOAD, "test", lambda *_, name=name: loaded.append(name))
        patched.append(clone)
    run(*patched, *conds)
    assert loaded == ["high", "low"]


@pytest.fixture(params=["float16", "bfloat16", "fp8_scaled"])
def stored(request: pytest.FixtureRequest, pack: ModuleType, models: Path) -> Iterator[list[Any]]:
    """The same pair of experts in another weight type, through our loader."""
    files = []
    for side, seed in (("high", 21), ("low", 22)):
        weights = tiny_weights.expert(seed=seed)
        kept = tiny_weights.fp8_scaled(weights) if request.param == "fp8_scaled" else \
            {name: tensor.to(getattr(torch, request.param)) for name, tensor in weights.items()}
        files.append(models / "diffusion_models" / f"{request.param}_{side}.safetensors")
        save_file(kept, files[-1])
    yield [pack.nodes.host.models.files.load_expert(file.name, "default") for file in files]
    for file in files:
        file.unlink()


def test_other_weight_types_give_nearly_the_same_video(stored: list[Any], experts: tuple[Any, Any], conds: tuple[Any, Any],
                                                       run: Callable[..., torch.Tensor]) -> None:
    assert relative_error(run(*stored, *conds), run(*experts, *conds)) < 0.15
