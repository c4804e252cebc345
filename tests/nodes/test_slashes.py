"""Workflows travel between systems: in every combo of files or folders a name is found with either slash."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SEPARATORS = ["/", "\\"]
CALLS = {  # a function that finds what a combo names, by the folder below models/
    "diffusion_models": ("host.models.files", "model_path"), "text_encoders": ("host.models.files", "model_path"),
    "frame_interpolation": ("host.models.files", "model_path"), "loras": ("host.models.lora", "lora_path"),
    "LLM": ("host.models.pretrained", "folder_of"), "safety": ("host.models.pretrained", "folder_of")}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A models folder with a file, or a whole network, two levels deep in each of them."""
    import folder_paths
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    for folder in CALLS:
        network = tmp_path / folder / "maker" / "network"
        network.mkdir(parents=True)
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            (network / name).touch()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, ([str(tmp_path / folder)], {".safetensors"}))
        folder_paths.filename_list_cache.pop(folder, None)
    yield tmp_path
    for folder in CALLS:
        folder_paths.filename_list_cache.pop(folder, None)


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("folder", CALLS)
def test_either_slash_finds_what_is_there(pack: ModuleType, root: Path, folder: str, separator: str) -> None:
    module, function = CALLS[folder]
    call = getattr(importlib.import_module(f"{pack.__name__}.nodes.{module}"), function)
    if function == "folder_of":
        path = call(folder, separator.join(["maker", "network"]), True)
        assert path == root / folder / "maker" / "network"
        return
    name = separator.join(["maker", "network", "model.safetensors"])
    path = call(name) if function == "lora_path" else call(folder, name)
    assert path == root / folder / "maker" / "network" / "model.safetensors"
