"""Read a LoRA file from disk without trusting it, and say what is damaged where one is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from ..model_files import SAFETENSORS
from .errors import LoraError

LENGTH_BYTES = 8  # of a safetensors header: its size, little-endian
MOST_HEADER_BYTES = 100_000_000  # as in safetensors
SHOWN_BYTES = 64  # that tell what else a file is
METADATA = "__metadata__"
WHOLE = ("state_dict", "module", "model", "lora")  # under what programs keep the table of tensors
OTHER_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it points to: fetch the file itself"),
    (b"<", "a web page, not the file: the download address needs a login, or is wrong"),
    (b"PK\x03\x04", "a pickled or zipped file with a wrong name: get this LoRA as .safetensors"),
    (b"GGUF", "a GGUF file with a wrong name"),
)


def read_lora(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a file; LoraError for what is truncated, oversized or needs a pickle that runs code."""
    if path.suffix.lower() in SAFETENSORS:
        return _read_safetensors(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (the safe unpickler lets out whatever a hostile file makes it stumble over)
        raise LoraError(f"{path.name}: torch's safe loader refuses it ({type(error).__name__}). "
                        "Old pickled files can run code; get this LoRA as .safetensors.") from error
    tensors = _table(loaded)
    if not tensors:
        content = "a textual inversion embedding, which belongs in models/embeddings" if _is_embedding(loaded) else "no plain table of tensors"
        raise LoraError(f"{path.name}: it holds {content}. Get this LoRA as .safetensors.")
    return tensors, {}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file, from its header alone; empty where it has none, or is no safetensors file."""
    if path.suffix.lower() not in SAFETENSORS:
        return {}
    return _as_text(_header(_beginning(path)).get(METADATA))


def _table(loaded: Any) -> dict[str, torch.Tensor]:
    """The tensors of a pickled table, or of the table in it; empty where there is something else."""
    if not isinstance(loaded, dict):
        return {}
    inner = next((loaded[key] for key in WHOLE if isinstance(loaded.get(key), dict)), loaded)
    plain = inner and all(isinstance(value, torch.Tensor) for value in inner.values())
    return {str(key): tensor for key, tensor in inner.items()} if plain else {}


def _is_embedding(loaded: Any) -> bool:
    return isinstance(loaded, dict) and bool({"string_to_param", "emb_params"} & {key for key in loaded if isinstance(key, str)})


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 (safe_open is no mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        return _with_metadata_as_text(path, error)


def _with_metadata_as_text(path: Path, error: Exception) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A file whose only fault is metadata that is not text, which is turned into text; LoraError for every other fault."""
    beginning = _beginning(path)
    header = _header(beginning)
    metadata = header.pop(METADATA, None)
    if metadata is None or _is_text(metadata):
        size = path.stat().st_size if path.is_file() else 0
        raise LoraError(f"{path.name}: it is not a complete safetensors file: {_damage(beginning, size, header, error)}.") from error
    names = json.dumps(header).encode()
    try:
        tensors = load(len(names).to_bytes(LENGTH_BYTES, "little") + names + path.read_bytes()[len(beginning) :])
    except (SafetensorError, ValueError, RuntimeError) as second:
        raise LoraError(f"{path.name}: its metadata is not text, and its tensors are damaged too ({second}). Fetch it again.") from second
    return tensors, _as_text(metadata)


def _beginning(path: Path) -> bytes:
    """A file up to the end of its header, or its first bytes where it says nothing sensible."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        first = file.read(SHOWN_BYTES)
        end = LENGTH_BYTES + _length(first)
        return first[:end] if end <= len(first) or end > MOST_HEADER_BYTES else first + file.read(end - len(first))


def _as_text(metadata: Any) -> dict[str, str]:
    items = metadata.items() if isinstance(metadata, Mapping) else ()
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in items}


def _is_text(metadata: Any) -> bool:
    return isinstance(metadata, Mapping) and all(isinstance(value, str) for value in metadata.values())


def _length(content: bytes) -> int:
    return int.from_bytes(content[:LENGTH_BYTES], "little")


def _header(content: bytes) -> dict[str, Any]:
    """The header of a safetensors file; empty where it is none."""
    if len(content) < LENGTH_BYTES + _length(content) or _length(content) > MOST_HEADER_BYTES:
        return {}
    try:
        header = json.loads(content[LENGTH_BYTES : LENGTH_BYTES + _length(content)])
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def _damage(content: bytes, size: int, header: Mapping[str, Any], error: Exception) -> str:
    """What is wrong with a file of that beginning and size, and what to do."""
    if not size:
        return "it is empty. The download did not start: fetch it again"
    other = next((what for beginning, what in OTHER_BEGINNINGS if content.startswith(beginning)), None)
    if other:
        return f"it is {other}"
    if not header:
        return f"its header is damaged or cut off ({error}). The download was probably cut off: fetch it again"
    expected = LENGTH_BYTES + _length(content) + _end_of_tensors(header)
    if expected > size:
        return f"it ends after {size:,} of {expected:,} bytes. The download was cut off: fetch it again"
    surplus = f", and it has {size - expected:,} bytes too many" if expected < size else ""
    return f"its header does not fit its tensors ({error}){surplus}. The file is damaged: fetch it again"


def _end_of_tensors(header: Mapping[str, Any]) -> int:
    """Where the last tensor ends, after the header."""
    ends = [entry["data_offsets"][-1] for entry in header.values()
            if isinstance(entry, dict) and isinstance(entry.get("data_offsets"), list) and entry["data_offsets"]]
    return max((end for end in ends if isinstance(end, int)), default=0)
