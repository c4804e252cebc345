"""Read a LoRA file from disk without trusting it."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..model_files import SAFETENSORS
from .normal_form import LoraError


def read_lora(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a file; LoraError for what is truncated, oversized or needs a pickle that runs code."""
    if path.suffix.lower() in SAFETENSORS:
        return _read_safetensors(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (the safe unpickler lets out whatever a hostile file makes it stumble over)
        raise LoraError(f"{path.name}: torch's safe loader refuses it ({type(error).__name__}). "
                        "Old pickled files can run code; get this LoRA as .safetensors.") from error
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise LoraError(f"{path.name}: it holds no plain table of tensors. Get this LoRA as .safetensors.")
    return {str(key): tensor for key, tensor in tensors.items()}, {}


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 (safe_open is no mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise LoraError(f"{path.name}: it is not a complete safetensors file ({error}). "
                        "The download was probably cut off: fetch it again.") from error
