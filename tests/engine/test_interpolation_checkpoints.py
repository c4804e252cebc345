"""Every file that holds RIFE or FILM is read, whoever packed it; any other gets an error that says what it is."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import interpolation_oracles as oracles
from engine.interpolation.archives import read
from engine.interpolation.checkpoints import detect
from engine.interpolation.film import FilmShape


@pytest.fixture
def rife_weights() -> dict[str, torch.Tensor]:
    return dict(oracles.rife("4.22.lite").state_dict())


@pytest.mark.parametrize("style", ["block0 bare", "module.", "module.flownet.", "Comfy-Org's blocks.0", "with parts for training"])
def test_a_rife_is_the_same_whoever_packed_it(style: str, rife_weights: dict[str, torch.Tensor]) -> None:
    packed = rife_weights
    if style.endswith("."):
        packed = {style + name: tensor for name, tensor in rife_weights.items()}
    elif "blocks" in style:
        packed = {name.replace("block", "blocks.", 1) if name.startswith("block") else name: tensor for name, tensor in rife_weights.items()}
    elif "training" in style:
        packed = {**rife_weights, "teacher.a": torch.zeros(1), "caltime.b": torch.zeros(1), "block_tea.conv0.0.0.weight": torch.zeros(1)}
    for ours, theirs in zip(detect(packed).network(torch.nn).parameters(), detect(rife_weights).network(torch.nn).parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("ending", ["safetensors", "pth", "pkl", "pt"])
def test_every_kind_of_file_is_read(ending: str, rife_weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"rife.{ending}"
    half = {name: tensor.half() for name, tensor in rife_weights.items()}
    if ending == "safetensors":
        save_file(half, path)
    else:
        torch.save({"state_dict": half} if ending == "pth" else half, path)
    weights = read(path)
    assert detect(weights).name == "RIFE 4.22 lite"
    assert detect(weights).dtype == torch.float16
    assert all(torch.equal(weights[name], tensor) for name, tensor in half.items())


class Layer(torch.nn.Module):
    """Holds tensors and layers under any name, as a TorchScript file does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def as_modules(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    root = Layer()
    for name, tensor in weights.items():
        *path, kind = name.split(".")
        at: torch.nn.Module = root
        for part in path:
            if part not in dict(at.named_children()):
                at.add_module(part, Layer())
            at = at.get_submodule(part)
        at.register_parameter(kind, torch.nn.Parameter(tensor))
    return root


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_film_is_read_without_running_it(tmp_path: Path) -> None:
    published = {name.replace(".conv.", ".0."): tensor for name, tensor in oracles.film_weights().items()}
    path = tmp_path / "film_net_fp32.pt"
    torch.jit.script(as_modules(published)).save(str(path))
    weights = read(path)
    assert weights.keys() == torch.jit.load(str(path), map_location="cpu").state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in published.items())
    assert detect(weights).shape == FilmShape(64, (32, 64, 128, 256))


def test_a_real_file_with_training_parts_is_recognised() -> None:
    assert detect(read(oracles.rife_4_26_file())).name == "RIFE 4.25 or 4.26"
    assert detect(read(oracles.rife_4_0_file())).name == "RIFE 4.0 or 4.1"


class Evil:
    def __reduce__(self) -> Any:
        return print, ("code from a weight file ran",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "flownet.pkl"
    path.write_bytes(pickle.dumps({"block0": Evil()}, protocol=2))
    with pytest.raises(ValueError, match="flownet.pkl .* cannot be read"):
        read(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x80\x02}q\x00.", bytes(range(256)) * 8, b"PK\x03\x04" + bytes(400)])
@pytest.mark.parametrize("ending", ["safetensors", "pth", "pkl", "pt"])
def test_damaged_and_foreign_files_are_value_errors(content: bytes, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"weights.{ending} .*(cannot be read|holds no tensors)"):
        read(path)


def test_a_cut_off_download_is_a_value_error(tmp_path: Path) -> None:
    whole = oracles.rife_4_26_file().read_bytes()
    path = tmp_path / "flownet.pkl"
    for size in (100, len(whole) // 2, len(whole) - 1000):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="Fetch the file again"):
            read(path)


def test_a_missing_file_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing"):
        read(tmp_path / "rife.safetensors")


def test_other_networks_are_named_by_what_they_hold() -> None:
    with pytest.raises(ValueError, match="1 tensors .blocks.0.self_attn.q.weight, ...., which belong to none of the networks FILM, RIFE"):
        detect({"blocks.0.self_attn.q.weight": torch.zeros(1)})


def test_an_unknown_rife_names_its_shape_and_the_known_ones(rife_weights: dict[str, torch.Tensor]) -> None:
    rife_weights["block3.conv0.1.0.weight"] = torch.zeros(40, 16, 3, 3)
    with pytest.raises(ValueError, match="unknown RIFE: .*192, 128, 64, 40.* Known are RIFE 4.0"):
        detect(rife_weights)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_incomplete_weights_are_an_error(change: str, rife_weights: dict[str, torch.Tensor]) -> None:
    name = "block1.convblock.3.conv.weight"
    if change == "extra":
        rife_weights["block1.more"] = torch.zeros(1)
    elif change == "shape":
        rife_weights[name] = rife_weights[name][:1]
    else:
        del rife_weights[name]
    with pytest.raises(ValueError, match="RIFE 4.22 lite are incomplete or damaged"):
        detect(rife_weights).network(torch.nn)
