"""LoRA files from public reports: each is read as its trainer means it, or refused by what it is."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

import tiny_weights
from engine.lora.normal_form import LoraError, NormalForm, normal_form
from engine.lora.read import read_lora

FIELD = json.loads((Path(__file__).parents[1] / "field" / "lora_cases.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in FIELD["cases"]}
REFUSED = {"stand_in": "it is a Stand-In adapter, which needs its own code",
           "reshaped_patch_embedding": "it is a control LoRA for another number of input channels"}
DTYPES = {"F32": torch.float32, "I64": torch.int64}
SHAPES = {key: tuple(tensor.shape) for key, tensor in
          tiny_weights.expert(seed=1, dim=FIELD["hidden_size"], ffn=128, layers=2, text_dim=64).items()}
QUERY = "blocks.0.self_attn.q"
PAIR = {"down": torch.ones(4, 64), "up": torch.ones(64, 4)}


def tensors(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: torch.tensor(value[0], dtype=DTYPES[dtype]) if value else torch.randn(shape, generator=generator)
            for key, (dtype, shape, *value) in case["keys"].items()}


def write(path: Path, table: dict[str, torch.Tensor], metadata: dict[str, Any]) -> Path:
    """A file whose metadata may hold what safetensors itself would not write."""
    content = save(table)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.dumps({**json.loads(content[8 : 8 + length]), "__metadata__": metadata}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    return path


def form_of(table: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> NormalForm:
    return normal_form(table, metadata or {}, SHAPES, "a.safetensors")


def query(prefix: str, ending: str = ".lora_{}.weight", module: str = QUERY) -> dict[str, torch.Tensor]:
    return {prefix + module + ending.format(side): tensor for side, tensor in PAIR.items()}


@pytest.mark.parametrize("name", CASES)
def test_every_case_is_read_or_refused_by_what_it_is(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = write(tmp_path / "a.safetensors", tensors(case), case.get("raw_metadata", case.get("metadata", {})))
    table, metadata = read_lora(path)
    if name in REFUSED:
        with pytest.raises(LoraError, match=rf"^a.safetensors: {REFUSED[name]}"):
            form_of(table, metadata)
        return
    form = form_of(table, metadata)
    i2v = {key for key in table if any(word in key for word in ("img", "add_k_proj", "patch_embedding"))}
    assert {reason: set(keys) for reason, keys in form.ignored.items()} == ({"I2V only": i2v} if i2v else {})
    assert {key for part in form.parts.values() for keys in part.keys.values() for key in keys} == table.keys() - i2v
    assert set(form.parts) == ({"high", "low"} if name == "both_experts_by_official_names" else {None})
    assert all(part.scales() in ([1.0], []) for part in form.parts.values())


# --- scalars ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_alpha_is_one_number_of_any_type_and_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    form = form_of({**query("diffusion_model."), f"diffusion_model.{QUERY}.alpha": torch.full(shape, 2.0).to(dtype)})
    assert form.parts[None].scales() == [0.5]


@pytest.mark.parametrize("ending", [".alpha", ".alpha.default", "_alpha"])
@pytest.mark.parametrize("alpha", [torch.ones(2), torch.ones(0), torch.tensor(float("nan")), torch.tensor(1j)], ids=["two", "none", "nan", "complex"])
def test_alpha_that_is_no_number_is_damage_whatever_its_key(ending: str, alpha: torch.Tensor) -> None:
    with pytest.raises(LoraError, match="is one number|holds NaN"):
        form_of({**query("diffusion_model."), f"diffusion_model.{QUERY}{ending}": alpha})


def test_alpha_zero_is_the_rank_as_for_its_trainers() -> None:
    assert form_of({**query("lora_unet_"), f"lora_unet_{QUERY}.alpha": torch.tensor(0)}).parts[None].scales() == [1.0]


def test_peft_gives_modules_and_experts_their_own_alpha() -> None:
    settings = {"transformer.lora_alpha": 2, "transformer.alpha_pattern": {"attn2.to_q": 8}, "transformer_2.lora_alpha": 1}
    table = {**query("transformer."), **query("transformer.", module="blocks.0.attn2.to_q"), **query("transformer_2.")}
    form = form_of(table, {"lora_adapter_metadata": json.dumps(settings)})
    assert form.parts["high"].scales() == [0.5, 2.0]
    assert form.parts["low"].scales() == [0.25]


# --- image-to-video --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projection", [
    {"patch_embedding.diff": (64, 36, 1, 2, 2), "patch_embedding.diff_b": (64,)},
    {"patch_embedding.lora_down.weight": (4, 36, 1, 2, 2), "patch_embedding.lora_up.weight": (64, 4, 1, 1, 1), "patch_embedding.alpha": ()},
    {"patch_embedding.lora_A.default.weight": (4, 36, 1, 2, 2), "patch_embedding.lora_B.default.weight": (64, 4, 1, 1, 1),
     "patch_embedding.lora_B.default.bias": (64,)}], ids=["difference", "low rank", "PEFT"])
@pytest.mark.parametrize("prefix", ["diffusion_model.", "transformer."])
def test_an_i2v_input_projection_is_left_out_whole_and_nothing_else_is(prefix: str, projection: dict[str, tuple[int, ...]]) -> None:
    i2v = {prefix + key: torch.ones(shape) for key, shape in projection.items()}
    form = form_of({**query(prefix), **i2v})
    assert set(form.ignored["I2V only"]) == set(i2v)
    assert set(form.parts[None].modules) == {QUERY}


@pytest.mark.parametrize("layer", ["blocks.0.cross_attn.k_img", "blocks.1.cross_attn.v_img", "blocks.0.cross_attn.norm_k_img", "img_emb.proj.0",
                                   "blocks.0.attn2.add_k_proj", "blocks.1.attn2.add_v_proj", "blocks.0.attn2.norm_added_k",
                                   "condition_embedder.image_embedder.ff.net.0.proj", "condition_embedder.image_embedder.norm1"])
@pytest.mark.parametrize("spell", [str, lambda path: "lora_unet_" + path.replace(".", "_")], ids=["dots", "underscores"])
def test_image_layers_are_i2v_only_in_every_spelling(layer: str, spell: Any) -> None:
    key = spell(layer) + ".lora_down.weight"
    assert form_of({**query("diffusion_model."), key: torch.ones(4, 64)}).ignored == {"I2V only": [key]}


def test_a_projection_for_t2v_is_no_i2v_one() -> None:
    form = form_of({"patch_embedding.lora_down.weight": torch.ones(4, 16, 1, 2, 2), "patch_embedding.lora_up.weight": torch.ones(64, 4, 1, 1, 1)})
    assert set(form.parts[None].modules) == {"patch_embedding"}
    with pytest.raises(LoraError, match="It was made for 52 input channels"):
        form_of({**query(""), "patch_embedding.diff": torch.ones(64, 52, 1, 2, 2)})


# --- what else lies in models/loras ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keys", "content"), [
    (["diffusion_model.vace_blocks.0.self_attn.q.lora_down.weight", "diffusion_model.vace_blocks.0.self_attn.q.lora_up.weight"], "a part of VACE"),
    (["emb_params"], "a textual inversion embedding"), (["clip_l", "clip_g"], "a textual inversion embedding"),
    (["blocks.0.self_attn.q.weight", "blocks.0.self_attn.q.bias", "head.head.weight"], "a whole checkpoint of Wan"),
    (["model.diffusion_model.blocks.0.self_attn.q.weight"], "a whole checkpoint of Wan"),
    (["blocks.0.attn1.to_q.weight", "proj_out.weight"], "a whole checkpoint of Wan"),
    (["encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"], "a text encoder"),
    (["decoder.conv1.weight", "encoder.conv1.weight"], "a VAE"),
    (["blocks.0.self_attn.ref_adapter.to_k_ref.weight"], "an image adapter"),
    (["audio_proj.audio_proj_glob_1.layer.weight"], "an adapter for sound"),
    (["face_adapter.fuser_blocks.0.k_norm.weight"], "a part of Wan Animate"),
    (["control_adapter.conv.weight"], "a control adapter"),
])
def test_a_file_that_is_something_else_says_what_it_is(keys: list[str], content: str) -> None:
    with pytest.raises(LoraError, match=f"a.safetensors: none of its {len(keys)} tensors fits: it is {content}"):
        form_of({key: torch.ones(64, 64) for key in keys})


def test_parts_of_other_models_beside_fitting_keys_are_left_out_by_name() -> None:
    form = form_of({**query("diffusion_model."), "diffusion_model.vace_blocks.0.self_attn.q.lora_down.weight": torch.ones(4, 64)})
    assert list(form.ignored) == ["VACE"]


# --- damage ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("damage", "message"), [
    (lambda content: b"", "it is empty"),
    (lambda content: content[:-100], r"it ends after [\d,]+ of [\d,]+ bytes. The download was cut off"),
    (lambda content: content[:20], "its header is damaged or cut off"),
    (lambda content: content + b"x" * 7, "7 bytes too many"),
    (lambda content: b"<!DOCTYPE html>" + content, "it is a web page"),
    (lambda content: b"version https://git-lfs.github.com/spec/v1", "it is a Git LFS pointer"),
    (lambda content: b"PK\x03\x04" + content, "a pickled or zipped file"),
], ids=["empty", "cut", "cut header", "longer", "web page", "pointer", "pickle"])
def test_damaged_files_say_what_is_damaged(damage: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(damage(save(query("diffusion_model."))))
    with pytest.raises(LoraError, match=f"a.safetensors: .*{message}"):
        read_lora(path)


@pytest.mark.parametrize("metadata", [{"ss_network_dim": 32}, {"nested": {"lora_alpha": [1]}}, {"none": None}, [1, 2], "text", 3])
def test_metadata_that_is_no_text_hinders_nothing(metadata: Any, tmp_path: Path) -> None:
    table, text = read_lora(write(tmp_path / "a.safetensors", query("diffusion_model."), metadata))
    assert table.keys() == query("diffusion_model.").keys()
    assert all(isinstance(value, str) for value in text.values())
    if isinstance(metadata, dict):
        assert text == {key: json.dumps(value) for key, value in metadata.items()}


def test_metadata_and_tensors_that_are_both_damaged_are_named_both(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", query("diffusion_model."), {"ss_network_dim": 32})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(LoraError, match="its metadata is not text, and its tensors are damaged too"):
        read_lora(path)


def test_a_pickled_embedding_says_so(tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": torch.ones(2, 4)}, "name": "x"}, tmp_path / "a.pt")
    with pytest.raises(LoraError, match="a textual inversion embedding"):
        read_lora(tmp_path / "a.pt")


@pytest.mark.parametrize("around", ["state_dict", "module", "model"])
def test_a_table_may_lie_inside_another(around: str, tmp_path: Path) -> None:
    torch.save({around: query("diffusion_model."), "epoch": 3}, tmp_path / "a.pt")
    assert read_lora(tmp_path / "a.pt")[0].keys() == query("diffusion_model.").keys()


def test_a_plain_file_has_its_metadata(tmp_path: Path) -> None:
    save_file(query("x."), tmp_path / "a.safetensors", metadata={"a": "b"})
    assert read_lora(tmp_path / "a.safetensors")[1] == {"a": "b"}
