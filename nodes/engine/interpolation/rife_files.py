"""RIFE's files: the published versions, how they are told apart, and the weights under the names of our network."""

import re
from collections.abc import Mapping

import torch

from .family import Family, Weights
from .rife import Rife, RifeShape, Trunk

BLOCK = re.compile(r"^block(\d)\.")

FOUR, FIVE, LITE_FIVE = (8, 4, 2, 1), (16, 8, 4, 2, 1), (32, 16, 8, 4, 1)
WIDE, LITE = (192, 128, 96, 64), (128, 96, 64, 48)
HEAD, SMALL_HEAD = (32, 32, 32, 8), (16, 16, 16, 4)
VERSIONS = {
    "4.0 or 4.1": RifeShape(WIDE, FOUR, Trunk.PRELU, outputs=5),
    "4.2 to 4.4": RifeShape(WIDE, FOUR, Trunk.LEAKY, outputs=5),
    "4.5": RifeShape(WIDE, FOUR, outputs=5),
    "4.6": RifeShape(WIDE, FOUR),
    "4.7 to 4.9": RifeShape(WIDE, FOUR, encoder=(16, 4)),
    "4.10 to 4.19 or 4.24": RifeShape(WIDE, FOUR, encoder=HEAD),
    "4.12 lite or 4.13 lite": RifeShape(LITE, FOUR, encoder=(32, 32, 32, 4)),
    "4.14 lite": RifeShape(WIDE, FOUR, encoder=HEAD, groups=2),
    "4.15 lite to 4.17 lite": RifeShape(LITE, FOUR, encoder=SMALL_HEAD),
    "4.20": RifeShape((384, 192, 96, 48), FOUR, encoder=HEAD),
    "4.21 to 4.23": RifeShape((256, 192, 96, 48), FOUR, encoder=HEAD, outputs=13),
    "4.22 lite": RifeShape((192, 128, 64, 32), FOUR, encoder=SMALL_HEAD, outputs=13),
    "4.25 or 4.26": RifeShape((*WIDE, 32), FIVE, encoder=SMALL_HEAD, outputs=13),
    "4.25 lite": RifeShape((*WIDE, 24), LITE_FIVE, encoder=SMALL_HEAD, outputs=13),
    "4.25 heavy": RifeShape((384, 256, 192, 128, 64), FIVE, encoder=SMALL_HEAD, outputs=13),
    "4.26 heavy": RifeShape((*WIDE, 32), FIVE, encoder=(16, 16, 16, 16), outputs=13),
}


def published_names(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Without the two ways of numbering blocks, and with the encoder's layers in their order."""
    layers = sorted({name.split(".")[1] for name in weights if name.startswith("encode.")})
    order = {f"encode.{layer}.": f"encode.cnn{index}." for index, layer in enumerate(layers)}
    return {_renamed(BLOCK.sub(r"blocks.\1.", name), order): tensor for name, tensor in weights.items()}


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    return next((new + name.removeprefix(old) for old, new in prefixes.items() if name.startswith(old)), name)


def shape_of(named: Mapping[str, torch.Tensor]) -> RifeShape:
    """All but the scales, which no shape tells; KeyError where a layer is missing."""
    count = len({name.split(".")[1] for name in named if name.startswith("blocks.")})
    channels = tuple(named[f"blocks.{index}.conv0.1.0.weight"].shape[0] for index in range(count))
    layers = sorted(name for name in named if name.startswith("encode.") and name.endswith(".bias"))
    encoder = tuple(named[name].shape[0] for name in layers)
    if "blocks.0.convblock.0.beta" in named:
        grouped = named["blocks.0.convblock.0.conv.weight"].shape[1]
        return RifeShape(channels, (), Trunk.RESIDUAL, encoder, named["blocks.0.lastconv.0.bias"].shape[0] // 4, channels[0] // grouped)
    trunk = Trunk.PRELU if "blocks.0.conv0.0.1.weight" in named else Trunk.LEAKY
    return RifeShape(channels, (), trunk, encoder, named["blocks.0.lastconv.bias"].shape[0])


def from_published(published: Mapping[str, torch.Tensor], shape: RifeShape) -> Weights:
    """The weights without the output channels that nothing reads."""
    ours = dict(published)
    if shape.trunk is Trunk.RESIDUAL:
        for index, outputs in enumerate(shape.used_outputs):
            layer = f"blocks.{index}.lastconv.0"
            ours[f"{layer}.weight"] = ours[f"{layer}.weight"][:, : 4 * outputs]
            ours[f"{layer}.bias"] = ours[f"{layer}.bias"][: 4 * outputs]
    return ours


RIFE = Family("RIFE", "rife_v4.26.safetensors", VERSIONS, published_names, shape_of, from_published, Rife)
