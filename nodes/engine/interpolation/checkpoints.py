"""Which interpolation network a state dict belongs to, told by its keys and shapes, and that network with the weights in it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from . import film, rife
from .archives import WANTED, Weights
from .film import Film, FilmShape
from .rife import Rife, RifeShape, Trunk

PREFIXES = ("module.", "flownet.")
TRAINING_ONLY = ("block_tea", "teacher.", "caltime.", "contextnet.", "unet.")  # the last two belong to a refinement that 4.0's inference leaves out
BLOCK = re.compile(r"^block(\d)\.")
FILM_CONVOLUTION = re.compile(r"\.(0|conv)\.(weight|bias)$")
SHOWN = 4

FOUR, FIVE, LITE_FIVE = (8, 4, 2, 1), (16, 8, 4, 2, 1), (32, 16, 8, 4, 1)
WIDE, LITE = (192, 128, 96, 64), (128, 96, 64, 48)
HEAD, SMALL_HEAD = (32, 32, 32, 8), (16, 16, 16, 4)
RIFE_VERSIONS = {
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
FILM_VERSIONS = {"film_net": FilmShape(64, (32, 64, 128, 256))}


@dataclass(frozen=True)
class Architecture:
    """What a file holds: its name for people, the network's shape, and the type of its weights."""

    name: str
    shape: RifeShape | FilmShape
    dtype: torch.dtype


def detect(weights: Mapping[str, torch.Tensor]) -> Architecture:
    """ValueError saying what was found, unless the weights are those of a published RIFE 4.x or FILM."""
    named = published_names(weights)
    families = (("RIFE", RIFE_VERSIONS, _rife_shape), ("FILM", FILM_VERSIONS, film.shape_of))
    for family, versions, shape_of in families:
        try:
            shape = shape_of(named)
        except (KeyError, IndexError):
            continue
        name = next((version for version, published in versions.items() if _same_weights(published, shape)), None)
        if name is None:
            raise ValueError(f"the weights are those of an unknown {family}: {shape}. Known are {family} {', '.join(versions)}.")
        return Architecture(f"{family} {name}", versions[name], next(iter(named.values())).dtype)
    raise ValueError(f"the file holds {len(weights)} tensors ({', '.join(list(weights)[:SHOWN])}, ...), which are neither RIFE 4.x nor FILM. "
                     f"Choose {WANTED}, for example rife_v4.26.safetensors or film_net_fp16.safetensors.")


def build(weights: Mapping[str, torch.Tensor], operations: Any) -> Rife | Film:
    """The network on the CPU in the file's type, ready for inference; `operations` has Conv2d and ConvTranspose2d, like torch.nn.

    ValueError where tensors are missing, left over or of the wrong shape.
    """
    architecture, named = detect(weights), published_names(weights)
    network_class, ours = _network_and_weights(architecture.shape, named)
    with torch.device("meta"):
        network = network_class(architecture.shape, operations)
    try:
        network.load_state_dict(ours, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the weights of {architecture.name} are incomplete or damaged: {error}. Fetch the file again.") from error
    return network.eval().requires_grad_(False)


def _network_and_weights(shape: RifeShape | FilmShape, named: Weights) -> tuple[Callable[..., Rife | Film], Weights]:
    return (Film, film.from_published(named, shape)) if isinstance(shape, FilmShape) else (Rife, rife.from_published(named, shape))


def published_names(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Without prefixes, parts used in training only, and the two styles of naming FILM's layers and RIFE's blocks."""
    named = {_without_prefixes(name): tensor for name, tensor in weights.items()}
    named = {name: tensor for name, tensor in named.items() if not name.startswith(TRAINING_ONLY)}
    if any(name.startswith("extract.") for name in named):
        return {FILM_CONVOLUTION.sub(r".\2", name): tensor for name, tensor in named.items()}
    layers = sorted({name.split(".")[1] for name in named if name.startswith("encode.")})
    order = {f"encode.{layer}.": f"encode.cnn{index}." for index, layer in enumerate(layers)}
    return {_renamed(BLOCK.sub(r"blocks.\1.", name), order): tensor for name, tensor in named.items()}


def _without_prefixes(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    return next((new + name.removeprefix(old) for old, new in prefixes.items() if name.startswith(old)), name)


def _rife_shape(named: Mapping[str, torch.Tensor]) -> RifeShape:
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


def _same_weights(published: RifeShape | FilmShape, shape: RifeShape | FilmShape) -> bool:
    return (replace(published, scales=()) if isinstance(published, RifeShape) else published) == shape
