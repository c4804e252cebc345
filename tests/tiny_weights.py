"""Tiny random Wan 2.2 weights in the real file formats, under the official file names, and the real RIFE 4.26.

Shapes follow the official state dicts (wan/modules/model.py, t5.py, vae2_1.py); only the widths and depths are small.
"""

import io
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file

import interpolation_oracles

HIGH = "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors"
LOW = "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors"
TEXT_ENCODER = "umt5_xxl_fp8_e4m3fn_scaled.safetensors"
VAE = "wan_2.1_vae.safetensors"
RIFE = "rife_v4.26.safetensors"
FILM = "film_net_fp16.safetensors"
LORAS = ("wan2.2_t2v_A14b_{}_noise_lora_rank64_lightx2v_4step_1217.safetensors", "Wan2.2-Fun-A14B-InP-{}-noise-HPS2.1.safetensors")
Weights = dict[str, torch.Tensor]

TEXT = ("a red circle moves to the left over a blue background", "the camera pans right across a quiet harbour at dawn",
        "two cats chase a ball of wool (slowly), then sleep & dream", "slow motion: rain falls on 1234567890 yellow umbrellas!")


def write_models(folder: Path) -> None:
    """Write a complete set of tiny models below `folder`, as ComfyUI's models folder."""
    (folder / "diffusion_models").mkdir(parents=True, exist_ok=True)
    (folder / "text_encoders").mkdir(exist_ok=True)
    (folder / "vae").mkdir(exist_ok=True)
    (folder / "loras").mkdir(exist_ok=True)
    save_file(fp8_scaled(expert(seed=1)), folder / "diffusion_models" / HIGH)
    save_file(fp8_scaled(expert(seed=2)), folder / "diffusion_models" / LOW)
    save_file(fp8_scaled(text_encoder(seed=3), keep="shared", marker=0), folder / "text_encoders" / TEXT_ENCODER)
    save_file(vae(seed=4), folder / "vae" / VAE)
    write_rife(folder)
    save_file({name: tensor.half() for name, tensor in interpolation_oracles.film_weights().items()}, folder / "frame_interpolation" / FILM)
    for seed, name in enumerate(LORAS, 5):
        for expert_name in ("high", "low"):
            save_file(lora(seed), folder / "loras" / name.format(expert_name))


def write_rife(folder: Path) -> None:
    """The real RIFE 4.26 in `folder`, ComfyUI's models folder."""
    (folder / "frame_interpolation").mkdir(exist_ok=True)
    save_file(interpolation_oracles.rife_4_26_weights(), folder / "frame_interpolation" / RIFE)


class Random:
    """Seeded tensors of the right size for their place: weights keep the variance of what passes through them."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.weights: Weights = {}

    def weight(self, name: str, *shape: int, gain: float = 1.0) -> None:
        fan_in = max(1, torch.Size(shape[1:]).numel())
        self.weights[name] = torch.randn(shape, generator=self.generator) * gain / fan_in**0.5

    def linear(self, name: str, inputs: int, outputs: int, gain: float = 1.0) -> None:
        self.weight(f"{name}.weight", outputs, inputs, gain=gain)
        self.weights[f"{name}.bias"] = torch.randn(outputs, generator=self.generator) * 0.02

    def ones(self, name: str, *shape: int) -> None:
        self.weights[name] = torch.ones(shape)


def expert(seed: int, dim: int = 128, ffn: int = 256, layers: int = 2, channels: int = 16, text_dim: int = 4096) -> Weights:
    """State dict of a Wan transformer; the official one has dim 5120, ffn 13824, 40 layers."""
    net = Random(seed)
    net.weight("patch_embedding.weight", dim, channels, 1, 2, 2)
    net.weights["patch_embedding.bias"] = torch.zeros(dim)
    for name, inputs, outputs in (("text_embedding.0", text_dim, dim), ("text_embedding.2", dim, dim), ("time_embedding.0", 256, dim),
                                  ("time_embedding.2", dim, dim), ("time_projection.1", dim, 6 * dim)):
        net.linear(name, inputs, outputs)
    for block in range(layers):
        _expert_block(net, f"blocks.{block}", dim, ffn)
    net.weight("head.modulation", 1, 2, dim)
    net.linear("head.head", dim, 16 * 4)
    return net.weights


def lora(seed: int, dim: int = 128, rank: int = 4, layers: int = 2) -> Weights:
    """A LoRA for an expert of that size, spelled as lightx2v spells it."""
    net = Random(seed)
    for block in range(layers):
        name = f"diffusion_model.blocks.{block}.self_attn.q"
        net.weight(f"{name}.lora_down.weight", rank, dim)
        net.weight(f"{name}.lora_up.weight", dim, rank)
        net.weights[f"{name}.alpha"] = torch.tensor(float(rank))
    return net.weights


def _expert_block(net: Random, name: str, dim: int, ffn: int) -> None:
    for attention in ("self_attn", "cross_attn"):
        for projection in ("q", "k", "v", "o"):
            net.linear(f"{name}.{attention}.{projection}", dim, dim)
        net.ones(f"{name}.{attention}.norm_q.weight", dim)
        net.ones(f"{name}.{attention}.norm_k.weight", dim)
    net.ones(f"{name}.norm3.weight", dim)
    net.weights[f"{name}.norm3.bias"] = torch.zeros(dim)
    net.linear(f"{name}.ffn.0", dim, ffn)
    net.linear(f"{name}.ffn.2", ffn, dim)
    net.weight(f"{name}.modulation", 1, 6, dim)


def text_encoder(seed: int, width: int = 4096, ffn: int = 64, heads: int = 2, d_kv: int = 16, layers: int = 2) -> Weights:
    """State dict of a UMT5 encoder with its tokenizer; UMT5-XXL has ffn 10240, 64 heads of 64, 24 layers."""
    tokenizer = sentencepiece_model()
    vocabulary = sentencepiece.SentencePieceProcessor(model_proto=tokenizer).get_piece_size()
    net = Random(seed)
    net.weights["shared.weight"] = torch.randn((vocabulary, width), generator=net.generator)
    for block in range(layers):
        layer = f"encoder.block.{block}.layer"
        for projection in ("q", "k", "v"):
            net.weight(f"{layer}.0.SelfAttention.{projection}.weight", heads * d_kv, width)
        net.weight(f"{layer}.0.SelfAttention.o.weight", width, heads * d_kv)
        net.weights[f"{layer}.0.SelfAttention.relative_attention_bias.weight"] = torch.randn((32, heads), generator=net.generator)
        net.ones(f"{layer}.0.layer_norm.weight", width)
        net.weight(f"{layer}.1.DenseReluDense.wi_0.weight", ffn, width)
        net.weight(f"{layer}.1.DenseReluDense.wi_1.weight", ffn, width)
        net.weight(f"{layer}.1.DenseReluDense.wo.weight", width, ffn)
        net.ones(f"{layer}.1.layer_norm.weight", width)
    net.ones("encoder.final_layer_norm.weight", width)
    net.weights["spiece_model"] = torch.frombuffer(bytearray(tokenizer), dtype=torch.uint8)
    return net.weights


def sentencepiece_model() -> bytes:
    """A small unigram tokenizer with UMT5's special tokens: pad 0, end 1, unknown 2."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 20), model_writer=model, vocab_size=300, hard_vocab_limit=False, byte_fallback=True,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, num_threads=1)
    return model.getvalue()


def vae(seed: int, dim: int = 8) -> Weights:
    """State dict of the Wan 2.1 VAE, made by ComfyUI's own class; the official one has dim 96."""
    import comfy.ldm.wan.vae
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = comfy.ldm.wan.vae.WanVAE(dim=dim, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
                                       temperal_downsample=[False, True, True], dropout=0.0)
        for name, parameter in net.named_parameters():
            torch.nn.init.ones_(parameter) if name.endswith("gamma") else torch.nn.init.normal_(parameter, std=_fan_in(parameter) ** -0.5)
    return {name: tensor.detach().contiguous() for name, tensor in net.state_dict().items()}


def _fan_in(parameter: torch.nn.Parameter) -> int:
    return max(1, parameter.shape[1:].numel()) * (1 if parameter.ndim > 1 else 2500)


def fp8_scaled(weights: Weights, keep: str = "patch_embedding", marker: int = 2) -> Weights:
    """The fp8_scaled format: 2-D weights in float8_e4m3fn beside a float32 scale, the rest in fp16, and a `scaled_fp8` marker
    of two elements in diffusion models and none in text encoders.
    """
    scaled: Weights = {"scaled_fp8": torch.zeros(marker, dtype=torch.float8_e4m3fn)}
    for name, tensor in weights.items():
        if tensor.dtype == torch.uint8:
            scaled[name] = tensor
        elif tensor.ndim == 2 and name.endswith(".weight") and keep not in name and "relative_attention_bias" not in name:
            scale = tensor.abs().max() / torch.finfo(torch.float8_e4m3fn).max
            scaled[name] = (tensor / scale).to(torch.float8_e4m3fn)
            scaled[name.removesuffix("weight") + "scale_weight"] = scale.to(torch.float32)
        else:
            scaled[name] = tensor.to(torch.float16)
    return scaled
