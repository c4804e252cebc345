"""How a file is quantised is told from its header, and a ComfyUI that does not read it is told which one does."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny_weights
from engine.checkpoints import CheckpointError
from engine.quantisation import MARKERS_SINCE, SINCE, Quantisation, check_readable, quantisation

LAYER = "blocks.0.self_attn.q"


def marker(name: str) -> torch.Tensor:
    return torch.tensor(list(json.dumps({"format": name}).encode()), dtype=torch.uint8)


def written(path: Path, weights: tiny_weights.Weights, metadata: dict[str, str] | None = None) -> Quantisation:
    save_file(weights, path, metadata)
    return quantisation(path)


@pytest.mark.parametrize("name", SINCE)
def test_formats_are_read_from_markers_and_from_metadata(tmp_path: Path, name: str) -> None:
    weights = tiny_weights.expert(seed=1)
    assert written(tmp_path / "marked.safetensors", {**weights, f"{LAYER}.comfy_quant": marker(name)}) == Quantisation(frozenset({name}), marked=True)
    metadata = {"_quantization_metadata": json.dumps({"layers": {LAYER: {"format": name}}})}
    assert written(tmp_path / "metadata.safetensors", weights, metadata) == Quantisation(frozenset({name}))


def test_the_old_scaled_layout_and_plain_float8_are_told_apart(tmp_path: Path) -> None:
    weights = tiny_weights.expert(seed=1)
    scaled = written(tmp_path / "scaled.safetensors", tiny_weights.fp8_scaled(weights))
    plain = written(tmp_path / "plain.safetensors", {name: t.to(torch.float8_e5m2) if t.ndim == 2 else t for name, t in weights.items()})
    assert scaled == Quantisation(frozenset({"float8_e4m3fn"}), old=True)
    assert written(tmp_path / "e5m2.safetensors", {**weights, "scaled_fp8": torch.zeros(2, dtype=torch.float8_e5m2)}).formats == {"float8_e5m2"}
    assert plain == Quantisation(plain="float8_e5m2")
    assert written(tmp_path / "half.safetensors", {name: t.half() for name, t in weights.items()}) == Quantisation()


@pytest.mark.parametrize(("file", "dtype", "changed"), [
    (Quantisation(), "float8_e4m3fn", False), (Quantisation(frozenset({"nvfp4"})), "float8_e4m3fn", True),
    (Quantisation(plain="float8_e4m3fn"), "float8_e4m3fn", False), (Quantisation(plain="float8_e4m3fn"), "float8_e5m2", True)])
def test_a_second_rounding_is_known(file: Quantisation, dtype: str, changed: bool) -> None:
    assert file.changed_by(dtype) is changed


@pytest.mark.parametrize(("name", "cure"), [("nvfp4", "Use 0.8.0 or newer"), ("asym_w4a8_int8", "Use one newer than 0.30.0"),
                                            ("int2_of_tomorrow", "Update it")])
def test_a_comfyui_that_lacks_the_format_is_told_which_one_reads_it(name: str, cure: str) -> None:
    with pytest.raises(CheckpointError, match=f"high.safetensors is quantised as {name}, .*{cure}"):
        check_readable(Quantisation(frozenset({name})), ["float8_e4m3fn"], True, "high.safetensors")
    check_readable(Quantisation(frozenset({name})), ["float8_e4m3fn", name], True, "high.safetensors")


def test_markers_need_a_comfyui_that_reads_them() -> None:
    marked = Quantisation(frozenset({"float8_e4m3fn"}), marked=True)
    with pytest.raises(CheckpointError, match=f"Use {MARKERS_SINCE} or newer"):
        check_readable(marked, ["float8_e4m3fn"], False, "high.safetensors")
    check_readable(marked, ["float8_e4m3fn"], True, "high.safetensors")


def test_the_old_layout_in_e5m2_is_refused_where_it_becomes_nan() -> None:
    old = Quantisation(frozenset({"float8_e5m2"}), old=True)
    check_readable(old, ["float8_e4m3fn"], False, "high.safetensors")
    with pytest.raises(CheckpointError, match="NaN. Choose the e4m3fn file"):
        check_readable(old, ["float8_e4m3fn", "float8_e5m2"], True, "high.safetensors")
