"""Read a LoRA file of any family into tensors per module of the model, checked against the model's shapes before anything is patched."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from .families import Family, Spellings

Shape = tuple[int, ...]
Tensors = Mapping[str, torch.Tensor]
ADAPTER = r"(?:\.[\w-]+)?"  # PEFT writes the adapter's name into the key: lora_A.default.weight

# Endings of keys -> the name that ComfyUI's weight adapters read. The first match wins.
ROLES = tuple((re.compile(pattern + "$"), role) for pattern, role in (
    (rf"\.lora_(?:down|A){ADAPTER}\.weight|[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight|\.lora_A", "lora_down.weight"),
    (rf"\.lora_(?:up|B){ADAPTER}\.weight|[._]lora\.up\.weight|\.lora_linear_layer\.up\.weight|\.lora_B", "lora_up.weight"),
    (r"\.lora_mid\.weight", "lora_mid.weight"),
    (rf"\.lora_(?:up|B){ADAPTER}\.bias", "up_bias"),
    (rf"\.lora_magnitude_vector{ADAPTER}(?:\.weight)?|\.dora_scale", "dora_scale"),
    (r"\.alpha", "alpha"),
    (r"\.hada_(w1_a|w1_b|w2_a|w2_b|t1|t2)", r"hada_\1"),
    (r"\.lokr_(w1|w1_a|w1_b|w2|w2_a|w2_b|t2)", r"lokr_\1"),
    (r"\.diff_b", "diff_b"),
    (r"\.diff_m", "diff_m"),
    (r"\.diff", "diff"),
))
I2V_ONLY = re.compile(r"k_img|v_img|img_emb")
TEXT_ENCODER = re.compile(r"^(?:lora_te\d?_|text_encoders?\.|lora_prior_te_)")
OTHER_MODELS = (
    (re.compile(r"lora_unet_(?:input|output|middle|down|up|mid)_block|^unet\.(?:down|up|mid)_blocks"), "a Stable Diffusion or SDXL LoRA"),
    (re.compile(r"single_transformer_blocks|single_blocks"), "a Flux or Hunyuan LoRA"),
    (re.compile(r"double_blocks|joint_blocks"), "a Flux, Hunyuan or SD3 LoRA"),
    (re.compile(r"transformer_blocks"), "a LoRA for Flux, LTX, Qwen-Image or another diffusers model"),
)
WAN_WIDTHS = {1536: "Wan 2.1 1.3B", 3072: "Wan 2.2 TI2V 5B", 5120: "Wan 14B"}


class LoraError(ValueError):
    """A LoRA file that cannot be applied; the text names the file, the tensor and what to do."""


@dataclass
class Part:
    """What one file holds for one expert: tensors by module and role, and the families they came in."""

    modules: dict[str, dict[str, torch.Tensor]] = field(default_factory=lambda: defaultdict(dict))
    families: set[str] = field(default_factory=set)

    def tensor_count(self) -> int:
        return sum(len(roles) for roles in self.modules.values())

    def ranks(self) -> list[int]:
        return sorted({_rank(roles) for roles in self.modules.values()} - {0})

    def scales(self) -> list[float]:
        """alpha / rank of every low-rank module, 1 where the file names no alpha."""
        return sorted({round(_alpha_over_rank(roles), 6) for roles in self.modules.values() if _rank(roles)})


@dataclass(frozen=True)
class NormalForm:
    """A whole file: what it holds for either expert (key None), or for "high" and "low" apart; ignored keys by reason."""

    name: str
    parts: Mapping[str | None, Part]
    ignored: Mapping[str, list[str]]
    total: int

    def for_expert(self, expert: str) -> Part | None:
        return self.parts.get(expert) or self.parts.get(None)

    @property
    def holds_both_experts(self) -> bool:
        return {"high", "low"} <= set(self.parts)


def normal_form(tensors: Tensors, metadata: Mapping[str, str], model_shapes: Mapping[str, Shape], name: str) -> NormalForm:
    """Parse and check a file against the parameters of the model ("blocks.0.self_attn.q.weight" -> shape).

    LoraError when nothing fits, when a tensor is not finite or not floating point, or when shapes do not fit the model.
    """
    spellings = Spellings(_modules(model_shapes))
    parts: dict[str | None, Part] = defaultdict(Part)
    ignored: dict[str, list[str]] = defaultdict(list)
    for key, tensor in tensors.items():
        parsed = _parse(key, spellings)
        if parsed is None:
            ignored[_reason(key)].append(key)
            continue
        family, module, role = parsed
        _check_values(name, key, tensor)
        part = parts[family.expert]
        if role in part.modules[module]:
            raise LoraError(f"{name}: {key} is a second tensor for {role} of {module}. The file mixes two LoRAs; get them as two files.")
        part.modules[module][role] = tensor
        part.families.add(family.name)
    if not parts:
        raise LoraError(_nothing_fits(name, tensors, ignored))
    merged = _one_part_unless_both_experts(parts)
    for part in merged.values():
        _apply_metadata(part, metadata)
        for module, roles in part.modules.items():
            _scale_bias(roles)
            _fit(name, module, roles, model_shapes)
    return NormalForm(name, merged, dict(ignored), len(tensors))


def _modules(model_shapes: Mapping[str, Shape]) -> set[str]:
    return {key.removesuffix(".weight").removesuffix(".bias") for key in model_shapes}


def _parse(key: str, spellings: Spellings) -> tuple[Family, str, str] | None:
    for pattern, role in ROLES:
        match = pattern.search(key)
        if match:
            path = key[: match.start()]
            if role == "diff_m":
                path += ".modulation"
            target = spellings.resolve(path)
            return (*target, "diff" if role == "diff_m" else match.expand(role)) if target else None
    return None


def _reason(key: str) -> str:
    if I2V_ONLY.search(key):
        return "I2V only"
    return "text encoder" if TEXT_ENCODER.search(key) else "unknown"


def _check_values(name: str, key: str, tensor: torch.Tensor) -> None:
    if not tensor.is_floating_point():
        raise LoraError(f"{name}: tensor {key} is {tensor.dtype}, not floating point. The file is damaged or no LoRA; fetch it again.")
    values = tensor.float()
    if not (torch.isfinite(values.sum()) or torch.isfinite(values).all()):  # one sum tells of nearly every file that all is well
        raise LoraError(f"{name}: tensor {key} holds NaN or infinite values. The file is damaged; fetch it again.")
    if key.endswith(".alpha") and tensor.numel() != 1:
        raise LoraError(f"{name}: {key} has shape {tuple(tensor.shape)}, but alpha is one number. The file is damaged; fetch it again.")


def _one_part_unless_both_experts(parts: dict[str | None, Part]) -> dict[str | None, Part]:
    """`transformer.` names the high-noise expert only in a file that has `transformer_2.` too."""
    if {"high", "low"} <= set(parts):
        shared = [parts[None]] if None in parts else []
        return {expert: _union([parts[expert], *shared]) for expert in ("high", "low")}
    if "low" in parts:
        return {"low": _union(list(parts.values()))}
    return {None: _union(list(parts.values()))}


def _union(parts: Sequence[Part]) -> Part:
    whole = Part()
    for part in parts:
        whole.families |= part.families
        for module, roles in part.modules.items():
            whole.modules[module].update(roles)
    return whole


def _apply_metadata(part: Part, metadata: Mapping[str, str]) -> None:
    """PEFT keeps alpha beside the tensors (`lora_adapter_metadata`), and rank-stabilised LoRA scales by alpha / sqrt(rank)."""
    peft_alpha, rank_stabilised = _adapter_settings(metadata)
    for roles in part.modules.values():
        rank = _rank(roles)
        if not rank:
            continue
        if "alpha" not in roles and peft_alpha is not None:
            roles["alpha"] = torch.tensor(float(peft_alpha))
        if rank_stabilised and "alpha" in roles:
            roles["alpha"] = roles["alpha"].float() * math.sqrt(rank)


def _adapter_settings(metadata: Mapping[str, str]) -> tuple[float | None, bool]:
    try:
        peft = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        kohya = json.loads(metadata.get("ss_network_args", "{}") or "{}")
    except (json.JSONDecodeError, TypeError):
        return None, False
    settings = {str(key).split(".")[-1]: value for key, value in peft.items()} if isinstance(peft, dict) else {}
    alpha = settings.get("lora_alpha")
    stabilised = bool(settings.get("use_rslora")) or isinstance(kohya, dict) and str(kohya.get("rs_lora", "")).lower() == "true"
    return (float(alpha) if isinstance(alpha, (int, float)) else None), stabilised


def _rank(roles: Mapping[str, torch.Tensor]) -> int:
    """Rank of a low-rank module; 0 where there is none (diff, full LoKr)."""
    for role in ("lora_down.weight", "hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
        if role in roles and roles[role].ndim:
            return roles[role].shape[0]
    return 0


def _alpha_over_rank(roles: Mapping[str, torch.Tensor]) -> float:
    """1 where there is no alpha, or no rank that it could belong to."""
    rank = _rank(roles)
    return float(roles["alpha"]) / rank if "alpha" in roles and rank else 1.0


def _scale_bias(roles: dict[str, torch.Tensor]) -> None:
    """A bias on lora_B is scaled like its weight, and is a plain difference of the model's bias."""
    bias = roles.pop("up_bias", None)
    if bias is not None:
        roles["diff_b"] = bias * _alpha_over_rank(roles)


def _fit(name: str, module: str, roles: dict[str, torch.Tensor], model_shapes: Mapping[str, Shape]) -> None:
    """LoraError unless the tensors of a module make one difference of its weight's or bias's size; plain differences take its shape."""
    target = model_shapes.get(f"{module}.weight") or model_shapes.get(module)
    for role, expected in (("diff", target), ("diff_b", model_shapes.get(f"{module}.bias"))):
        if role in roles:
            if expected is None or roles[role].numel() != math.prod(expected):
                raise LoraError(_mismatch(name, module, tuple(roles[role].shape), expected))
            roles[role] = roles[role].reshape(expected)
    delta = _delta_shape(name, module, roles)
    if delta is None and not roles.keys() & {"diff", "diff_b"}:
        raise LoraError(f"{name}: {module} has only {', '.join(sorted(roles))}, which change nothing. The file is damaged; fetch it again.")
    if delta is not None and (target is None or delta != (target[0], math.prod(target[1:]))):
        raise LoraError(_mismatch(name, module, delta, target))
    if delta is not None and "dora_scale" in roles and roles["dora_scale"].numel() not in delta:
        raise LoraError(_mismatch(name, f"{module} (DoRA magnitude)", tuple(roles["dora_scale"].shape), (delta[0], 1)))


def _mismatch(name: str, module: str, shape: Shape, expected: Shape | None) -> str:
    made_for = next((WAN_WIDTHS[side] for side in shape if side in WAN_WIDTHS and (expected is None or side not in expected)), None)
    origin = f" It was made for {made_for}." if made_for else ""
    return f"{name}: {module} has shape {shape}, the model expects {expected}.{origin} Choose a LoRA for Wan 2.2 T2V A14B or Wan 2.1 T2V 14B."


def _delta_shape(name: str, module: str, roles: Mapping[str, torch.Tensor]) -> tuple[int, int] | None:
    """(out, in) of the product that these tensors make; None where there is no product."""
    tucker = roles.keys() & {"lora_mid.weight", "hada_t1", "hada_t2", "lokr_t2"}
    if tucker:
        raise LoraError(f"{name}: {module} has {', '.join(sorted(tucker))}: Tucker decomposition, which fits no layer of Wan. Get it without.")
    if any(role.startswith("lora_") for role in roles):
        return _product(name, module, roles, "lora_up.weight", "lora_down.weight")
    if any(role.startswith("hada_") for role in roles):
        first, second = (_product(name, module, roles, f"hada_{w}_a", f"hada_{w}_b") for w in ("w1", "w2"))
        if first != second:
            raise LoraError(f"{name}: {module} has LoHa factors for {first} and {second}. The file is damaged; fetch it again.")
        return first
    if any(role.startswith("lokr_") for role in roles):
        first, second = (_kronecker_factor(name, module, roles, f"lokr_{w}") for w in ("w1", "w2"))
        return first[0] * second[0], first[1] * second[1]
    return None


def _product(name: str, module: str, roles: Mapping[str, torch.Tensor], out: str, inner: str) -> tuple[int, int]:
    absent = [role for role in (out, inner) if role not in roles]
    if absent:
        raise LoraError(f"{name}: {module} lacks {' and '.join(absent)}. The file is damaged; fetch it again.")
    a, b = roles[out].shape, roles[inner].shape
    if min(len(a), len(b)) < 2 or math.prod(a[1:]) != b[0] or b[0] == 0:
        raise LoraError(f"{name}: {module} has {out} {tuple(a)} and {inner} {tuple(b)}, which do not multiply. The file is damaged; fetch it again.")
    return a[0], math.prod(b[1:])


def _kronecker_factor(name: str, module: str, roles: Mapping[str, torch.Tensor], factor: str) -> tuple[int, int]:
    if factor not in roles:
        return _product(name, module, roles, f"{factor}_a", f"{factor}_b")
    shape = roles[factor].shape
    if len(shape) != 2:
        raise LoraError(f"{name}: {module} has {factor} of shape {tuple(shape)}, not a matrix. The file is damaged; fetch it again.")
    return shape[0], shape[1]


def _nothing_fits(name: str, tensors: Tensors, ignored: Mapping[str, list[str]]) -> str:
    other = next((what for pattern, what in OTHER_MODELS if any(pattern.search(key) for key in tensors)), None)
    content = other or ("a LoRA for the text encoder or I2V layers only" if set(ignored) <= {"I2V only", "text encoder"} and ignored
                      else f"no known LoRA of Wan (first key: {next(iter(tensors), 'none')})")
    return (f"{name}: none of its {len(tensors)} tensors fits: it is {content}. The model expects a LoRA for Wan, with keys like "
            "diffusion_model.blocks.0.self_attn.q.lora_A.weight. Choose a LoRA for Wan 2.2 T2V A14B or Wan 2.1 T2V 14B.")
