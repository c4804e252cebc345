"""The one exception of this room."""


class LoraError(ValueError):
    """A LoRA file that cannot be applied; the text names the file, the tensor and what to do."""
