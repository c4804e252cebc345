"""Experts in the layouts of quantised files, rounded by ComfyUI's own layout classes, where this ComfyUI has them."""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

import tiny_weights
from tiny_weights import Weights


@dataclass(frozen=True)
class Layout:
    """One of core's layouts: its name in files, its class, and how the class rounds a weight."""

    algorithm: str
    layout: str
    rounding: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, Any] = field(default_factory=dict)  # what the layer's marker says beside the format


LAYOUTS = {
    "float8_e4m3fn": Layout("float8_e4m3fn", "TensorCoreFP8E4M3Layout", {"scale": "recalculate"}),
    "float8_e5m2": Layout("float8_e5m2", "TensorCoreFP8E5M2Layout", {"scale": "recalculate"}),
    "nvfp4": Layout("nvfp4", "TensorCoreNVFP4Layout"),
    "mxfp8": Layout("mxfp8", "TensorCoreMXFP8Layout"),
    "int8": Layout("int8_tensorwise", "TensorWiseINT8Layout"),
    "int8 per channel": Layout("int8_tensorwise", "TensorWiseINT8Layout", {"per_channel": True}),
    "int8 convrot": Layout("int8_tensorwise", "TensorWiseINT8Layout", {"per_channel": True, "convrot": True, "convrot_groupsize": 64},
                           {"convrot": True, "convrot_groupsize": 64}),
    "w4a8": Layout("asym_w4a8_int8", "AsymW4A8Int8Layout", {"group_size": 16, "convrot_groupsize": 64},
                   {"group_size": 16, "convrot_groupsize": 64}),
}
PLAIN = {"plain float8_e4m3fn": torch.float8_e4m3fn, "plain float8_e5m2": torch.float8_e5m2}
SCALED = "fp8_scaled"
FORMATS = (*PLAIN, SCALED, *LAYOUTS)


def missing(name: str) -> str:
    """What this ComfyUI lacks to read the format, in a sentence; empty where it reads it."""
    if name in PLAIN or name == SCALED:
        return ""
    algorithms = getattr(importlib.import_module("comfy.quant_ops"), "QUANT_ALGOS", {})
    utils = importlib.import_module("comfy.utils")
    if not hasattr(utils, "detect_layer_quantization"):
        return "this ComfyUI reads no marked layers"
    return "" if LAYOUTS[name].algorithm in algorithms else f"this ComfyUI has no {LAYOUTS[name].algorithm}"


def is_quantised(name: str, tensor: torch.Tensor) -> bool:
    """The matrices of the blocks: what the published files quantise."""
    return name.startswith("blocks.") and name.endswith(".weight") and tensor.ndim == 2


def quantised(weights: Weights, name: str) -> Weights:
    """The weights as a file of this format has them, the others in float16."""
    if name == SCALED:
        return tiny_weights.fp8_scaled(weights)
    kept: Weights = {}
    for key, tensor in weights.items():
        if name in PLAIN:  # which hold all matrices so
            kept[key] = tensor.to(PLAIN[name] if tensor.ndim == 2 else torch.float16)
        elif is_quantised(key, tensor):
            kept |= marked(key, tensor, LAYOUTS[name])
        else:
            kept[key] = tensor.half()
    return kept


def marked(key: str, weight: torch.Tensor, layout: Layout) -> Weights:
    """A weight of (outputs, inputs) as its layout stores it, and the marker that core reads."""
    quant_ops: Any = importlib.import_module("comfy.quant_ops")
    tensor = quant_ops.QuantizedTensor.from_float(weight.to(torch.bfloat16), layout.layout, **layout.rounding)
    marker = json.dumps({"format": layout.algorithm, **layout.marks}).encode()
    stored = {name: part.contiguous() for name, part in tensor.state_dict(key).items()}
    return {**stored, f"{key.removesuffix('weight')}comfy_quant": torch.tensor(list(marker), dtype=torch.uint8)}
