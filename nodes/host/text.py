"""Turn prompts into conditioning with a Wan CLIP, as the official text encoder does."""

import comfy.sd

from ..engine.text.cleaning import MAX_TOKENS, clean, printable, truncate
from .video.latents import PROMPT, Conditioning

TOKENIZER = "umt5xxl"


def encode(clip: comfy.sd.CLIP, prompt: str) -> Conditioning:
    """Conditioning of shape (1, 512, 4096): cleaned text, no (weight:1.2) syntax, 512 tokens, padding zeroed."""
    family = clip.tokenizer
    if getattr(family, "clip_name", None) != TOKENIZER:
        raise ValueError(f"this CLIP tokenizes for {', '.join(clip.tokenize(''))}, but Wan reads UMT5. "
                         "Use Wan 2.2 Text Encoder Loader, or CLIPLoader with type wan.")
    umt5 = getattr(family, family.clip)
    ids = truncate(umt5.tokenizer(clean(prompt))["input_ids"])  # the bare tokenizer: backslashes and "embedding:" are text as well
    padded = [*ids, *[umt5.pad_token] * (MAX_TOKENS - len(ids))]
    encoded = clip.encode_from_tokens_scheduled({TOKENIZER: [[(token, 1.0) for token in padded]]})
    return [(states, {**options, PROMPT: printable(clean(prompt))}) for states, options in encoded]
