"""The kinds of adapter that a file may hold: which tensors make one, what size its difference has, and how it is scaled."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from .errors import LoraError

Shape = tuple[int, ...]
Roles = Mapping[str, torch.Tensor]
DAMAGED = "The file is damaged; fetch it again."
TUCKER = {"lora_mid.weight", "hada_t1", "hada_t2", "lokr_t1", "lokr_t2", "bm.weight"}
PLAIN = {"diff", "diff_b", "set_weight"}  # what changes a parameter without a product


@dataclass(frozen=True)
class Kind:
    """A kind of adapter: how its roles begin; the (out, in) of its difference for a weight of (out, in); whether alpha / rank scales it."""

    name: str
    roles: tuple[str, ...]
    shape: Callable[[Roles, Shape], Shape]
    scaled: bool = True


def _low_rank(roles: Roles, target: Shape) -> Shape:
    return _product(roles, "lora_up.weight", "lora_down.weight")


def _hadamard(roles: Roles, target: Shape) -> Shape:
    first, second = (_product(roles, f"hada_{w}_a", f"hada_{w}_b") for w in ("w1", "w2"))
    if first != second:
        raise LoraError(f"has LoHa factors for {first} and {second}. {DAMAGED}")
    return first


def _kronecker(roles: Roles, target: Shape) -> Shape:
    first, second = (_kronecker_factor(roles, f"lokr_{w}") for w in ("w1", "w2"))
    return first[0] * second[0], first[1] * second[1]


def _kronecker_factor(roles: Roles, factor: str) -> Shape:
    if factor not in roles:
        return _product(roles, f"{factor}_a", f"{factor}_b")
    shape = roles[factor].shape
    if len(shape) < 2:
        raise LoraError(f"has {factor} of shape {tuple(shape)}, not a matrix. {DAMAGED}")
    return shape[0], math.prod(shape[1:])


def _generalised(roles: Roles, target: Shape) -> Shape:
    """W A + B: A is a square on the inputs. Older files of LyCORIS have the factors the other way round."""
    kernel = math.prod(target[2:])
    first, second = ("2", "1") if _is_older_glora(roles) else ("1", "2")
    inputs, difference = (_product(roles, f"{letter}{first}.weight", f"{letter}{second}.weight") for letter in ("a", "b"))
    if inputs[0] != inputs[1] or inputs[1] * kernel != difference[1]:
        raise LoraError(f"has GLoRA factors for {inputs} and {difference}. {DAMAGED}")
    return difference


def _is_older_glora(roles: Roles) -> bool:
    return all(f"{name}.weight" in roles and roles[f"{name}.weight"].ndim > 1 for name in ("a1", "b1")) and (
        roles["a1.weight"].shape[0] == roles["b1.weight"].shape[0] < math.prod(roles["a1.weight"].shape[1:]))


def _rotation(roles: Roles, target: Shape) -> Shape:
    """(blocks, b, b) rotates the outputs block by block; (m, blocks, b, b) in m butterfly stages, the last of which mixes 2**m * b / 2 outputs."""
    _require(roles, ("oft_blocks",))
    shape = roles["oft_blocks"].shape
    fits = len(shape) in (3, 4) and 0 not in shape and shape[-1] == shape[-2]
    if fits and len(shape) == 4:
        fits = shape[-1] % 2 == 0 and shape[0] < shape[1] * shape[2] and shape[1] * shape[2] % (2 ** shape[0] * shape[3] // 2) == 0
    if not fits or "rescale" in roles and roles["rescale"].numel() != shape[-3] * shape[-2]:
        shapes = {role: tuple(roles[role].shape) for role in ("oft_blocks", "rescale") if role in roles}
        raise LoraError(f"has {shapes}, which are no rotation. {DAMAGED}")
    return shape[-3] * shape[-2], math.prod(target[1:])


KINDS = (
    Kind("LoRA", ("lora_down.weight", "lora_up.weight"), _low_rank),
    Kind("LoHa", ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), _hadamard),
    Kind("LoKr", ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"), _kronecker),
    Kind("GLoRA", ("a1.weight", "a2.weight", "b1.weight", "b2.weight"), _generalised),
    Kind("OFT", ("oft_blocks", "rescale"), _rotation, scaled=False),
)
RANKED = ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")  # their rows are the rank


def kind_of(roles: Roles) -> Kind | None:
    """None for plain differences; LoraError where a module has two kinds."""
    kinds = [kind for kind in KINDS if roles.keys() & set(kind.roles)]
    if len(kinds) > 1:
        raise LoraError(f"has {' and '.join(kind.name for kind in kinds)}. The file mixes two LoRAs; get them as two files.")
    return next(iter(kinds), None)


def difference_shape(roles: Roles, target: Shape) -> Shape | None:
    """(out, in) of the difference that these tensors make of a weight of shape `target`; None where there is none."""
    if tucker := roles.keys() & TUCKER:
        raise LoraError(f"has {', '.join(sorted(tucker))}: Tucker decomposition, which fits no layer of Wan. Get it without.")
    kind = kind_of(roles)
    return kind.shape(roles, target) if kind else None


def rank(roles: Roles) -> int:
    """Rank of a low-rank module; 0 where there is none (difference, rotation, LoKr of two whole factors)."""
    if "a1.weight" in roles and roles["a1.weight"].ndim:
        return roles["a1.weight"].shape[0] if _is_older_glora(roles) else math.prod(roles["a1.weight"].shape[1:])
    return next((roles[role].shape[0] for role in RANKED if role in roles and roles[role].ndim), 0)


def alpha_over_rank(roles: Roles) -> float:
    """1 where there is no alpha, or no rank that it could belong to: trainers leave a LoKr of two whole factors as it is."""
    return float(roles["alpha"]) / rank(roles) if "alpha" in roles and rank(roles) else 1.0


def _require(roles: Roles, names: tuple[str, ...]) -> None:
    absent = [role for role in names if role not in roles]
    if absent:
        raise LoraError(f"lacks {' and '.join(absent)}. {DAMAGED}")


def _product(roles: Roles, out: str, inner: str) -> Shape:
    _require(roles, (out, inner))
    a, b = roles[out].shape, roles[inner].shape
    if min(len(a), len(b)) < 2 or math.prod(a[1:]) != b[0] or b[0] == 0:
        raise LoraError(f"has {out} {tuple(a)} and {inner} {tuple(b)}, which do not multiply. {DAMAGED}")
    return a[0], math.prod(b[1:])
