"""Where the official weight files come from: one table for error messages, help and workflows."""

_WAN22 = "https://huggingface.co/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"
_WAN21 = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
_REWARD = "https://huggingface.co/alibaba-pai/Wan2.2-Fun-Reward-LoRAs/resolve/main"
_DISTILLED = "https://huggingface.co/lightx2v/Wan2.2-Distill-Loras/resolve/main"
_INTERPOLATION = "https://huggingface.co/Comfy-Org/frame_interpolation/resolve/main/frame_interpolation"

SAFETENSORS = (".safetensors", ".sft")  # endings of such files, in lower case

DOWNLOADS: dict[str, dict[str, str]] = {
    "diffusion_models": {name: f"{_WAN22}/diffusion_models/{name}" for name in (
        "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors", "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors")},
    "text_encoders": {name: f"{_WAN21}/text_encoders/{name}" for name in (
        "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "umt5_xxl_fp16.safetensors")},
    "loras": {name: f"{_DISTILLED}/{name}" for name in (
        "wan2.2_t2v_A14b_high_noise_lora_rank64_lightx2v_4step_1217.safetensors",
        "wan2.2_t2v_A14b_low_noise_lora_rank64_lightx2v_4step_1217.safetensors")}
        | {name: f"{_WAN22}/loras/{name}" for name in (
            "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors", "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors")}
        | {name: f"{_REWARD}/{name}" for name in (
            "Wan2.2-Fun-A14B-InP-high-noise-HPS2.1.safetensors", "Wan2.2-Fun-A14B-InP-low-noise-HPS2.1.safetensors")},
    "frame_interpolation": {name: f"{_INTERPOLATION}/{name}" for name in (
        "rife_v4.26.safetensors", "rife_v4.26_heavy.safetensors", "rife_v4.25.safetensors", "rife_v4.25_lite.safetensors",
        "rife_v4.25_heavy.safetensors", "film_net_fp16.safetensors")},
    "LLM": {"Qwen2.5-3B-Instruct": "https://huggingface.co/Qwen/Qwen2.5-3B-Instruct"},
    "safety": {"nsfw_image_detection": "https://huggingface.co/Falconsai/nsfw_image_detection",
               "distilbert-nsfw-text-classifier": "https://huggingface.co/eliasalbouzidi/distilbert-nsfw-text-classifier"},
    "vae": {"wan_2.1_vae.safetensors": f"{_WAN22}/vae/wan_2.1_vae.safetensors"},
}


def missing_file(folder: str, name: str, url: str = "") -> str:
    """The message for a weight file that is not in models/`folder`: what, where, from where and what to do next.

    `url` is where it is said to come from; the official address of an official file counts more.
    """
    url = DOWNLOADS[folder].get(name, url)
    source = f"Download it from {url}" if url else "Official files: " + ", ".join(DOWNLOADS[folder].values())
    return f"'{name}' is not in models/{folder}. {source}, put it there and press R in ComfyUI to refresh the list."
