"""What a file's metadata says of its scale: PEFT's alpha and rank-stabilised scaling."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from .adapters import rank
from .families import diffusers_name

SECOND = ("transformer_2", "dit2", "low_noise")  # how the settings of a file with both experts name the low-noise one


@dataclass(frozen=True)
class AdapterSettings:
    """PEFT's LoraConfig as diffusers writes it into the metadata: alpha, alpha by module, and whether alpha / sqrt(rank) scales."""

    alpha: float | None = None
    rank_stabilised: bool = False
    alphas: Mapping[str, float] = field(default_factory=dict)

    def alpha_of(self, module: str) -> float | None:
        """The alpha of one module of the model; patterns are those of PEFT, a whole name or its end."""
        names = (module, diffusers_name(module))
        return next((alpha for pattern, alpha in self.alphas.items() if any(_is_named(name, pattern) for name in names)), self.alpha)

    def apply(self, module: str, roles: dict[str, torch.Tensor]) -> None:
        """Set the alpha that `alpha / rank` needs. LyCORIS (`rs_lora`) needs none of this: its alpha tensors hold the square root already."""
        alpha, inner = self.alpha_of(module), rank(roles)
        if not inner:
            return
        if "alpha" not in roles and alpha is not None:
            roles["alpha"] = torch.tensor(alpha, dtype=torch.float64)
        if self.rank_stabilised and "alpha" in roles:
            roles["alpha"] = roles["alpha"] * math.sqrt(inner)


def adapter_settings(metadata: Mapping[str, str], expert: str | None) -> AdapterSettings:
    """The settings for one expert's half of a file, or for a whole file (None)."""
    try:
        peft = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (json.JSONDecodeError, TypeError):
        return AdapterSettings()
    if not isinstance(peft, dict):
        return AdapterSettings()
    values = {str(key).rsplit(".", 1)[-1]: value for key, value in peft.items() if expert is None or _is_about(str(key), expert)}
    alphas = values.get("alpha_pattern")
    return AdapterSettings(_number(values.get("lora_alpha")), bool(values.get("use_rslora")), {
        str(pattern): number for pattern, alpha in (alphas.items() if isinstance(alphas, dict) else ()) if (number := _number(alpha)) is not None})


def _is_about(key: str, expert: str) -> bool:
    return "." not in key or key.startswith(SECOND) == (expert == "low")


def _is_named(module: str, pattern: str) -> bool:
    return module == pattern or module.endswith(f".{pattern}")


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) else None
