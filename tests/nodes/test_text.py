"""Prompts become the conditioning that the official text encoder would give."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file

import tiny_weights
from engine.text.umt5 import umt5_size


@pytest.fixture(scope="module")
def weights() -> tiny_weights.Weights:
    return tiny_weights.text_encoder(seed=11, layers=3)


def stored_as(weights: tiny_weights.Weights, form: str) -> tiny_weights.Weights:
    if form == "fp8_scaled":
        return tiny_weights.fp8_scaled(weights, keep="shared", marker=0)
    return {name: tensor.half() if form == "fp16" and tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def meant(stored: tiny_weights.Weights) -> tiny_weights.Weights:
    """The float32 weights that a file stands for: scales multiplied in, tokenizer and markers left out."""
    scales = {name.removesuffix("scale_weight") + "weight": tensor for name, tensor in stored.items() if name.endswith("scale_weight")}
    return {name: tensor.float() * scales.get(name, 1.0) for name, tensor in stored.items()
            if name not in ("spiece_model", "scaled_fp8") and not name.endswith("scale_weight")}


@pytest.fixture(scope="module", params=["fp32", "fp16", "fp8_scaled"])
def loaded(request: pytest.FixtureRequest, pack: ModuleType, models: Path, weights: tiny_weights.Weights) -> Iterator[tuple[Any, str]]:
    """The CLIP of a file in one of the formats users have, and the name of that format."""
    file = models / "text_encoders" / f"{request.param}.safetensors"
    save_file(stored_as(weights, request.param), file)
    yield pack.nodes.host.models.files.load_text_encoder(file.name, "cpu"), request.param
    file.unlink()


@pytest.fixture
def clip(loaded: tuple[Any, str]) -> Any:
    return loaded[0]


def encode(pack: ModuleType, clip: Any, prompt: str) -> torch.Tensor:
    ((conditioning, _),) = pack.nodes.host.text.encode(clip, prompt)
    return conditioning


def reference(weights: tiny_weights.Weights, spiece_model: torch.Tensor, prompt: str, dtype: torch.dtype) -> torch.Tensor:
    """Hugging Face's UMT5 encoder on the same weights, computed in `dtype`, padded to 512 with the padding zeroed, as wan/modules/t5.py does."""
    from transformers import UMT5Config, UMT5EncoderModel
    size = umt5_size({name: tuple(tensor.shape) for name, tensor in weights.items()} | {"spiece_model": (1,)}, "tiny")
    with torch.device("meta"):  # the weights come from the file
        model = UMT5EncoderModel(UMT5Config(**size.as_config(), dropout_rate=0.0, feed_forward_proj="gated-gelu")).eval()
    model.load_state_dict(weights | {"encoder.embed_tokens.weight": weights["shared.weight"]}, assign=True)
    model.to(dtype)
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=spiece_model.numpy().tobytes(), add_eos=True)
    ids = tokenizer.encode(prompt)
    ids = ids if len(ids) <= 512 else [*ids[:511], 1]
    mask = torch.zeros(1, 512, dtype=torch.long)
    mask[:, : len(ids)] = 1
    padded = torch.tensor([[*ids, *[0] * (512 - len(ids))]])
    with torch.no_grad():
        return model(padded, mask).last_hidden_state * mask[..., None]


PROMPTS = ["a red circle moves to the left", "a (red:1.3) circle, ((slowly))", r"a circle \(red\)", "a cat embedding:style", "", "two cats " * 600]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_conditioning_is_the_reference_encoders(pack: ModuleType, loaded: tuple[Any, str], weights: tiny_weights.Weights, prompt: str) -> None:
    """As near to its result in float64 as twice its own result in float32, in which core computes, whatever the file's type."""
    clip, form = loaded
    ours = encode(pack, clip, prompt)
    exact, theirs = (reference(meant(stored_as(weights, form)), weights["spiece_model"], prompt.strip(), dtype)
                     for dtype in (torch.float64, torch.float32))
    assert ours.shape == (1, 512, 4096)
    assert (ours - exact).norm() <= 2 * (theirs - exact).norm() < 1e-4 * exact.norm()


def test_white_space_and_entities_make_no_difference(pack: ModuleType, clip: Any) -> None:
    assert torch.equal(encode(pack, clip, "  cats &amp; dogs\n\nplay "), encode(pack, clip, "cats & dogs play"))


def test_parentheses_are_text(pack: ModuleType, clip: Any) -> None:
    """With weight syntax, both would be the same tokens at other weights."""
    plain, weighted = encode(pack, clip, "a red circle"), encode(pack, clip, "a (red:1.0) circle")
    assert (weighted[0].abs().sum(-1) > 0).sum() > (plain[0].abs().sum(-1) > 0).sum()


def test_another_models_clip_is_refused(pack: ModuleType) -> None:
    class OtherClip:
        tokenizer = None

        def tokenize(self, text: str, **_: Any) -> dict[str, list]:
            return {"l": [[]], "g": [[]]}

    with pytest.raises(ValueError, match="tokenizes for l, g, but Wan reads UMT5"):
        pack.nodes.host.text.encode(OtherClip(), "a cat")
