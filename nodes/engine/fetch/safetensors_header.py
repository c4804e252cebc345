"""Whether bytes that arrive are a safetensors file, told as soon as its header has come."""

import json
from typing import Any

from .rules import DownloadRefused

LENGTH_BYTES = 8
MAX_HEADER = 8 * 2**20
"""Bytes. The safetensors library takes 100 MB, which cost seconds and gigabytes to parse and stop every other thread meanwhile. A LoRA has some
thousand tensors of about 120 bytes each there, and what a trainer notes down, seldom more than 1 MB."""
CURE = "Only complete safetensors files are used; check the address, and convert other formats first."


class HeaderCheck:
    """Takes a file's bytes in order and knows, once the header has come, how large the file must be."""

    def __init__(self) -> None:
        self.file_bytes: int | None = None
        self._begin = bytearray()

    def add(self, chunk: bytes) -> None:
        """DownloadRefused as soon as the bytes cannot be a safetensors file."""
        if self.file_bytes is not None:
            return
        self._begin += chunk
        if len(self._begin) < LENGTH_BYTES:
            return
        length = int.from_bytes(self._begin[:LENGTH_BYTES], "little")
        if not 2 <= length <= MAX_HEADER or not b"{".startswith(self._begin[LENGTH_BYTES:LENGTH_BYTES + 1]):
            raise DownloadRefused(f"what came is no safetensors file. {CURE}")
        if len(self._begin) >= LENGTH_BYTES + length:
            self.file_bytes = LENGTH_BYTES + length + _tensor_bytes(bytes(self._begin[LENGTH_BYTES:LENGTH_BYTES + length]))
            self._begin.clear()


def _tensor_bytes(header: bytes) -> int:
    """Bytes of all tensors, which follow one another without a gap: https://github.com/huggingface/safetensors, Format."""
    try:
        parsed = json.loads(header)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise DownloadRefused(f"the file's safetensors header cannot be read. {CURE}")
    spans = sorted(_span(name, tensor) for name, tensor in parsed.items() if name != "__metadata__")
    at = 0
    for begin, end in spans:
        if begin != at or end < begin:
            raise DownloadRefused(f"the file's safetensors header has tensors that overlap or leave gaps at byte {at}. {CURE}")
        at = end
    if not at:
        raise DownloadRefused(f"the file's safetensors header has no tensors. {CURE}")
    return at


def _span(name: str, tensor: Any) -> tuple[int, int]:
    offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise DownloadRefused(f"the file's safetensors header does not say where the tensor {name[:80]!r} lies. {CURE}")
    return offsets[0], offsets[1]
