"""The API on this ComfyUI: its queue, its models, its settings."""
