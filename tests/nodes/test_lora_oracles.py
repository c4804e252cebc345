"""LoKr, LoHa, DoRA and rank-stabilised LoRA against the packages that train them, `lycoris-lora` and `peft`."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import lora_files
from lora_files import weight

MODULE = "blocks.0.ffn.0"
TOLERANCE = 1e-12


@pytest.fixture
def linear(experts: tuple[Any, Any]) -> torch.nn.Linear:
    """A plain torch layer with the weights of one of the expert's, in float64."""
    wan = experts[0].model.diffusion_model.blocks[0].ffn[0]
    layer = torch.nn.Linear(wan.in_features, wan.out_features, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(wan.weight)
        layer.bias.copy_(wan.bias)
    return layer


@pytest.fixture
def apply(pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experts: tuple[Any, Any]) -> Callable[..., torch.Tensor]:
    """The module's weight after our reader has put a file with these tensors on the expert."""
    import folder_paths
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    folder_paths.filename_list_cache.pop("loras", None)
    host = importlib.import_module(f"{pack.__name__}.nodes.host.models.lora")
    routing = importlib.import_module(f"{pack.__name__}.nodes.engine.lora.routing")

    def run(tensors: lora_files.Tensors, metadata: dict[str, str] | None = None) -> torch.Tensor:
        save_file({key: tensor.detach().float().contiguous() for key, tensor in tensors.items()}, tmp_path / "file.safetensors", metadata=metadata)
        return weight(host.apply(*experts, [routing.LoraChoice("file.safetensors")])[0], f"{MODULE}.weight")

    return run


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """In float64, with parameters that a file in float32 holds without loss."""
    module.double()
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "dora" in name or "magnitude" in name:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) + 0.5)
            elif "org_module" not in name and "base_layer" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
            parameter.copy_(parameter.float())
    return module


@pytest.mark.parametrize(("kind", "options"), [
    ("lokr.LokrModule", {"factor": 4}), ("lokr.LokrModule", {"factor": 4, "decompose_both": True}), ("lokr.LokrModule", {"full_matrix": True}),
    ("loha.LohaModule", {}), ("locon.LoConModule", {}),
    ("loha.LohaModule", {"weight_decompose": True, "wd_on_out": True}), ("loha.LohaModule", {"weight_decompose": True, "wd_on_out": False}),
    ("locon.LoConModule", {"weight_decompose": True, "wd_on_out": True}), ("locon.LoConModule", {"weight_decompose": True, "wd_on_out": False}),
    ("lokr.LokrModule", {"factor": 4, "weight_decompose": True, "wd_on_out": True}),
], ids=str)
def test_lycoris(linear: torch.nn.Linear, apply: Callable[..., torch.Tensor], kind: str, options: dict[str, Any]) -> None:
    """alpha equals the rank: LyCORIS 4.1 scales LoHa and LoKr twice in get_diff_weight, and only there."""
    file, name = kind.split(".")
    module: Any = randomised(getattr(importlib.import_module(f"lycoris.modules.{file}"), name)("lycoris", linear, 1.0, 2, 2.0, **options))
    theirs, _ = module.get_merged_weight(1.0)
    prefix = "lycoris_" + MODULE.replace(".", "_")
    ours = apply({f"{prefix}.{key}": tensor for key, tensor in module.state_dict().items() if "org_module" not in key})
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}, {"use_dora": True, "use_rslora": True}], ids=str)
def test_peft(linear: torch.nn.Linear, apply: Callable[..., torch.Tensor], options: dict[str, bool]) -> None:
    import peft
    root = torch.nn.Sequential()
    inner = root
    for part in MODULE.split(".")[:-1]:
        inner.add_module(part, torch.nn.Sequential())
        inner = getattr(inner, part)
    inner.add_module("0", linear)
    model = peft.get_peft_model(root, peft.LoraConfig(r=4, lora_alpha=2, target_modules=[MODULE], **options))
    randomised(model)
    tensors = peft.get_peft_model_state_dict(model)
    metadata = {"lora_adapter_metadata": json.dumps({"lora_alpha": 2, "use_rslora": options.get("use_rslora", False)})}
    ours = apply(tensors, metadata)
    theirs = model.merge_and_unload().get_submodule(MODULE).weight
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=TOLERANCE)
