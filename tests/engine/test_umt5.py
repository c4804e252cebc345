"""The size of a UMT5 encoder follows from its weights."""

import pytest

import tiny_weights
from engine.checkpoints import CheckpointError, Shape
from engine.text.umt5 import XXL, UMT5Size, umt5_size


def shapes(**size: int) -> dict[str, Shape]:
    return {key: tuple(tensor.shape) for key, tensor in tiny_weights.text_encoder(seed=0, **size).items()}


def test_size_is_read_from_the_shapes() -> None:
    size = umt5_size(shapes(width=64, ffn=96, heads=3, d_kv=8, layers=5), "tiny")
    assert (size.d_model, size.d_ff, size.d_kv, size.num_heads, size.num_layers) == (64, 96, 8, 3, 5)


def test_the_official_encoder_is_recognised() -> None:
    xxl = {"shared.weight": (256384, 4096), "spiece_model": (4548313,)}
    for layer in range(24):
        block = f"encoder.block.{layer}.layer"
        xxl |= {f"{block}.0.SelfAttention.{part}.weight": (4096, 4096) for part in "qkvo"}
        xxl |= {f"{block}.0.SelfAttention.relative_attention_bias.weight": (32, 64), f"{block}.0.layer_norm.weight": (4096,),
                f"{block}.1.DenseReluDense.wi_0.weight": (10240, 4096), f"{block}.1.DenseReluDense.wi_1.weight": (10240, 4096),
                f"{block}.1.DenseReluDense.wo.weight": (4096, 10240), f"{block}.1.layer_norm.weight": (4096,)}
    assert umt5_size(xxl, "umt5_xxl") == XXL == UMT5Size(256384, 4096, 10240, 64, 64, 24)


@pytest.mark.parametrize(("lost", "message"), [
    ("spiece_model", "no tokenizer"),
    ("encoder.block.1.layer.1.DenseReluDense.wo.weight", "lacks 1 tensors"),
    ("encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight", "T5 encoder, not UMT5"),
    ("shared.weight", "not a UMT5 text encoder"),
])
def test_what_is_missing_is_named(lost: str, message: str) -> None:
    incomplete = shapes(width=64)
    del incomplete[lost]
    with pytest.raises(CheckpointError, match=message):
        umt5_size(incomplete, "file.safetensors")
