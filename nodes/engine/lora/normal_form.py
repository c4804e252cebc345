"""Read a LoRA file of any family into tensors per module of the model, checked against the model's shapes before anything is patched."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from .adapters import DAMAGED, PLAIN, Shape, alpha_over_rank, difference_shape, kind_of, rank
from .contents import I2V_CHANNELS, I2V_ONLY, WAN_WIDTHS, content_of, reason_to_ignore, refused_content
from .endings import Key, parse
from .errors import LoraError
from .families import Spellings
from .settings import adapter_settings

__all__ = ["LoraError", "NormalForm", "Part", "Shape", "normal_form"]
Tensors = Mapping[str, torch.Tensor]
INPUT_PROJECTION = "patch_embedding"


@dataclass
class Part:
    """What one file holds for one expert: tensors by module and role, the families they came in, and the keys of each module."""

    modules: dict[str, dict[str, torch.Tensor]] = field(default_factory=lambda: defaultdict(dict))
    families: set[str] = field(default_factory=set)
    keys: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, key: str, parsed: Key, tensor: torch.Tensor) -> None:
        module, role = parsed.spelled.module, parsed.role
        if role in self.modules[module]:
            raise LoraError(f"{name}: {key} is a second tensor for {role} of {module}. The file mixes two LoRAs; get them as two files.")
        self.modules[module][role] = tensor
        self.families.add(parsed.spelled.family)
        self.keys[module].append(key)

    def remove(self, module: str) -> list[str]:
        """Take a module out; the keys it had."""
        self.modules.pop(module, None)
        return self.keys.pop(module, [])

    def tensor_count(self) -> int:
        return sum(len(keys) for keys in self.keys.values())

    def ranks(self) -> list[int]:
        return sorted({rank(roles) for roles in self.modules.values()} - {0})

    def kinds(self) -> list[str]:
        """The kinds of adapter in it; plain differences are none."""
        return sorted({kind.name for roles in self.modules.values() if (kind := kind_of(roles))})

    def scales(self) -> list[float]:
        """alpha / rank of every module that has a product, 1 where the file names no alpha, or where alpha has no rank."""
        return sorted({round(alpha_over_rank(roles), 6) for roles in self.modules.values() if (kind := kind_of(roles)) and kind.scaled})


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
    def named_experts(self) -> tuple[str, ...]:
        """The experts that the file's own keys speak of; none for a file that fits either."""
        return tuple(expert for expert in ("high", "low") if expert in self.parts)


def normal_form(tensors: Tensors, metadata: Mapping[str, str], model_shapes: Mapping[str, Shape], name: str) -> NormalForm:
    """Parse and check a file against the parameters of the model ("blocks.0.self_attn.q.weight" -> shape).

    LoraError when nothing fits, when a tensor is not finite or not floating point, or when shapes do not fit the model.
    """
    spellings = Spellings(_modules(model_shapes))
    parts: dict[str | None, Part] = defaultdict(Part)
    ignored: dict[str, list[str]] = defaultdict(list)
    _refuse_other_contents(name, tensors)
    for key, tensor in tensors.items():
        parsed = parse(key, spellings)
        if parsed is None:
            ignored[reason_to_ignore(key)].append(key)
        else:
            parts[parsed.spelled.expert].add(name, key, parsed, _checked(name, key, parsed.role, tensor))
    for part in parts.values():
        ignored[I2V_ONLY] += _without_i2v_input(part, model_shapes)
    parts = {expert: part for expert, part in parts.items() if part.modules}
    ignored = {reason: keys for reason, keys in ignored.items() if keys}
    if not parts:
        raise LoraError(_nothing_fits(name, tensors, ignored, spellings))
    merged = _one_part_unless_the_keys_name_experts(parts)
    for expert, part in merged.items():
        _complete(name, part, metadata, expert, model_shapes)
    return NormalForm(name, merged, ignored, len(tensors))


def _modules(model_shapes: Mapping[str, Shape]) -> set[str]:
    """What a key may name: modules, and, as in core, parameters that are no weight (modulation, a bias)."""
    return {key.removesuffix(".weight") for key in model_shapes} | {key.removesuffix(".bias") for key in model_shapes if key.endswith(".bias")}


def _checked(name: str, key: str, role: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor; an alpha of any dtype and shape as a scalar in float64. LoraError for what is no number."""
    if role == "alpha":
        if tensor.numel() != 1 or tensor.is_complex():
            raise LoraError(f"{name}: {key} has shape {tuple(tensor.shape)}, but alpha is one number. {DAMAGED}")
        tensor = tensor.reshape(()).double()
    if not tensor.is_floating_point():
        raise LoraError(f"{name}: tensor {key} is {tensor.dtype}, not floating point. The file is damaged or no LoRA; fetch it again.")
    values = tensor.float()
    if not (torch.isfinite(values.sum()) or torch.isfinite(values).all()):  # one sum tells of nearly every file that all is well
        raise LoraError(f"{name}: tensor {key} holds NaN or infinite values. {DAMAGED}")
    return tensor


def _refuse_other_contents(name: str, tensors: Tensors) -> None:
    """LoraError for a file of which a part must not be put on alone."""
    content = refused_content(tensors)
    if content:
        raise LoraError(f"{name}: it is {content}. Choose a LoRA for Wan 2.2 T2V A14B or Wan 2.1 T2V 14B.")


def _without_i2v_input(part: Part, model_shapes: Mapping[str, Shape]) -> list[str]:
    """Take out an input projection for the channels of an image-to-video expert; its keys."""
    roles, target = part.modules.get(INPUT_PROJECTION), model_shapes.get(f"{INPUT_PROJECTION}.weight")
    if roles is None or target is None or _input_channels(roles, target) != I2V_CHANNELS:
        return []
    return part.remove(INPUT_PROJECTION)


def _input_channels(roles: Mapping[str, torch.Tensor], target: Shape) -> int:
    """For how many input channels a file's input projection was made; 0 where it does not say, or has other outputs."""
    try:
        made = tuple(roles["diff"].shape) if "diff" in roles else difference_shape(roles, target)
    except LoraError:
        return 0
    return math.prod(made[1:]) // math.prod(target[2:]) if made and made[0] == target[0] else 0


def _one_part_unless_the_keys_name_experts(parts: dict[str | None, Part]) -> dict[str | None, Part]:
    """In a file of two experts of which the keys name one (`transformer.` and `transformer_2.`), the rest is the other one's."""
    if {"high", "low"} <= set(parts):
        shared = [parts[None]] if None in parts else []
        return {expert: _union([parts[expert], *shared]) for expert in ("high", "low")}
    named = next((expert for expert in ("high", "low") if expert in parts), None)
    if named and None in parts:
        return {named: parts[named], "low" if named == "high" else "high": parts[None]}
    return dict(parts)


def _union(parts: Sequence[Part]) -> Part:
    whole = Part()
    for part in parts:
        whole.families |= part.families
        for module, roles in part.modules.items():
            whole.modules[module].update(roles)
            whole.keys[module] += part.keys[module]
    return whole


def _complete(name: str, part: Part, metadata: Mapping[str, str], expert: str | None, model_shapes: Mapping[str, Shape]) -> None:
    """Bring in the metadata, and check every module against the model."""
    settings = adapter_settings(metadata, expert)
    for module, roles in part.modules.items():
        try:
            _take_alpha_as_trainers_do(roles)
            settings.apply(module, roles)
            _scale_bias(roles)
            _fit(module, roles, model_shapes)
        except LoraError as error:
            raise LoraError(f"{name}: {module} {error}") from error


def _take_alpha_as_trainers_do(roles: dict[str, torch.Tensor]) -> None:
    """kohya, musubi-tuner and LyCORIS take an alpha of 0 for the rank. In a rotation it is a bound, and 0 is none."""
    if "alpha" in roles and not roles["alpha"] and "oft_blocks" not in roles:
        del roles["alpha"]


def _scale_bias(roles: dict[str, torch.Tensor]) -> None:
    """A bias on lora_B is scaled like its weight, and is a plain difference of the model's bias."""
    bias = roles.pop("up_bias", None)
    if bias is not None:
        roles["diff_b"] = bias * alpha_over_rank(roles)


def _fit(module: str, roles: dict[str, torch.Tensor], model_shapes: Mapping[str, Shape]) -> None:
    """LoraError unless the tensors of a module make one difference of its weight's or bias's size; plain differences take its shape."""
    target = model_shapes.get(f"{module}.weight") or model_shapes.get(module)
    for role, expected in _plain_targets(module, target, model_shapes):
        if role in roles:
            if expected is None or roles[role].numel() != math.prod(expected):
                raise LoraError(_mismatch(tuple(roles[role].shape), expected))
            roles[role] = roles[role].reshape(expected)
    if "lokr_w2" in roles and roles["lokr_w2"].ndim > 2:  # of a convolution; core multiplies matrices
        roles["lokr_w2"] = roles["lokr_w2"].flatten(1)
    made = difference_shape(roles, target or ())
    if made is None and (not roles.keys() & PLAIN or "dora_scale" in roles):
        raise LoraError(f"has only {', '.join(sorted(roles))}, which change nothing. {DAMAGED}")
    if made is not None and (target is None or made != (target[0], math.prod(target[1:]))):
        raise LoraError(_mismatch(made, target))
    if made is not None and "dora_scale" in roles and roles["dora_scale"].numel() not in made:
        raise LoraError("(DoRA magnitude) " + _mismatch(tuple(roles["dora_scale"].shape), (made[0], 1)))


def _plain_targets(module: str, target: Shape | None, model_shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Shape | None]]:
    yield "diff", target
    yield "set_weight", target
    yield "diff_b", model_shapes.get(f"{module}.bias")


def _mismatch(shape: Shape, expected: Shape | None) -> str:
    made_for = next((WAN_WIDTHS[side] for side in shape if side in WAN_WIDTHS and (expected is None or side not in expected)), None)
    origin = f" It was made for {made_for}." if made_for else ""
    if not made_for and expected is not None and len(expected) > 2 and shape[:1] == expected[:1]:
        origin = f" It was made for {math.prod(shape[1:]) // math.prod(expected[2:])} input channels."
    return f"has shape {shape}, the model expects {expected}.{origin} Choose a LoRA for Wan 2.2 T2V A14B or Wan 2.1 T2V 14B."


def _nothing_fits(name: str, tensors: Tensors, ignored: Mapping[str, list[str]], spellings: Spellings) -> str:
    content = content_of(tensors, ignored, spellings)
    return (f"{name}: none of its {len(tensors)} tensors fits: it is {content}. The model expects a LoRA for Wan, with keys like "
            "diffusion_model.blocks.0.self_attn.q.lora_A.weight. Choose a LoRA for Wan 2.2 T2V A14B or Wan 2.1 T2V 14B.")
