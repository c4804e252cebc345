"""LoRA files in every family of the field, with a known difference for known modules of a tiny expert."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from engine.lora.families import diffusers_name

MODULES = ("blocks.0.self_attn.q", "blocks.1.cross_attn.o", "blocks.0.ffn.0", "blocks.1.ffn.2")
RANK, ALPHA = 4, 2.0
Tensors = dict[str, torch.Tensor]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Known:
    """A file's tensors in float32, and the weight differences in float64 that it stands for at scale 1, by module; `low` where they differ for the
    low expert."""

    tensors: Tensors
    delta: Tensors
    low: Tensors = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def factors(shapes: Shapes, seed: int = 0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for module in MODULES:
        out, inner = shapes[f"{module}.weight"]
        made[module] = randn(out, RANK, generator=generator) / 4, randn(RANK, inner, generator=generator) / 4
    return made


def randn(*shape: int, generator: torch.Generator) -> torch.Tensor:
    """In float64, but without more digits than float32 has."""
    return torch.randn(shape, generator=generator).double()


def in_float32(tensors: Tensors) -> Tensors:
    return {key: tensor.float() for key, tensor in tensors.items()}


def low_rank(prefix: str, spell: Callable[[str], str], up: str, down: str, alpha: str | None = None) -> Callable[[Shapes], Known]:
    """A writer for families that differ only in how they spell the keys."""

    def write(shapes: Shapes) -> Known:
        tensors: Tensors = {}
        delta: Tensors = {}
        for module, (b, a) in factors(shapes).items():
            key = prefix + spell(module)
            tensors |= {key + up: b, key + down: a}
            if alpha:
                tensors[key + alpha] = torch.tensor(ALPHA)
            delta[module] = b @ a * (ALPHA / RANK if alpha else 1.0)
        return Known(in_float32(tensors), delta)

    return write


def both_experts(shapes: Shapes) -> Known:
    tensors: Tensors = {}
    delta: Tensors = {}
    low: Tensors = {}
    for prefix, seed, into in (("transformer.", 1, delta), ("transformer_2.", 2, low)):
        for module, (b, a) in factors(shapes, seed).items():
            key = prefix + diffusers_name(module)
            tensors |= {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}
            into[module] = b @ a
    return Known(in_float32(tensors), delta, low)


def rank_stabilised(shapes: Shapes) -> Known:
    plain = low_rank("base_model.model.", str, ".lora_B.default.weight", ".lora_A.default.weight", ".alpha")(shapes)
    return Known(plain.tensors, {module: delta * math.sqrt(RANK) for module, delta in plain.delta.items()},
                 metadata={"lora_adapter_metadata": '{"use_rslora": true}'})


def alpha_in_metadata(shapes: Shapes) -> Known:
    plain = low_rank("transformer.", diffusers_name, ".lora_B.weight", ".lora_A.weight")(shapes)
    return Known(plain.tensors, {module: delta * ALPHA / RANK for module, delta in plain.delta.items()},
                 metadata={"lora_adapter_metadata": f'{{"transformer.lora_alpha": {ALPHA}}}'})


def differences(shapes: Shapes) -> Known:
    """lightx2v's rank-less form: weights, biases, modulation."""
    generator = torch.Generator().manual_seed(3)
    tensors: Tensors = {}
    delta: Tensors = {}
    for module in MODULES:
        delta[module] = randn(*shapes[f"{module}.weight"], generator=generator) / 8
        delta[f"{module}.bias"] = randn(*shapes[f"{module}.bias"], generator=generator) / 8
        tensors |= {f"diffusion_model.{module}.diff": delta[module], f"diffusion_model.{module}.diff_b": delta[f"{module}.bias"]}
    for module in ("blocks.0", "head"):
        delta[f"{module}.modulation"] = randn(*shapes[f"{module}.modulation"], generator=generator) / 8
        tensors[f"diffusion_model.{module}.diff_m"] = delta[f"{module}.modulation"]
    return Known(in_float32(tensors), delta)


def with_bias(shapes: Shapes) -> Known:
    plain = low_rank("diffusion_model.", str, ".lora_B.weight", ".lora_A.weight", ".alpha")(shapes)
    generator = torch.Generator().manual_seed(4)
    tensors, delta = dict(plain.tensors), dict(plain.delta)
    for module in MODULES:
        bias = randn(*shapes[f"{module}.bias"], generator=generator)
        tensors[f"diffusion_model.{module}.lora_B.bias"] = bias
        delta[f"{module}.bias"] = bias * ALPHA / RANK
    return Known(in_float32(tensors), delta)


def loha(shapes: Shapes) -> Known:
    tensors: Tensors = {}
    delta: Tensors = {}
    for (module, (b1, a1)), (b2, a2) in zip(factors(shapes, 5).items(), factors(shapes, 6).values(), strict=True):
        key = "lora_unet_" + module.replace(".", "_")
        tensors |= {f"{key}.hada_w1_a": b1, f"{key}.hada_w1_b": a1, f"{key}.hada_w2_a": b2, f"{key}.hada_w2_b": a2}
        tensors[f"{key}.alpha"] = torch.tensor(ALPHA)
        delta[module] = (b1 @ a1) * (b2 @ a2) * ALPHA / RANK
    return Known(in_float32(tensors), delta)


def lokr(shapes: Shapes) -> Known:
    generator = torch.Generator().manual_seed(7)
    tensors: Tensors = {}
    delta: Tensors = {}
    for module in MODULES:
        out, inner = shapes[f"{module}.weight"]
        w1 = randn(4, 8, generator=generator)
        a, b = randn(out // 4, RANK, generator=generator) / 8, randn(RANK, inner // 8, generator=generator) / 8
        key = "lycoris_" + diffusers_name(module).replace(".", "_")
        tensors |= {f"{key}.lokr_w1": w1, f"{key}.lokr_w2_a": a, f"{key}.lokr_w2_b": b, f"{key}.alpha": torch.tensor(ALPHA)}
        delta[module] = torch.kron(w1, a @ b) * ALPHA / RANK
    return Known(in_float32(tensors), delta)


def whole_lokr(shapes: Shapes) -> Known:
    """Two whole factors, with an alpha that trainers do not count: LyCORIS and musubi-tuner scale by 1 here."""
    generator = torch.Generator().manual_seed(8)
    tensors: Tensors = {}
    delta: Tensors = {}
    for module in MODULES:
        out, inner = shapes[f"{module}.weight"]
        w1, w2 = randn(4, 8, generator=generator) / 4, randn(out // 4, inner // 8, generator=generator) / 4
        key = "lycoris_" + underscored(module)
        tensors |= {f"{key}.lokr_w1": w1, f"{key}.lokr_w2": w2, f"{key}.alpha": torch.tensor(1.0)}
        delta[module] = torch.kron(w1, w2)
    return Known(in_float32(tensors), delta, metadata={"ss_network_dim": "32", "ss_network_alpha": "1"})


def norms(shapes: Shapes) -> Known:
    """LyCORIS with train_norm."""
    generator = torch.Generator().manual_seed(10)
    delta = {"blocks.0.norm3": randn(*shapes["blocks.0.norm3.weight"], generator=generator),
             "blocks.0.norm3.bias": randn(*shapes["blocks.0.norm3.bias"], generator=generator)}
    return Known(in_float32({"lycoris_blocks_0_norm3.w_norm": delta["blocks.0.norm3"],
                             "lycoris_blocks_0_norm3.b_norm": delta["blocks.0.norm3.bias"]}), delta)


def difference_beside_low_rank(shapes: Shapes) -> Known:
    """Both on one weight: they add up."""
    plain = low_rank("diffusion_model.", str, *B_A)(shapes)
    module = MODULES[0]
    extra = torch.ones(shapes[f"{module}.weight"], dtype=torch.float64)
    return Known({**plain.tensors, f"diffusion_model.{module}.diff": extra.float()}, {**plain.delta, module: plain.delta[module] + extra})


def bias_by_its_own_name(shapes: Shapes) -> Known:
    """As core's key map has it, where a difference may stand behind any parameter."""
    difference = torch.arange(shapes["blocks.0.ffn.0.bias"][0], dtype=torch.float64) / 64
    return Known(in_float32({"diffusion_model.blocks.0.ffn.0.bias.diff": difference}), {"blocks.0.ffn.0.bias": difference})


def input_projection(shapes: Shapes) -> Known:
    """The convolution at the input, with factors of five dimensions."""
    generator = torch.Generator().manual_seed(11)
    out, inner, *kernel = shapes["patch_embedding.weight"]
    up, down = randn(out, RANK, 1, 1, 1, generator=generator), randn(RANK, inner, *kernel, generator=generator)
    tensors = {"diffusion_model.patch_embedding.lora_B.weight": up, "diffusion_model.patch_embedding.lora_A.weight": down}
    return Known(in_float32(tensors), {"patch_embedding": (up.flatten(1) @ down.flatten(1)).reshape(out, inner, *kernel)})


def lokr_of_the_input_projection(shapes: Shapes) -> Known:
    generator = torch.Generator().manual_seed(12)
    out, inner, *kernel = shapes["patch_embedding.weight"]
    w1, w2 = randn(4, 4, generator=generator), randn(out // 4, inner // 4, *kernel, generator=generator)
    tensors = {"lycoris_patch_embedding.lokr_w1": w1, "lycoris_patch_embedding.lokr_w2": w2}
    delta = torch.einsum("ac,bdxyz->abcdxyz", w1, w2).reshape(out, inner, *kernel)
    return Known(in_float32(tensors), {"patch_embedding": delta})


def underscored(module: str) -> str:
    return module.replace(".", "_")


def underscored_diffusers(module: str) -> str:
    return diffusers_name(module).replace(".", "_")


UP_DOWN = (".lora_up.weight", ".lora_down.weight", ".alpha")
B_A = (".lora_B.weight", ".lora_A.weight")
FAMILIES: dict[str, Callable[[Shapes], Known]] = {
    "kohya, musubi-tuner": low_rank("lora_unet_", underscored, *UP_DOWN),
    "diffusion-pipe, ai-toolkit": low_rank("diffusion_model.", str, *B_A),
    "ai-toolkit with adapter name": low_rank("diffusion_model.", str, ".lora_B.default.weight", ".lora_A.default.weight"),
    "lightx2v, Kijai": low_rank("diffusion_model.", str, *UP_DOWN),
    "differences": differences,
    "bare": low_rank("", str, ".lora_B.default.weight", ".lora_A.default.weight"),
    "DiffSynth": low_rank("pipe.dit.", str, ".lora_B.default.weight", ".lora_A.default.weight"),
    "diffusers": low_rank("transformer.", diffusers_name, *B_A),
    "diffusers, alpha in metadata": alpha_in_metadata,
    "diffusers, both experts": both_experts,
    "transformer, native names": low_rank("transformer.", str, *B_A),
    "PEFT": low_rank("base_model.model.", str, ".lora_B.weight", ".lora_A.weight", ".alpha"),
    "PEFT around diffusion_model": low_rank("base_model.model.diffusion_model.", str, ".lora_B.default.weight", ".lora_A.default.weight"),
    "PEFT, rank-stabilised": rank_stabilised,
    "LyCORIS LoKr, diffusers names": lokr,
    "LyCORIS, native names": low_rank("lycoris_", underscored, *UP_DOWN),
    "LoHa": loha,
    "Wan-Fun": low_rank("lora_unet__", underscored, *UP_DOWN),
    "OneTrainer": low_rank("lora_transformer_", underscored, *UP_DOWN),
    "OneTrainer, diffusers names": low_rank("lora_transformer_", underscored_diffusers, *UP_DOWN),
    "LoRA with bias": with_bias,
    "whole LoKr": whole_lokr,
    "norms": norms,
    "difference beside low rank": difference_beside_low_rank,
    "bias by its own name": bias_by_its_own_name,
    "input projection": input_projection,
    "LoKr of the input projection": lokr_of_the_input_projection,
    "DiffSynth, dit": low_rank("dit.", str, ".lora_B.default.weight", ".lora_A.default.weight"),
    "SimpleTuner": low_rank("transformer.base_model.model.", diffusers_name, ".lora.up.weight", ".lora.down.weight"),
    "kohya, half renamed": low_rank("lora_unet_", lambda module: module.replace("blocks.", "blocks_"), *UP_DOWN),
}


def weight(model: Any, key: str) -> torch.Tensor:
    """A parameter as the patched model would use it, computed in float64."""
    import comfy.lora
    import comfy.utils
    full = f"diffusion_model.{key}"
    original = comfy.utils.get_attr(model.model, full).detach().clone().double()
    return comfy.lora.calculate_weight(model.patches[full], original, full, torch.float64) if full in model.patches else original
