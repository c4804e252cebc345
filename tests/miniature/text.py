"""A fixed UMT5 encoder that needs no training: every token carries its own word, and its neighbours' words in subspaces of their own.

Whether "blue" is the colour of the circle or of the background, the next token knows; two layers of heads that look at fixed distances bring
it along. Only the first USED of the 4096 coordinates are other than 0, so that experts train on the short states and are padded at export.
"""

import io
from collections.abc import Iterable, Sequence
from functools import cache

import sentencepiece
import torch

from miniature.scenes import examples

WIDTH, USED, HEADS, HEAD_WIDTH, FFN = 4096, 512, 4, 16, 32
LOOKS_AT = ((-1, 1, -2, 2), (-1, 1, -3, 3))  # distance in tokens, by layer and head
FOCUS, NEIGHBOUR_GAIN = 12.0, 0.5
TOKENS = 512  # Wan pads every prompt to this
LONGEST = 28
Weights = dict[str, torch.Tensor]


@cache
def tokenizer() -> sentencepiece.SentencePieceProcessor:
    """A byte-pair model in which every word of the captions is one piece; upper and lower case are the same; pad 0, end 1, unknown 2."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([example.caption for example in examples(4000, seed=1)]), model_writer=model, model_type="bpe", vocab_size=250,
        normalization_rule_name="nmt_nfkc_cf", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, num_threads=1)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue(), add_eos=True)


def encoder(seed: int) -> Weights:
    """State dict of the UMT5 encoder with its tokenizer, float32, in the layout of the official file."""
    draw = torch.Generator().manual_seed(seed)

    def random(rows: int, columns: int, gain: float) -> torch.Tensor:
        return torch.randn(rows, columns, generator=draw) * gain

    inner = HEADS * HEAD_WIDTH
    weights = {"shared.weight": _padded(random(tokenizer().get_piece_size(), USED, 1.0), columns=WIDTH)}
    loud = (WIDTH / USED) ** 0.5  # what the norm makes of the used coordinates
    for block, distances in enumerate(LOOKS_AT):
        layer = f"encoder.block.{block}.layer"
        attention = f"{layer}.0.SelfAttention"
        for part in ("q", "k"):
            weights[f"{attention}.{part}.weight"] = _padded(random(inner, USED, 0.3 / USED**0.5 / loud), columns=WIDTH)
        weights[f"{attention}.v.weight"] = _padded(random(inner, USED, 1 / USED**0.5 / loud), columns=WIDTH)
        weights[f"{attention}.o.weight"] = _padded(random(USED, inner, NEIGHBOUR_GAIN / HEAD_WIDTH**0.5), rows=WIDTH)
        weights[f"{attention}.relative_attention_bias.weight"] = _look_at(distances)
        for part in ("wi_0", "wi_1"):
            weights[f"{layer}.1.DenseReluDense.{part}.weight"] = _padded(random(FFN, USED, 1 / USED**0.5 / loud), columns=WIDTH)
        weights[f"{layer}.1.DenseReluDense.wo.weight"] = _padded(random(USED, FFN, 0.3 / FFN**0.5), rows=WIDTH)
        weights |= {f"{layer}.{part}.layer_norm.weight": torch.ones(WIDTH) for part in (0, 1)}
    weights["encoder.final_layer_norm.weight"] = torch.full((WIDTH,), 1 / loud)
    weights["spiece_model"] = torch.frombuffer(bytearray(tokenizer().serialized_model_proto()), dtype=torch.uint8)
    return weights


def _padded(tensor: torch.Tensor, rows: int = 0, columns: int = 0) -> torch.Tensor:
    return torch.nn.functional.pad(tensor, (0, max(0, columns - tensor.shape[1]), 0, max(0, rows - tensor.shape[0])))


def _look_at(distances: Sequence[int]) -> torch.Tensor:
    """Relative attention bias (32 buckets, heads): below 8 a distance has a bucket of its own, in the second half for tokens behind."""
    bias = torch.zeros(32, len(distances))
    for head, distance in enumerate(distances):
        bias[abs(distance) + (16 if distance > 0 else 0), head] = FOCUS
    return bias


class ShortStates:
    """Text states (tokens, USED) of captions, without the padding and the coordinates that are 0, from ComfyUI's own T5."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        import comfy.ops
        import comfy.text_encoders.t5
        config = {"d_ff": FFN, "d_kv": HEAD_WIDTH, "d_model": WIDTH, "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True,
                  "model_type": "umt5", "num_heads": HEADS, "num_layers": len(LOOKS_AT), "vocab_size": len(weights["shared.weight"])}
        self.device = device
        self.net = comfy.text_encoders.t5.T5(config, torch.float32, device, comfy.ops.disable_weight_init)
        self.net.load_state_dict({name: tensor.float() for name, tensor in weights.items() if name != "spiece_model"})

    @torch.no_grad()
    def of(self, captions: Sequence[str]) -> torch.Tensor:
        """float16 (N, LONGEST, USED), zeros behind each caption's end; ValueError for a caption of more than LONGEST tokens."""
        ids = [tokenizer().encode(text) for text in captions]
        longest = max(map(len, ids))
        if longest > LONGEST:
            raise ValueError(f"a caption has {longest} tokens; the miniature trains on up to {LONGEST}.")
        states = torch.zeros(len(ids), LONGEST, USED, dtype=torch.float16)
        for same in _chunks(sorted(range(len(ids)), key=lambda index: len(ids[index])), ids):
            tokens = torch.tensor([ids[index] for index in same], device=self.device)
            states[same, : tokens.shape[1]] = self.net(tokens, None)[0][..., :USED].half().cpu()
        return states


def _chunks(order: Sequence[int], ids: Sequence[Sequence[int]], at_once: int = 128) -> Iterable[list[int]]:
    """Runs of captions of one length, so that no padding is computed."""
    chunk: list[int] = []
    for index in order:
        if chunk and (len(ids[chunk[0]]) != len(ids[index]) or len(chunk) == at_once):
            yield chunk
            chunk = []
        chunk.append(index)
    if chunk:
        yield chunk
