"""Turn prompts into conditioning with a Wan CLIP, as the official text encoder does."""

from typing import Any

import comfy.sd

from ..engine.text.cleaning import clean, truncate

TOKENIZER = "umt5xxl"
Conditioning = list[tuple[Any, dict[str, Any]]]


def encode(clip: comfy.sd.CLIP, prompt: str) -> Conditioning:
    """Conditioning of shape (1, 512, 4096): cleaned text, no (weight:1.2) syntax, 512 tokens, padding zeroed."""
    tokens = clip.tokenize(clean(prompt), disable_weights=True)
    if set(tokens) != {TOKENIZER}:
        raise ValueError(f"this CLIP tokenizes for {', '.join(tokens)}, but Wan reads UMT5. "
                         "Use Wan 2.2 Text Encoder Loader, or CLIPLoader with type wan.")
    (sequence,) = tokens[TOKENIZER]
    ids = truncate([token for token, _ in sequence])
    return clip.encode_from_tokens_scheduled({TOKENIZER: [[(token, 1.0) for token in ids]]})
