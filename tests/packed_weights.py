"""Experts whose weights stay packed on the device and are unpacked in each call, as ComfyUI-GGUF has them: eight bits in blocks with a scale (Q8_0).

What matters to others is kept: the packed tensor calls itself by the shape that it stands for, its state dict shows bytes, and LoRA patches are
not merged but hang on the tensor until it is unpacked.
"""

from typing import Any

import comfy.lora
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.utils
import torch

from tiny_weights import Weights

BLOCK = 32  # weights with one scale
SCALE_BYTES = 2


class PackedWeight(torch.Tensor):
    """uint8 (blocks, 34): a float16 scale and 32 int8 each. `patches`: what is added after unpacking, and the key it is for."""

    unpacked_shape: torch.Size
    patches: tuple[list[Any], str] | None = None

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]
        return self.unpacked_shape

    def to(self, *args: Any, **kwargs: Any) -> "PackedWeight":
        return self

    detach = clone = to


def packed(weight: torch.Tensor) -> PackedWeight:
    blocks = weight.float().reshape(-1, BLOCK)
    scale = (blocks.abs().amax(1, keepdim=True) / 127).half()
    numbers = (blocks / scale.float().clamp_min(1e-12)).round().to(torch.int8)
    result = torch.cat([scale.view(torch.uint8), numbers.view(torch.uint8)], dim=1).as_subclass(PackedWeight)
    result.unpacked_shape = weight.shape
    return result


def unpacked(weight: PackedWeight) -> torch.Tensor:
    data = weight.as_subclass(torch.Tensor)
    scale, numbers = data[:, :SCALE_BYTES].contiguous().view(torch.float16), data[:, SCALE_BYTES:].contiguous().view(torch.int8)
    return (scale.float() * numbers).reshape(weight.unpacked_shape)


class PackedOps(comfy.ops.manual_cast):
    class Linear(comfy.ops.manual_cast.Linear):
        def _load_from_state_dict(self, state_dict: Weights, prefix: str, *rest: Any) -> None:
            self.weight = torch.nn.Parameter(packed(state_dict[f"{prefix}weight"]), requires_grad=False)
            self.bias = torch.nn.Parameter(state_dict[f"{prefix}bias"], requires_grad=False)

        def _save_to_state_dict(self, destination: Weights, prefix: str, keep_vars: bool) -> None:
            destination[f"{prefix}weight"] = self.weight.as_subclass(torch.Tensor)
            destination[f"{prefix}bias"] = self.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            resting: Any = self.weight
            weight = unpacked(resting)
            if resting.patches:
                weight = comfy.lora.calculate_weight(resting.patches[0], weight, resting.patches[1])
            return torch.nn.functional.linear(x, weight.to(x), self.bias.to(x))


class PackedPatcher(comfy.model_patcher.ModelPatcher):
    def patch_weight_to_device(self, key: str, *args: Any, **kwargs: Any) -> Any:
        weight = comfy.utils.get_attr(self.model, key)
        if not isinstance(weight, PackedWeight):
            return super().patch_weight_to_device(key, *args, **kwargs)
        weight.patches = (self.patches[key], key) if key in self.patches else None
        return None

    def load(self, *args: Any, force_patch_weights: bool = False, **kwargs: Any) -> Any:
        return super().load(*args, force_patch_weights=True, **kwargs)

    def unpatch_model(self, *args: Any, **kwargs: Any) -> Any:
        for weight in self.model.parameters():
            if isinstance(weight, PackedWeight):
                weight.patches = None
        return super().unpatch_model(*args, **kwargs)


def packed_expert(weights: Weights) -> PackedPatcher:
    """An expert of these weights (tiny_weights.expert), through core's loader."""
    model = comfy.sd.load_diffusion_model_state_dict(dict(weights), model_options={"custom_operations": PackedOps})
    return PackedPatcher(model.model, model.load_device, model.offload_device)


def plain(weights: Weights) -> Weights:
    """The weights as packing leaves them, in float32."""
    linear = {name for name, tensor in weights.items() if tensor.ndim == 2 and name.endswith(".weight")}
    return {name: unpacked(packed(tensor)) if name in linear else tensor for name, tensor in weights.items()}
