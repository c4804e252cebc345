"""What a weight file is, told from its safetensors header alone: no tensor is read."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

Shape = tuple[int, ...]

T2V_CHANNELS = 16
OTHER_WAN_MODELS = {
    36: "an image-to-video (I2V) expert",
    48: "the 5B TI2V model, which is a single model with its own VAE",
}
VARIANT_KEYS = {
    "vace_patch_embedding.weight": "a VACE model",
    "control_adapter.conv.weight": "a camera-control model",
    "face_adapter.fuser_blocks.0.k_norm.weight": "an Animate model",
    "casual_audio_encoder.encoder.final_linear.weight": "a speech-to-video (S2V) model",
    "audio_proj.audio_proj_glob_1.layer.bias": "a HuMo model",
    "img_emb.proj.0.bias": "an image-to-video (I2V) model",
}
OTHER_FILES = (
    ("encoder.block.0.layer.0.SelfAttention.q.weight", "a text encoder (it belongs in models/text_encoders)"),
    ("decoder.head.0.gamma", "a VAE (it belongs in models/vae)"),
    ("lora_down.weight", "a LoRA (it belongs in models/loras)"),
    ("lora_A.weight", "a LoRA (it belongs in models/loras)"),
    ("lora_A.default.weight", "a LoRA (it belongs in models/loras)"),
    ("double_blocks.0.img_attn.qkv.weight", "a Flux or Hunyuan model"),
    ("input_blocks.0.0.weight", "a Stable Diffusion checkpoint"),
)
SAMPLES, SAMPLE_BYTES = 16, 65536


class CheckpointError(ValueError):
    """A weight file that cannot be used where it was put."""


def safetensors_shapes(path: Path) -> dict[str, Shape]:
    """Shape of every tensor in the file; CheckpointError when the file is missing, truncated or no safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (SafetensorError, OSError) as error:
        size = f"{path.stat().st_size:,} bytes" if path.exists() else "missing"
        raise CheckpointError(f"{path.name} ({size}) is not a complete safetensors file: {error}. "
                              "The download was probably cut off: fetch the file again.") from error


def check_t2v_expert(shapes: Mapping[str, Shape], name: str) -> None:
    """CheckpointError saying what `name` really is, unless it is a Wan text-to-video transformer with 16 input channels."""
    patch_embedding = next((shape for key, shape in shapes.items() if key.endswith("patch_embedding.weight")
                            and not key.endswith("vace_patch_embedding.weight")), None)
    if patch_embedding is None or not any(key.endswith("head.modulation") for key in shapes):
        raise CheckpointError(f"{name} is not a Wan diffusion model: it is {_foreign_file(shapes)}. "
                              "Choose a Wan 2.2 T2V A14B expert, for example wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors.")
    variant = next((what for key, what in VARIANT_KEYS.items() if any(k.endswith(key) for k in shapes)), None)
    channels = patch_embedding[1]
    if variant is None and channels != T2V_CHANNELS:
        variant = OTHER_WAN_MODELS.get(channels, "a Wan variant")
    if variant is not None:
        raise CheckpointError(f"{name} is {variant}: it takes {channels} input channels, a text-to-video expert takes {T2V_CHANNELS}. "
                              "Choose a Wan 2.2 T2V A14B expert (its file name says t2v).")


def _foreign_file(shapes: Mapping[str, Shape]) -> str:
    matches = (what for ending, what in OTHER_FILES if any(key.endswith(ending) for key in shapes))
    return next(matches, "some other network")


def same_content(first: Path, second: Path) -> bool:
    """True when both files have one size and equal bytes at sixteen places spread over it; two different experts never do."""
    if first.samefile(second):
        return True
    size = first.stat().st_size
    if size != second.stat().st_size:
        return False
    with first.open("rb") as a, second.open("rb") as b:
        for position in range(0, size, max(1, size // SAMPLES)):
            a.seek(position)
            b.seek(position)
            if a.read(SAMPLE_BYTES) != b.read(SAMPLE_BYTES):
                return False
    return True
