"""Weight adapters for ComfyUI that core does not have, or has otherwise than the programs that train them."""

from collections.abc import Sequence
from typing import Any

import comfy.model_management
import comfy.weight_adapter
import torch


def is_plain_low_rank(patch: Any) -> bool:
    """Two matrices and no more, for a weight that is a matrix."""
    if not isinstance(patch, comfy.weight_adapter.LoRAAdapter):
        return False
    up, down, _, mid, dora_scale, reshape = patch.weights
    return mid is None and dora_scale is None and reshape is None and up.ndim == down.ndim == 2


class Adapter(comfy.weight_adapter.WeightAdapterBase):
    """Where ComfyUI loads weights on demand it makes type(adapter)(loaded_keys, weights) with each tensor moved, so `weights` holds all it knows."""

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, ...]) -> None:
        self.loaded_keys, self.weights = loaded_keys, weights


class StackedLowRank(Adapter):
    """The plain low-rank factors of several files on one weight: sum_i s_i * up_i @ down_i as one product, factors kept as the files have them."""

    name = "stacked lora"

    @classmethod
    def of(cls, stack: Sequence[tuple[float, Any]]) -> "StackedLowRank":
        layers = ((scale, *adapter.weights[:3]) for scale, adapter in stack)
        return cls(set(), tuple((up, down, scale * (1.0 if alpha is None else alpha / down.shape[0])) for scale, up, down, alpha in layers))

    def calculate_weight(self, weight: torch.Tensor, key: str, strength: float, strength_model: float, offset: Any, function: Any,
                         intermediate_dtype: torch.dtype = torch.float32, original_weight: Any = None) -> torch.Tensor:
        cast = comfy.model_management.cast_to_device
        up = torch.cat([cast(up, weight.device, weight.dtype) * (strength * scale) for up, _, scale in self.weights], dim=1)
        down = torch.cat([cast(down, weight.device, weight.dtype) for _, down, _ in self.weights])
        return weight.flatten(1).addmm_(up, down).reshape(weight.shape)  # a convolution's as well


class DoRA(Adapter):
    """Weight-decomposed adaptation (Liu et al. 2024): m * (W + dW) / |W + dW|, blended by strength.

    Core takes the norm of W alone where m belongs to the outputs; PEFT and LyCORIS, which train these files, take that of W + dW.
    """

    name = "dora"

    def calculate_weight(self, weight: torch.Tensor, key: str, strength: float, strength_model: float, offset: Any, function: Any,
                         intermediate_dtype: torch.dtype = torch.float32, original_weight: Any = None) -> torch.Tensor:
        inner, own = self.weights
        merged = inner.calculate_weight(weight.clone(), key, 1.0, strength_model, offset, function, intermediate_dtype, original_weight)
        precise = torch.promote_types(weight.dtype, torch.float32)
        magnitude = comfy.model_management.cast_to_device(own, weight.device, precise).flatten()
        rows = merged.to(precise).flatten(1)
        by_output = magnitude.numel() == rows.shape[0] and not (own.ndim > 1 and own.shape[0] == 1)
        norm = rows.norm(dim=1, keepdim=True) if by_output else rows.norm(dim=0, keepdim=True)
        magnitude = magnitude[:, None] if by_output else magnitude[None]
        target = (rows * (magnitude / (norm + torch.finfo(precise).eps))).reshape(weight.shape)
        weight += strength * (target - weight)
        return weight


class Rotation(Adapter):
    """Orthogonal finetuning as LyCORIS trains it: (n, b, b) blocks (OFT) or (m, n, b, b) butterfly stages (BOFT), by Cayley's formula.

    Core multiplies by the strength twice, leaves `rescale` out, reads the bound without the number of outputs that LyCORIS multiplies it by, and
    changes nothing where a BOFT file has no alpha. At strength 1, without rescale and bound, both are the same.
    """

    name = "rotation"

    def calculate_weight(self, weight: torch.Tensor, key: str, strength: float, strength_model: float, offset: Any, function: Any,
                         intermediate_dtype: torch.dtype = torch.float32, original_weight: Any = None) -> torch.Tensor:
        precise = torch.promote_types(weight.dtype, torch.float32)
        blocks, *rescale = (comfy.model_management.cast_to_device(tensor, weight.device, precise) for tensor in self.weights[:-1])
        identity = torch.eye(blocks.shape[-1]).to(blocks)
        rotations = identity + strength * (self._orthogonal(blocks, weight.shape[0]) - identity)
        rows = weight.to(precise).flatten(1)
        turned = _turned_in_stages(rotations, rows) if blocks.ndim == 4 else _turned(rotations, rows)
        for scale in rescale:
            turned = turned * (1 + strength * (scale.reshape(-1, 1) - 1))
        weight += function((turned - rows).reshape(weight.shape).to(weight.dtype))
        return weight

    def _orthogonal(self, blocks: torch.Tensor, outputs: int) -> torch.Tensor:
        """(I + Q) (I - Q)^-1 of the skew parts Q, whose norm stays below the bound for each output."""
        skew = blocks - blocks.transpose(-1, -2)
        limit, norm = self.weights[-1] * outputs, skew.norm() + 1e-8
        if 0 < limit < norm:
            skew = skew * (limit / norm)
        identity = torch.eye(blocks.shape[-1]).to(blocks)
        return (identity + skew) @ torch.linalg.inv(identity - skew)


def _turned(rotations: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Each block of rows (n * b, inputs) turned by its own (b, b)."""
    return torch.einsum("nij,nik->njk", rotations, rows.unflatten(0, rotations.shape[:2])).flatten(0, 1)


def _turned_in_stages(stages: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """A butterfly: stage i turns groups of b rows that lie 2**i * b / 2 apart, two by two."""
    size = stages.shape[-1]
    for stage, rotations in enumerate(stages):
        apart = 2**stage * (size // 2)
        pairs = rows.unflatten(0, (-1, 2, apart)).transpose(1, 2)
        turned = torch.einsum("nij,njk->nik", rotations, pairs.reshape(-1, size, rows.shape[1]))
        rows = turned.reshape(pairs.shape).transpose(1, 2).reshape(rows.shape)
    return rows


class Replacement(Adapter):
    """A whole new value for a parameter, blended by strength. Core takes it whole at any strength."""

    name = "replacement"

    def calculate_weight(self, weight: torch.Tensor, key: str, strength: float, strength_model: float, offset: Any, function: Any,
                         intermediate_dtype: torch.dtype = torch.float32, original_weight: Any = None) -> torch.Tensor:
        value = comfy.model_management.cast_to_device(self.weights[0], weight.device, weight.dtype)
        weight += function(strength * (value - weight))
        return weight
