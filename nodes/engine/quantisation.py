"""How a weight file is quantised, and which ComfyUI reads that: told from its header and the markers of its layers; no weight is read."""

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from .checkpoints import CheckpointError

OLD_MARKER, LAYER_MARKER, METADATA = "scaled_fp8", ".comfy_quant", "_quantization_metadata"
PLAIN = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
MARKERS_SINCE = "0.4.0"
SINCE = {  # the ComfyUI that first read layers of this format
    "float8_e4m3fn": "0.3.75", "float8_e5m2": "0.8.0", "nvfp4": "0.8.0", "mxfp8": "0.18.0", "int8_tensorwise": "0.27.0", "convrot_w4a4": "0.28.0",
    "asym_w4a8_int8": "newer than 0.30.0",
}


@dataclass(frozen=True)
class Quantisation:
    """`formats` of the layers by core's names; `marked` where each layer has a marker of its own, `old` where one tensor stands for all of them;
    `plain` where float8 lies there without scales."""

    formats: frozenset[str] = frozenset()
    marked: bool = False
    old: bool = False
    plain: str = ""

    def changed_by(self, dtype: str) -> bool:
        """Whether resting in another type, such as "float8_e5m2", would round anew what is quantised."""
        return bool(self.formats) or (bool(self.plain) and self.plain != dtype)

    def describe(self) -> str:
        return ", ".join(sorted(self.formats)) or self.plain


def quantisation(path: Path) -> Quantisation:
    """Of a whole safetensors file."""
    with safe_open(path, framework="pt") as file:
        keys = list(file.keys())
        metadata = (file.metadata() or {}).get(METADATA)
        if metadata is not None:
            return Quantisation(_formats(json.loads(metadata).get("layers", {}).values()))
        if markers := [key for key in keys if key.endswith(LAYER_MARKER)]:
            return Quantisation(_formats(json.loads(file.get_tensor(key).numpy().tobytes()) for key in markers), marked=True)
        if (old := next((key for key in keys if key.endswith(OLD_MARKER)), None)) is not None:
            return Quantisation(frozenset({PLAIN.get(file.get_slice(old).get_dtype(), "float8_e4m3fn")}), old=True)
        slices = [file.get_slice(key) for key in keys]
        types = Counter(piece.get_dtype() for piece in slices if len(piece.get_shape()) == 2)
    return Quantisation(plain=PLAIN.get(types.most_common(1)[0][0], "") if types else "")


def _formats(layers: Iterable[dict[str, str]]) -> frozenset[str]:
    return frozenset(str(layer.get("format")) for layer in layers)


def check_readable(quantised: Quantisation, algorithms: Collection[str], reads_markers: bool, name: str) -> None:
    """CheckpointError with the version that can, unless a ComfyUI with these algorithms reads the file."""
    if quantised.old:
        if reads_markers and "float8_e5m2" in quantised.formats:
            raise CheckpointError(f"{name} holds scaled float8_e5m2 in the old layout, which this ComfyUI takes for float8_e4m3fn: it would be "
                                  "NaN. Choose the e4m3fn file.")
        return
    for unknown in sorted(quantised.formats - set(algorithms)):
        raise CheckpointError(f"{name} is quantised as {unknown}, which this ComfyUI does not read. {_needed(SINCE.get(unknown))}")
    if quantised.marked and not reads_markers:
        raise CheckpointError(f"{name} marks its quantised layers one by one, which this ComfyUI does not read. {_needed(MARKERS_SINCE)}")


def _needed(version: str | None) -> str:
    what = "Update it" if version is None else f"Use one {version}" if version.startswith("newer") else f"Use {version} or newer"
    return f"{what}, or choose the fp8_scaled file of Wan 2.2 T2V A14B."
