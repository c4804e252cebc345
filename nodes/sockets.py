"""The pack's own socket types: only what no socket of ComfyUI can carry."""

from comfy_api.latest import io

LoraStack = io.Custom("WAN22_LORAS")  # tuple[LoraChoice, ...]
