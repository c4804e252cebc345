"""Networks in Hugging Face folders: found below ComfyUI's models folder, opened by transformers, moved by ComfyUI's memory management."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import folder_paths
import torch
from packaging.version import Version

from ...engine.model_files import missing_file
from ...engine.pairs import with_slashes
from .memory import keep_loaded, unload

TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model")
PREPARATION = "preprocessor_config.json"
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
RENAMED_DTYPE, FAST_ONLY = Version("4.56"), Version("5")  # of transformers: torch_dtype is called dtype; one kind of image processor is left


def model_folders(kind: str) -> dict[str, Path]:
    """The folders below models/`kind`, up to two levels deep, that hold a config.json: name to path."""
    folder_paths.add_model_folder_path(kind, str(Path(folder_paths.models_dir) / kind))
    places = [Path(place) for place in folder_paths.get_folder_paths(kind)]
    return {config.parent.relative_to(place).as_posix(): config.parent
            for place in reversed(places) for pattern in ("*/config.json", "*/*/config.json") for config in sorted(place.glob(pattern))}


def folder_of(kind: str, name: str, needs_tokenizer: bool) -> Path:
    """Path of a model's folder, with either slash in its name; ValueError with a download link when it is not there or not whole."""
    folder = model_folders(kind).get(with_slashes(name))
    if folder is None:
        raise ValueError(missing_file(kind, name))
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"models/{kind}/{name} has no .safetensors file, the weights that are safe to open. Download the whole folder again.")
    if needs_tokenizer and not any((folder / file).exists() for file in TOKENIZERS):
        raise ValueError(f"models/{kind}/{name} has no tokenizer ({', '.join(TOKENIZERS)}). Download the whole folder again.")
    return folder


def opened(auto_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """The network of a folder, by one of transformers' Auto classes, ready to compute and without gradients."""
    word = "dtype" if _transformers() >= RENAMED_DTYPE else "torch_dtype"
    network = auto_class.from_pretrained(folder, use_safetensors=True, **LOCAL, **{word: dtype})
    return network.eval().requires_grad_(False)


def image_processor(folder: Path) -> Any:
    """What prepares pictures for the network of a folder, of the kind that it was saved with: where that is not said, transformers 4 warns."""
    from transformers import AutoImageProcessor
    kind = json.loads((folder / PREPARATION).read_text(encoding="utf-8")).get("image_processor_type", "")
    choice = {"use_fast": kind.endswith("Fast")} if _transformers() < FAST_ONLY else {}
    return AutoImageProcessor.from_pretrained(folder, **LOCAL, **choice)


def _transformers() -> Version:
    return Version(version("transformers"))


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 or float16 where the device is good at it, else float32."""
    management = comfy.model_management
    if management.is_device_cpu(device):
        return torch.float32
    return torch.bfloat16 if management.should_use_bf16(device) else torch.float16 if management.should_use_fp16(device) else torch.float32


class Holder(torch.nn.Module):
    """ModelPatcher writes `device` on what it moves; networks of transformers do not let it."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network


class Managed:
    """A network that is on its device between `load` and `unload`."""

    def __init__(self, network: Any, device: torch.device) -> None:
        self.network, self.device = network, device
        size = sum(parameter.nbytes for parameter in network.parameters())  # of a state dict, tied weights would count twice
        self.patcher = comfy.model_patcher.ModelPatcher(Holder(network), device, comfy.model_management.text_encoder_offload_device(), size=size)

    def load(self, activations: float) -> None:
        """Bring it to its device, if something took its place since; `activations` in bytes."""
        keep_loaded(self.patcher, activations)

    def unload(self) -> None:
        unload(self.patcher)
