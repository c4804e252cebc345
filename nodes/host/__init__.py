"""The one place that talks to ComfyUI: models, sampling, video files and messages."""
