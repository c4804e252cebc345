"""Code we did not write, to compare with: Wan's own modules from the `wan22` wheel and diffusers' WanPipeline, on the tiny experts."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import tiny_weights
from sampling_runs import TOKENS

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def official_module(name: str) -> ModuleType:
    """wan/<name>.py of the wheel by itself: the package's own __init__ needs CUDA."""
    package = importlib.util.find_spec("wan")
    assert package is not None and package.submodule_search_locations is not None, "wan22 is missing; tests/oracles.txt lists it"
    full_name = "official_wan." + name.replace("/", ".")
    if full_name not in sys.modules:
        path = Path(next(iter(package.submodule_search_locations))) / f"{name}.py"
        spec = importlib.util.spec_from_file_location(full_name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[full_name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full_name]


def official_model_module() -> ModuleType:
    """wan/modules/model.py with flash attention, which needs a GPU, replaced by PyTorch's."""
    attention: Any = ModuleType("official_wan.modules.attention")
    attention.flash_attention = _attention
    packages = {name: ModuleType(name) for name in ("official_wan", "official_wan.modules")}
    for name, module in {**packages, attention.__name__: attention}.items():
        module.__path__ = []
        sys.modules.setdefault(name, module)
    return official_module("modules/model")


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **_: object) -> torch.Tensor:
    """(B, L, heads, dim) in and out; every sequence of the tests is full length."""
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def official_expert(weights: tiny_weights.Weights) -> torch.nn.Module:
    dim, layers = weights["head.modulation"].shape[-1], sum(key.endswith("self_attn.q.weight") for key in weights)
    model = official_model_module().WanModel(
        model_type="t2v", dim=dim, ffn_dim=weights["blocks.0.ffn.0.weight"].shape[0], num_heads=dim // 128, num_layers=layers,
        text_len=TOKENS, text_dim=4096, in_dim=16, out_dim=16, cross_attn_norm=True, eps=1e-6).eval()
    model.load_state_dict(weights)
    return model


def official_scheduler(solver: str, steps: int, shift: float):
    """As text2video.py sets its scheduler up: the schedulers are made with shift 1, and the run's shift goes into the timesteps."""
    if solver == "unipc":
        scheduler = official_module("utils/fm_solvers_unipc").FlowUniPCMultistepScheduler(
            num_train_timesteps=1000, shift=1, use_dynamic_shifting=False)
        scheduler.set_timesteps(steps, device="cpu", shift=shift)
        return scheduler
    solvers = official_module("utils/fm_solvers")
    scheduler = solvers.FlowDPMSolverMultistepScheduler(num_train_timesteps=1000, shift=1, use_dynamic_shifting=False)
    solvers.retrieve_timesteps(scheduler, device="cpu", sigmas=solvers.get_sampling_sigmas(steps, shift))
    return scheduler


@torch.no_grad()
def official_sample(experts: tuple[torch.nn.Module, torch.nn.Module], noise: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor,
                    solver: str, steps: int, shift: float, guidance: tuple[float, float], boundary: float) -> torch.Tensor:
    """The loop of wan/text2video.py, generate(), for one latent (1, 16, T, H, W) and prompts (TOKENS, 4096)."""
    scheduler = official_scheduler(solver, steps, shift)
    latents = noise[0]
    tokens = latents.shape[1] * latents.shape[2] * latents.shape[3] // 4
    for t in scheduler.timesteps:
        high = t.item() >= boundary * 1000
        model, scale = (experts[0], guidance[0]) if high else (experts[1], guidance[1])
        cond = model([latents], t=t[None], context=[positive], seq_len=tokens)[0]
        uncond = model([latents], t=t[None], context=[negative], seq_len=tokens)[0]
        velocity = uncond + scale * (cond - uncond)
        latents = scheduler.step(velocity[None], t, latents[None], return_dict=False)[0][0]
    return latents[None]


def diffusers_pipeline(high: torch.nn.Module, low: torch.nn.Module, shift: float, boundary: float):
    """diffusers' WanPipeline over both experts."""
    from diffusers import UniPCMultistepScheduler, WanPipeline
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, num_train_timesteps=1000)
    return WanPipeline(tokenizer=None, text_encoder=None, transformer=high, vae=_LatentOnly(), scheduler=scheduler,
                       transformer_2=low, boundary_ratio=boundary)


def diffusers_expert(weights: tiny_weights.Weights) -> torch.nn.Module:
    """Weights converted by diffusers' own loader."""
    from diffusers import WanTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
    dim, layers = weights["head.modulation"].shape[-1], sum(key.endswith("self_attn.q.weight") for key in weights)
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=dim // 128, attention_head_dim=128, in_channels=16, out_channels=16, text_dim=4096, freq_dim=256,
        ffn_dim=weights["blocks.0.ffn.0.weight"].shape[0], num_layers=layers, cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6)
    model.load_state_dict(convert_wan_transformer_to_diffusers(dict(weights)))
    return model.eval()


class _LatentOnly(torch.nn.Module):
    """Stands where the pipeline reads the VAE's strides; with latents in and out it is never called."""

    dtype = torch.float32
    config = type("Config", (), {"scale_factor_temporal": 4, "scale_factor_spatial": 8, "z_dim": 16})
    temperal_downsample = (False, True, True)
