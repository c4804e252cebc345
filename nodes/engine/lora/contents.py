"""What a file among the LoRAs is, when it is no LoRA for a text-to-video expert of Wan."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .families import Spellings, flat

I2V_ONLY = "I2V only"
I2V_CHANNELS = 36  # latent 16, first frame 16, mask 4
WAN_WIDTHS = {1536: "Wan 2.1 1.3B", 3072: "Wan 2.2 TI2V 5B", 5120: "Wan 14B"}
OWN_CODE = "which needs its own code"


@dataclass(frozen=True)
class Content:
    """Keys that match `pattern` belong to `what`; `reason` is its short name in the report; `refused`: beside them nothing makes sense alone."""

    pattern: re.Pattern[str]
    what: str
    reason: str = "unknown"
    refused: bool = False


CONTENTS = tuple(Content(re.compile(pattern), *facts) for pattern, *facts in (
    (r"_loras[._](?:down|up)\b", f"a Stand-In adapter, {OWN_CODE}", "Stand-In", True),
    (r"[._]reshape_weight$", "a control LoRA for another number of input channels", "control", True),
    (r"vace_(?:blocks|patch_embedding)", "a part of VACE, whose blocks a text-to-video expert does not have", "VACE"),
    (r"ip_adapter|ref_adapter", f"an image adapter (Lynx, FantasyPortrait), {OWN_CODE}", "image adapter"),
    (r"audio_(?:proj|injector|model|encoder)|(?:^|\.)proj_model\.", f"an adapter for sound (S2V, HuMo, MultiTalk), {OWN_CODE}", "audio"),
    (r"face_adapter|motion_encoder|pose_patch_embedding", f"a part of Wan Animate, {OWN_CODE}", "Animate"),
    (r"control_adapter|controlnet|control_blocks|cam_encoder|dwpose_embedding|ref_conv", f"a control adapter, {OWN_CODE}", "control"),
    (r"^(?:lora_te\d?_|text_encoders?\.|lora_prior_te_)", "a LoRA for the text encoder", "text encoder"),
    (r"^(?:emb_params|string_to_param.*|clip_[lg]|t5xxl|\*)$", "a textual inversion embedding (it belongs in models/embeddings)"),
    (r"(?:^|\.)(?:encoder\.)?block\.\d+\.layer\.|(?:^|\.)shared\.weight$", "a text encoder (it belongs in models/text_encoders)"),
    (r"^(?:first_stage_model\.|vae\.)|^(?:de|en)coder\.(?:conv|head|middle|upsamples|downsamples|mid_block|up_blocks|down_blocks)",
     "a VAE (it belongs in models/vae)"),
    (r"lora_unet_(?:input|output|middle|down|up|mid)_block|^unet\.(?:down|up|mid)_blocks", "a Stable Diffusion or SDXL LoRA"),
    (r"single_transformer_blocks|single_blocks", "a Flux or Hunyuan LoRA"),
    (r"double_blocks|joint_blocks", "a Flux, Hunyuan or SD3 LoRA"),
    (r"transformer_blocks", "a LoRA for Flux, LTX, Qwen-Image or another diffusers model"),
))
# Layers that only image-to-video experts have, in Wan's and in diffusers' names, with underscores for dots
I2V_LAYERS = re.compile(r"(?:^|_)(?:(?:cross_attn|attn2)_(?:k_img|v_img|norm_k_img|add_[qkv]_proj|to_add_out|norm_added_[qk])"
                        r"|img_emb|condition_embedder_image_embedder)_")


def reason_to_ignore(key: str) -> str:
    """The short name of what a key that fits no module belongs to, for the report."""
    if I2V_LAYERS.search(f"{flat(key)}_"):
        return I2V_ONLY
    return next((content.reason for content in CONTENTS if content.pattern.search(key)), "unknown")


def refused_content(keys: Collection[str]) -> str | None:
    """What the file is, where a part of it must not be put on alone."""
    return next((content.what for content in CONTENTS if content.refused and any(content.pattern.search(key) for key in keys)), None)


def content_of(keys: Collection[str], ignored: Mapping[str, Collection[str]], spellings: Spellings) -> str:
    """What a file is none of whose keys fits."""
    if ignored and set(ignored) <= {I2V_ONLY, "text encoder"}:
        return "a LoRA for the text encoder or I2V layers only"
    parameters = [key for key in keys if key.endswith((".weight", ".bias")) and spellings.resolve(key.rsplit(".", 1)[0])]
    if 2 * len(parameters) > len(keys):
        return "a whole checkpoint of Wan (it belongs in models/diffusion_models)"
    other = next((content.what for content in CONTENTS if any(content.pattern.search(key) for key in keys)), None)
    return other or f"no known LoRA of Wan (first key: {next(iter(keys), 'none')})"
