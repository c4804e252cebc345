"""LoRA files of every family change the weights they should, on the expert they belong to, by the strength asked for."""

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
from engine.lora.routing import LoraChoice
from lora_files import weight

HALF = 0.5
TOLERANCE = 1e-12  # in float64
QUERY = "diffusion_model.blocks.0.self_attn.q"


@pytest.fixture(scope="module")
def host(pack: ModuleType) -> ModuleType:
    return importlib.import_module(f"{pack.__name__}.nodes.host.models.lora")


@pytest.fixture(scope="module")
def choice(pack: ModuleType) -> type[LoraChoice]:
    return importlib.import_module(f"{pack.__name__}.nodes.engine.lora.routing").LoraChoice


@pytest.fixture(scope="module")
def shapes(host: ModuleType, experts: tuple[Any, Any]) -> lora_files.Shapes:
    return host.model_shapes(experts[0])


def key_of(module: str) -> str:
    return module if module.endswith((".bias", "modulation")) else f"{module}.weight"


def write(path: Path, sample: lora_files.Known) -> str:
    save_file({key: tensor.contiguous() for key, tensor in sample.tensors.items()}, path, metadata=sample.metadata or None)
    return path.name


@pytest.mark.parametrize("family", lora_files.FAMILIES)
def test_every_family_changes_the_weights_by_its_formula(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any],
                                                         shapes: lora_files.Shapes, family: str) -> None:
    sample = lora_files.FAMILIES[family](shapes)
    name = write(lora_folder / "known.safetensors", sample)
    *patched, lines, _ = host.apply(*experts, [choice(name, HALF)])
    for model, original, delta in zip(patched, experts, (sample.delta, sample.low or sample.delta), strict=True):
        for module, difference in delta.items():
            expected = weight(original, key_of(module)) + HALF * difference
            torch.testing.assert_close(weight(model, key_of(module)), expected, rtol=0, atol=TOLERANCE)
        assert len(model.patches) == len(delta)
    assert len(lines) == 2
    assert f"of {len(sample.tensors)} tensors applied" in lines[0]


def test_scale_zero_is_the_model_itself(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple, shapes: lora_files.Shapes) -> None:
    name = write(lora_folder / "known.safetensors", lora_files.FAMILIES["diffusers"](shapes))
    high, low, lines, _ = host.apply(*experts, [choice(name, 0.0)])
    assert high.patches == low.patches == {}
    assert all("scale is 0" in line for line in lines)


def test_the_callers_models_stay_as_they_are(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple, shapes: lora_files.Shapes) -> None:
    name = write(lora_folder / "known.safetensors", lora_files.FAMILIES["diffusers"](shapes))
    host.apply(*experts, [choice(name)])
    assert experts[0].patches == experts[1].patches == {}


def test_a_stack_adds_up_whatever_the_order(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple, shapes: lora_files.Shapes) -> None:
    families = ["kohya, musubi-tuner", "diffusion-pipe, ai-toolkit", "LoHa", "differences"]
    sample = [lora_files.FAMILIES[family](shapes) for family in families]
    choices = [choice(write(lora_folder / f"{index}.safetensors", file), 0.25 * (index + 1)) for index, file in enumerate(sample)]
    for order in (choices, choices[::-1]):
        high, *_ = host.apply(*experts, order)
        for module in lora_files.MODULES:
            expected = weight(experts[0], f"{module}.weight") + sum(0.25 * (index + 1) * file.delta[module] for index, file in enumerate(sample))
            torch.testing.assert_close(weight(high, f"{module}.weight"), expected, rtol=0, atol=TOLERANCE)


def test_each_file_is_read_once(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any], shapes: lora_files.Shapes,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    original = host.read_lora

    def noted(path: Path) -> Any:
        reads.append(path.name)
        return original(path)

    monkeypatch.setattr(host, "read_lora", noted)
    names = [write(lora_folder / f"{index}.safetensors", lora_files.FAMILIES["diffusers"](shapes)) for index in range(2)]
    host.apply(*experts, [choice(name, target="both") for name in names])
    assert sorted(reads) == sorted(names)


def test_what_the_trainer_says_is_one_line_per_file_after_the_others(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any],
                                                                     shapes: lora_files.Shapes) -> None:
    tensors = lora_files.FAMILIES["diffusers"](shapes).tensors
    metadata = {"told.safetensors": {"modelspec.trigger_phrase": "ohwx <b>", "ss_base_model_version": "sdxl"}, "silent.safetensors": {}}
    for name, said in metadata.items():
        write(lora_folder / name, lora_files.Known(tensors, {}, metadata=said))
    *_, lines, _ = host.apply(*experts, [choice(name) for name in metadata])
    assert [line.split(" (")[0] for line in lines[:4]] == [f"{expert}: {name}" for name in metadata for expert in ("high", "low")]
    assert lines[4:] == ["told.safetensors: trigger words: ohwx (b); made for sdxl"]


@pytest.mark.parametrize(("target", "changed"), [("high", (True, False)), ("low", (False, True)), ("both", (True, True)), ("auto", (True, True))])
def test_targets(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any], shapes: lora_files.Shapes, target: str,
                 changed: tuple[bool, bool]) -> None:
    name = write(lora_folder / "style.safetensors", lora_files.FAMILIES["diffusers"](shapes))
    high, low, *_ = host.apply(*experts, [choice(name, target=target)])
    assert (bool(high.patches), bool(low.patches)) == changed


def test_auto_brings_the_partner_at_the_same_scale(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any],
                                                   shapes: lora_files.Shapes) -> None:
    one, other = (lora_files.FAMILIES[family](shapes) for family in ("diffusers", "kohya, musubi-tuner"))
    high_name = write(lora_folder / "Style_HIGH_v1.safetensors", one)
    write(lora_folder / "Style_LOW_v1.safetensors", other)
    high, low, lines, warnings = host.apply(*experts, [choice(high_name, HALF)])
    module = lora_files.MODULES[0]
    for model, original, sample in ((high, experts[0], one), (low, experts[1], other)):
        torch.testing.assert_close(weight(model, f"{module}.weight"), weight(original, f"{module}.weight") + HALF * sample.delta[module],
                                   rtol=0, atol=TOLERANCE)
    assert [line.split(" (")[0] for line in lines] == ["high: Style_HIGH_v1.safetensors", "low: Style_LOW_v1.safetensors"]
    assert warnings == []


def test_an_explicit_target_against_the_name_is_obeyed_with_a_warning(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any],
                                                                      shapes: lora_files.Shapes) -> None:
    name = write(lora_folder / "style_high.safetensors", lora_files.FAMILIES["diffusers"](shapes))
    high, low, _, warnings = host.apply(*experts, [choice(name, target="low")])
    assert not high.patches
    assert low.patches
    assert warnings == ["style_high.safetensors goes to the low-noise expert as asked, but its name says high"]


def test_the_report_names_family_rank_and_effective_scale(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any],
                                                          shapes: lora_files.Shapes) -> None:
    sample = lora_files.FAMILIES["kohya, musubi-tuner"](shapes)
    strangers = ("blocks.0.cross_attn.k_img.lora_A.weight", "lora_te_text_model_encoder_layers_0.alpha", "who.knows")
    extra = {key: torch.ones(1) for key in strangers}
    name = write(lora_folder / "a.safetensors", lora_files.Known({**sample.tensors, **extra}, sample.delta))
    *_, lines, _ = host.apply(*experts, [choice(name, HALF)])
    assert lines[0] == ("high: a.safetensors (kohya / musubi-tuner), rank 4, effective scale 0.25, 12 of 15 tensors applied; "
                        "1 I2V only keys ignored (first: blocks.0.cross_attn.k_img.lora_A.weight); "
                        "1 text encoder keys ignored (first: lora_te_text_model_encoder_layers_0.alpha); 1 unknown keys ignored (first: who.knows); "
                        "auto: its name says neither high nor low")


@pytest.mark.parametrize(("family", "content"), [("whole LoKr", "LoKr without rank, so that alpha does not count, effective scale 0.5"),
                                                 ("LoHa", "LoHa, rank 4, effective scale 0.25"), ("differences", "full difference, scale 0.5")])
def test_the_report_says_the_scale_of_every_kind(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any],
                                                 shapes: lora_files.Shapes, family: str, content: str) -> None:
    name = write(lora_folder / "a.safetensors", lora_files.FAMILIES[family](shapes))
    *_, lines, _ = host.apply(*experts, [choice(name, HALF)])
    assert f"), {content}," in lines[0]


def test_half_of_a_pair_is_in_the_report_the_warnings_and_the_schedule(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any],
                                                                       shapes: lora_files.Shapes) -> None:
    name = write(lora_folder / "style_HIGH_v1.safetensors", lora_files.FAMILIES["diffusers"](shapes))
    high, low, lines, warnings = host.apply(*experts, [choice(name)])
    note = "the low-noise expert goes without style_LOW_v1.safetensors"
    assert lines[0].endswith("auto: its name says high; the low-noise expert goes without")
    assert len(warnings) == 1
    assert "no 'style_LOW_v1.safetensors' is in models/loras" in warnings[0]
    assert host.missing_halves(high, low.clone()) == [note]  # clones of other nodes keep it
    high, low, *_ = host.apply(high, low, [choice(name)])
    assert host.missing_halves(high, low) == [note, note]
    write(lora_folder / "style_LOW_v1.safetensors", lora_files.FAMILIES["diffusers"](shapes))
    assert host.missing_halves(*host.apply(*experts, [choice(name)])[:2]) == []


def test_a_file_for_one_expert_goes_there_by_itself(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any],
                                                    shapes: lora_files.Shapes) -> None:
    tensors = {f"low_noise_model.{key}": tensor for key, tensor in lora_files.FAMILIES["bare"](shapes).tensors.items()}
    save_file(tensors, lora_folder / "style.safetensors")
    high, low, _, warnings = host.apply(*experts, [choice("style.safetensors")])
    assert (bool(high.patches), bool(low.patches)) == (False, True)
    assert "the high-noise expert goes without" in warnings[0]


@pytest.mark.parametrize("name", ["wan/style.safetensors", "wan\\style.safetensors"])
def test_either_slash_finds_the_file(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple, shapes: lora_files.Shapes, name: str) -> None:
    (lora_folder / "wan").mkdir()
    write(lora_folder / "wan" / "style.safetensors", lora_files.FAMILIES["diffusers"](shapes))
    assert host.lora_path(name) == lora_folder / "wan" / "style.safetensors"
    assert host.apply(*experts, [choice(name)])[0].patches


@pytest.mark.parametrize(("tensors", "message"), [
    ({"lora_unet_input_blocks_4_1_proj_in.lora_up.weight": torch.ones(2, 2)}, "Stable Diffusion or SDXL"),
    ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(2, 2)}, "Flux"),
    ({"blocks.0.cross_attn.k_img.lora_A.weight": torch.ones(2, 2)}, "I2V layers only"),
    ({}, "none of its 0 tensors"),
    ({f"{QUERY}.lora_A.weight": torch.ones(4, 3072), f"{QUERY}.lora_B.weight": torch.ones(3072, 4)},
     r"blocks.0.self_attn.q has shape \(3072, 3072\), the model expects \(128, 128\). It was made for Wan 2.2 TI2V 5B"),
    ({f"{QUERY}.lora_A.weight": torch.full((4, 128), float("nan"))}, "self_attn.q.lora_A.weight holds NaN"),
    ({f"{QUERY}.lora_A.weight": torch.ones(4, 128, dtype=torch.int32)}, "torch.int32, not floating point"),
    ({f"{QUERY}.lora_A.weight": torch.ones(4, 128)}, "lacks lora_up.weight"),
    ({f"{QUERY}.lora_A.weight": torch.ones(4, 128), f"{QUERY}.lora_B.weight": torch.ones(128, 3)}, "do not multiply"),
])
def test_bad_files_are_refused_by_name_and_nothing_is_patched(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any],
                                                              tensors: lora_files.Tensors, message: str) -> None:
    save_file(tensors, lora_folder / "bad.safetensors")
    with pytest.raises(ValueError, match=rf"bad.safetensors.*{message}"):
        host.apply(*experts, [choice("bad.safetensors")])
    assert experts[0].patches == experts[1].patches == {}


@pytest.mark.parametrize("content", [b"", b"12345678", b"\xff" * 64, (10**12).to_bytes(8, "little") + b"{}", b"\x02\0\0\0\0\0\0\0{}garbage"])
def test_hostile_headers_are_refused(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any], content: bytes) -> None:
    (lora_folder / "bad.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.safetensors"):
        host.apply(*experts, [choice("bad.safetensors")])


class Payload:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return eval, ("1/0",)


def test_pickles_that_run_code_are_refused(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any]) -> None:
    torch.save({"x": Payload()}, lora_folder / "bad.pt")
    with pytest.raises(ValueError, match="bad.pt: torch's safe loader refuses it"):
        host.apply(*experts, [choice("bad.pt")])


def test_plain_pickled_tensors_are_taken(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple, shapes: lora_files.Shapes) -> None:
    torch.save({"state_dict": lora_files.FAMILIES["diffusers"](shapes).tensors}, lora_folder / "old.pt")
    high, *_ = host.apply(*experts, [choice("old.pt")])
    assert high.patches


def test_a_missing_file_names_the_folder_and_the_cure(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="'gone.safetensors' is not in models/loras.*press R"):
        host.apply(*experts, [choice("gone.safetensors")])


def test_metadata_that_is_no_json_is_ignored(host: ModuleType, choice: Any, lora_folder: Path, experts: tuple, shapes: lora_files.Shapes) -> None:
    sample = lora_files.FAMILIES["diffusers"](shapes)
    for value in ("{", json.dumps([1]), json.dumps("x")):
        save_file(sample.tensors, lora_folder / "a.safetensors", metadata={"lora_adapter_metadata": value, "ss_network_args": value})
        assert host.apply(*experts, [choice("a.safetensors")])[0].patches
