"""Reading weight files of every kind that interpolation networks come in, without running anything that is in them."""

import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..model_files import SAFETENSORS
from .family import Weights

WANTED = "a .safetensors, .pth, .pt or .pkl file with the weights of an interpolation network"
STORAGES = {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16, "DoubleStorage": torch.float64,
            "LongStorage": torch.int64, "IntStorage": torch.int32, "BoolStorage": torch.bool}
READING_ERRORS = (OSError, RuntimeError, ValueError, KeyError, IndexError, EOFError, AttributeError, TypeError, ImportError, UnicodeDecodeError,
                  pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError)  # what a damaged file makes the safe readers raise


def read(path: Path) -> Weights:
    """Every tensor of the file by name, on the CPU; ValueError for a missing, damaged or foreign file."""
    try:
        weights = _reader(path)(path)
    except READING_ERRORS as error:
        size = f"{path.stat().st_size:,} bytes" if path.is_file() else "missing"
        first_line = str(error).partition("\n")[0][:200]
        raise ValueError(f"{path.name} ({size}) cannot be read as a weight file: {type(error).__name__}: {first_line}. "
                         f"Fetch the file again, or choose {WANTED}.") from error
    if not weights:
        raise ValueError(f"{path.name} holds no tensors. Choose {WANTED}.")
    return weights


def _reader(path: Path) -> Any:
    if path.suffix.lower() in SAFETENSORS:
        return load_file
    return read_torchscript if zipfile.is_zipfile(path) and _is_torchscript(path) else _read_pickle


def _read_pickle(path: Path) -> Weights:
    content = torch.load(path, map_location="cpu", weights_only=True)
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, torch.Tensor)}


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> Weights:
    """The parameters of a TorchScript file by name. Its code stays unread: the pickle beside it rebuilds plain records and tensors only."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(name) as file:
            module = _ScriptUnpickler(file, archive, name.removesuffix(".pkl")).load()
    return module.tensors()


class _Record:
    """A TorchScript module as data: the attributes that it was saved with."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state

    def tensors(self, prefix: str = "") -> Weights:
        weights: Weights = {}
        for name, value in self.attributes.items():
            if isinstance(value, torch.Tensor):
                weights[prefix + name] = value
            elif isinstance(value, _Record):
                weights |= value.tensors(f"{prefix}{name}.")
        return weights


class _ScriptUnpickler(pickle.Unpickler):
    """Knows tensors, their storages and records; whatever else a file asks for is an error."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Record
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        allowed = {("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor, ("collections", "OrderedDict"): collections.OrderedDict}
        if (module, name) in allowed:
            return allowed[module, name]
        if module == "torch.jit._pickle":
            return _as_is
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which no weight file needs")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        _, dtype, key, _, _ = pid
        return torch.frombuffer(bytearray(self.archive.read(f"{self.folder}/{key}")), dtype=dtype)


def _rebuild_tensor(storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> torch.Tensor:
    return storage.as_strided(size, stride, offset)


def _as_is(value: Any, *_: Any) -> Any:
    return value
