"""What each kind of interpolation network brings, so that its files are recognised and built like those of the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Family:
    """A kind of network: its name, the official file, and the shape of each published version.

    `published_names` brings the spellings of a file's keys to one; it is given any file. `shape_of` reads the shape from weights with these names and
    raises KeyError or IndexError where they are another family's. `from_published` gives them the names of our `network`, which is made from
    a shape and `operations`.
    """

    name: str
    official: str
    versions: Mapping[str, Any]
    published_names: Callable[[Mapping[str, torch.Tensor]], Weights]
    shape_of: Callable[[Weights], Any]
    from_published: Callable[[Weights, Any], Weights]
    network: type[torch.nn.Module]
