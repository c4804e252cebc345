"""Which interpolation network a state dict belongs to, told by its keys and shapes, and that network with the weights in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .archives import WANTED
from .family import Family, Weights
from .film_files import FILM
from .rife_files import RIFE

FAMILIES = (FILM, RIFE)  # the short name of each, in lower case, stands for its official file in the loader's list
PREFIXES = ("module.", "flownet.")
TRAINING_ONLY = ("block_tea", "teacher.", "caltime.", "contextnet.", "unet.")  # the last two belong to a refinement that 4.0's inference leaves out
SHOWN = 4


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: its name for people, the network's family and shape, the weights under the published names, and their type."""

    name: str
    family: Family
    shape: Any
    weights: Weights = field(repr=False, compare=False)

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self.weights.values())).dtype

    def network(self, operations: Any) -> Any:
        """A stream.Network and torch.nn.Module on the CPU in the file's type, for inference; `operations` is like torch.nn.

        ValueError where tensors are missing, left over or of the wrong shape.
        """
        with torch.device("meta"):
            network = self.family.network(self.shape, operations)
        try:
            network.load_state_dict(self.family.from_published(self.weights, self.shape), assign=True)
        except RuntimeError as error:
            raise ValueError(f"the weights of {self.name} are incomplete or damaged: {error}. Fetch the file again.") from error
        return network.eval().requires_grad_(False)


def detect(weights: Mapping[str, torch.Tensor]) -> Checkpoint:
    """ValueError saying what the weights are, unless they are those of a published version of one of FAMILIES."""
    network_only = {name: tensor for key, tensor in weights.items() if not (name := _without_prefixes(key)).startswith(TRAINING_ONLY)}
    for family in FAMILIES:
        named = family.published_names(network_only)
        try:
            shape = family.shape_of(named)
        except (KeyError, IndexError):
            continue
        version = next((version for version, published in family.versions.items() if published == shape), None)
        if version is None:
            raise ValueError(f"the weights are those of an unknown {family.name}: {shape}. Known are {family.name} {', '.join(family.versions)}.")
        return Checkpoint(f"{family.name} {version}", family, family.versions[version], named)
    raise ValueError(f"the file holds {len(weights)} tensors ({', '.join(list(weights)[:SHOWN])}, ...), which belong to none of the networks "
                     f"{', '.join(family.name for family in FAMILIES)}. Choose {WANTED}, for example "
                     f"{' or '.join(family.official for family in FAMILIES)}.")


def _without_prefixes(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name
