"""FILM's files: how one is recognised, and its weights under the names of our network."""

import re
from collections.abc import Iterator, Mapping

import torch
from einops import einsum

from .family import Family, Weights
from .film import Film, FilmShape

CONVOLUTION = re.compile(r"\.(0|conv)\.(weight|bias)$")
DOUBLING = ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0))  # nearest doubling, then two taps: which taps reach a pixel from before, at and after it


def published_names(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Without the two ways of naming a convolution and its activation."""
    return {CONVOLUTION.sub(r".\2", name): tensor for name, tensor in weights.items()}


def shape_of(published: Mapping[str, torch.Tensor]) -> FilmShape:
    """From a state dict under the published layer names; KeyError where one is missing."""
    extracted = {name.split(".")[3] for name in published if name.startswith("extract.")}
    special = {name.split(".")[2] for name in published if name.startswith("predict_flow._predictors.")}
    widths = [published[f"predict_flow._predictors.{index}._convs.0.weight"].shape[0] for index in range(len(special))]
    shared = published["predict_flow._predictor._convs.0.weight"].shape[0]
    return FilmShape(published["extract.extract_sublevels.convs.0.0.weight"].shape[0], (*reversed(widths), shared), len(extracted))


def from_published(published: Mapping[str, torch.Tensor], shape: FilmShape) -> Weights:
    """The weights under our names: flow predictors' first layers in halves, doubling and convolution as one kernel."""
    return {name: tensor for layer, weight in published.items() for name, tensor in _ours(layer, weight, shape)}


def _ours(name: str, tensor: torch.Tensor, shape: FilmShape) -> Iterator[tuple[str, torch.Tensor]]:
    special = len(shape.predictors) - 1
    match name.split("."):
        case ["extract", "extract_sublevels", "convs", level, index, kind]:
            yield f"extract.levels.{level}.{2 * int(index)}.{kind}", tensor
        case ["predict_flow", "_predictor", "_convs", index, kind]:
            yield from _predictor_layer(special, int(index), kind, tensor)
        case ["predict_flow", "_predictors", order, "_convs", index, kind]:
            yield from _predictor_layer(special - 1 - int(order), int(index), kind, tensor)
        case ["fuse", "convs", order, index, kind]:
            layer = ("up", "mix", "last")[int(index)]
            yield f"fuse.{shape.depth - 1 - int(order)}.{layer}.{kind}", doubling(tensor) if (layer, kind) == ("up", "weight") else tensor
        case ["fuse", "output_conv", kind]:
            yield f"output.{kind}", tensor
        case _:
            yield name, tensor


def _predictor_layer(level: int, index: int, kind: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    layer = ("own", "hidden.0", "hidden.1", "hidden.2", "flow")[index]
    if (layer, kind) == ("own", "weight"):
        own, other = tensor.chunk(2, 1)
        yield f"predict.{level}.own.weight", own
        yield f"predict.{level}.other.weight", other
    else:
        yield f"predict.{level}.{layer}.{kind}", tensor


def doubling(kernel: torch.Tensor) -> torch.Tensor:
    """A 2 x 2 kernel (out, in, 2, 2) applied after nearest doubling, as one transposed kernel (in, out, 3, 3) of stride 2."""
    taps = torch.tensor(DOUBLING)
    return einsum(taps, taps, kernel.float(), "row y, column x, after before y x -> before after row column").to(kernel.dtype)


FILM = Family("FILM", "film_net_fp16.safetensors", {"film_net": FilmShape(64, (32, 64, 128, 256))}, published_names, shape_of, from_published, Film)
