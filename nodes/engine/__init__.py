"""The computing half of the pack: torch, numpy and av only; nothing here knows that ComfyUI exists."""
