"""The size of a UMT5 encoder, read from the shapes of its weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ..checkpoints import CheckpointError, Shape

TOKENIZER_KEY = "spiece_model"


@dataclass(frozen=True)
class UMT5Size:
    """Field names are those of the Hugging Face UMT5 configuration; UMT5-XXL is (256384, 4096, 10240, 64, 64, 24)."""

    vocab_size: int
    d_model: int
    d_ff: int
    d_kv: int
    num_heads: int
    num_layers: int

    def as_config(self) -> dict[str, int]:
        return asdict(self)


XXL = UMT5Size(vocab_size=256384, d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=24)


def umt5_size(shapes: Mapping[str, Shape], name: str) -> UMT5Size:
    """Infer the size; CheckpointError naming `name` when the tensors are not those of a UMT5 encoder with its tokenizer."""
    block = "encoder.block.{}.layer."
    query = shapes.get(block.format(0) + "0.SelfAttention.q.weight")
    gate = shapes.get(block.format(0) + "1.DenseReluDense.wi_0.weight")
    vocabulary = shapes.get("shared.weight")
    if query is None or gate is None or vocabulary is None:
        raise CheckpointError(f"{name} is not a UMT5 text encoder: it has no `encoder.block.0` with gated feed-forward. "
                              "Wan 2.2 needs umt5_xxl, for example umt5_xxl_fp8_e4m3fn_scaled.safetensors.")
    if block.format(1) + "0.SelfAttention.q.weight" in shapes and \
            block.format(1) + "0.SelfAttention.relative_attention_bias.weight" not in shapes:
        raise CheckpointError(f"{name} is a T5 encoder, not UMT5: only its first block has a relative attention bias. "
                              "Wan 2.2 needs umt5_xxl, for example umt5_xxl_fp8_e4m3fn_scaled.safetensors.")
    if TOKENIZER_KEY not in shapes:
        raise CheckpointError(f"{name} holds no tokenizer (tensor `{TOKENIZER_KEY}`). "
                              "Use the file repackaged for ComfyUI: umt5_xxl_fp8_e4m3fn_scaled.safetensors or umt5_xxl_fp16.safetensors.")
    num_layers = sum(key.endswith(".layer.0.SelfAttention.q.weight") for key in shapes)
    missing = [key for layer in range(num_layers) for key in _block_tensors(layer) if key not in shapes]
    if missing:
        raise CheckpointError(f"{name} lacks {len(missing)} tensors of a UMT5 encoder, for example {missing[0]}. Fetch the file again.")
    num_heads = shapes[block.format(0) + "0.SelfAttention.relative_attention_bias.weight"][1]
    return UMT5Size(vocab_size=vocabulary[0], d_model=query[1], d_ff=gate[0], d_kv=query[0] // num_heads,
                    num_heads=num_heads, num_layers=num_layers)


def _block_tensors(layer: int) -> list[str]:
    attention = [f"0.SelfAttention.{part}.weight" for part in ("q", "k", "v", "o", "relative_attention_bias")]
    feed_forward = [f"1.DenseReluDense.{part}.weight" for part in ("wi_0", "wi_1", "wo")]
    return [f"encoder.block.{layer}.layer.{part}" for part in (*attention, "0.layer_norm.weight", *feed_forward, "1.layer_norm.weight")]
