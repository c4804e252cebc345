"""Spellings of module names and endings: whatever wraps them in whatever order, and whatever adapter's name is in them."""

import itertools
from pathlib import Path

import pytest
import torch

import tiny_weights
from engine.lora.adapters import KINDS
from engine.lora.endings import parse
from engine.lora.families import WRAPPERS, Spellings, diffusers_name
from engine.lora.normal_form import normal_form

SHAPES = {key: tuple(tensor.shape) for key, tensor in tiny_weights.expert(seed=1, dim=64, ffn=128, layers=2, text_dim=64).items()}
MODULES = {key.removesuffix(".weight").removesuffix(".bias") for key in SHAPES}
SPELLINGS = Spellings(MODULES)
QUERY = "blocks.0.self_attn.q"
# convert_wan_transformer_to_diffusers of diffusers, written out
DIFFUSERS = {
    "blocks.0.self_attn.q": "blocks.0.attn1.to_q", "blocks.0.self_attn.k": "blocks.0.attn1.to_k", "blocks.0.self_attn.v": "blocks.0.attn1.to_v",
    "blocks.0.self_attn.o": "blocks.0.attn1.to_out.0", "blocks.0.self_attn.norm_q": "blocks.0.attn1.norm_q",
    "blocks.0.self_attn.norm_k": "blocks.0.attn1.norm_k",
    "blocks.1.cross_attn.q": "blocks.1.attn2.to_q", "blocks.1.cross_attn.k": "blocks.1.attn2.to_k", "blocks.1.cross_attn.v": "blocks.1.attn2.to_v",
    "blocks.1.cross_attn.o": "blocks.1.attn2.to_out.0", "blocks.1.cross_attn.norm_q": "blocks.1.attn2.norm_q",
    "blocks.1.cross_attn.norm_k": "blocks.1.attn2.norm_k",
    "blocks.0.ffn.0": "blocks.0.ffn.net.0.proj", "blocks.0.ffn.2": "blocks.0.ffn.net.2", "blocks.0.norm3": "blocks.0.norm2",
    "blocks.0.modulation": "blocks.0.scale_shift_table", "head.modulation": "scale_shift_table", "head.head": "proj_out",
    "patch_embedding": "patch_embedding", "time_projection.1": "condition_embedder.time_proj",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1", "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1", "text_embedding.2": "condition_embedder.text_embedder.linear_2",
}
WORDS = ["transformer", "base_model", "model", "module", "dit", "_orig_mod", "diffusion_model", "pipe", "unet", "_fsdp_wrapped_module", "default"]
UNDERSCORED = ["lora_unet_", "lora_unet__", "lycoris_", "lora_transformer_", "lora_unet_model_", "lora_unet__orig_mod_", "lycoris_transformer_"]
DOWN = [".lora_down.weight", ".lora_A.weight", ".lora_down", ".lora_A", ".lora_a", ".lora_A.default.weight", ".lora_A.default",
        ".lora_A.my-style.weight", ".lora_layer.down.weight",
        ".lora_down.default_weight", ".lora.down.weight", "_lora.down.weight", ".lora.down", ".lora_linear_layer.down.weight", "_lora_A",
        "_lora_down_weight", ".default.lora_A.weight", ".lora.default.down.weight", ".processor.lora_A.weight", "._orig_mod.lora_A.weight"]


@pytest.mark.parametrize("module", DIFFUSERS)
def test_diffusers_names_are_those_of_diffusers(module: str) -> None:
    assert diffusers_name(module) == DIFFUSERS[module]
    for spelled in (DIFFUSERS[module], f"transformer.{DIFFUSERS[module]}", f"lycoris_{DIFFUSERS[module].replace('.', '_')}"):
        match = SPELLINGS.resolve(spelled)
        assert match is not None
        assert match.module == module


def test_no_two_modules_have_a_spelling_in_common() -> None:
    assert len({diffusers_name(module) for module in MODULES}) == len(MODULES)
    assert set(SPELLINGS.modules.values()) == MODULES


@pytest.mark.parametrize("words", [*itertools.permutations(WORDS, 2), *itertools.combinations(WORDS, 3)], ids=".".join)
def test_wrappers_peel_off_in_any_order(words: tuple[str, ...]) -> None:
    for module in (QUERY, "blocks.1.attn2.to_out.0", "head.head"):
        match = SPELLINGS.resolve(".".join([*words, module]))
        assert match is not None
        assert diffusers_name(match.module) == diffusers_name(module)


@pytest.mark.parametrize("prefix", UNDERSCORED)
@pytest.mark.parametrize("path", ["blocks_0_self_attn_q", "blocks_0.self_attn.q", "blocks.0.self_attn_q", "blocks_0_attn1_to_q",
                                  "blocks.0.attn1.to_q", "blocks_0__orig_mod_self_attn_q", "blocks.0._orig_mod.self_attn.q"])
def test_dots_and_underscores_mix(prefix: str, path: str) -> None:
    match = SPELLINGS.resolve(prefix + path)
    assert match is not None
    assert match.module == QUERY


@pytest.mark.parametrize("ending", DOWN)
@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "transformer.base_model.model."])
def test_every_ending_of_a_pair_is_read(prefix: str, ending: str) -> None:
    down = f"{prefix}{QUERY}{ending}"
    up = f"{prefix}{QUERY}{ending.replace('down', 'up').replace('lora_A', 'lora_B').replace('lora_a', 'lora_b')}"
    form = normal_form({down: torch.ones(4, 64), up: torch.ones(64, 4)}, {}, SHAPES, "a")
    assert {module: set(roles) for module, roles in form.parts[None].modules.items()} == {QUERY: {"lora_down.weight", "lora_up.weight"}}


@pytest.mark.parametrize(("ending", "role"), [
    (f"{ending}{adapter}", role) for ending, role in {
        ".hada_w1_a": "hada_w1_a", ".hada_w2_b": "hada_w2_b", ".lokr_w1": "lokr_w1", ".lokr_w1_b": "lokr_w1_b", ".lokr_w2": "lokr_w2",
        ".lokr_w2_a": "lokr_w2_a", ".a1": "a1.weight", ".b2": "b2.weight", ".oft_blocks": "oft_blocks", ".rescale": "rescale", ".alpha": "alpha",
        ".dora_scale": "dora_scale", ".lora_magnitude_vector": "dora_scale"}.items()
    for adapter in ("", ".default")] + [(".w_norm", "diff"), (".b_norm", "diff_b"), (".diff", "diff"), (".diff_b", "diff_b"), ("_diff_b", "diff_b"),
                                        (".lora_B.bias", "up_bias"), (".lora_B.default.bias", "up_bias"), (".set_weight", "set_weight")])
def test_every_other_ending_has_its_role(ending: str, role: str) -> None:
    key = parse(f"diffusion_model.{QUERY}{ending}", SPELLINGS)
    assert key is not None
    assert (key.spelled.module, key.role) == (QUERY, role)


@pytest.mark.parametrize("path", ["vace_blocks.0.self_attn.q", "audio_model.blocks.0.self_attn.q", "blocks.9.self_attn.q",
                                  "double_blocks.0.self_attn.q", "text_encoder.blocks.0.self_attn.q", "controlnet.blocks.0.self_attn.q",
                                  "blocks.0.self_attn.q_loras", "q", "", "."])
def test_names_of_other_models_are_nobodys(path: str) -> None:
    assert SPELLINGS.resolve(path) is None


@pytest.mark.parametrize(("high", "low"), [("transformer.", "transformer_2."), ("pipe.dit.", "pipe.dit2."), ("dit.", "dit2."),
                                           ("lora_transformer_", "lora_transformer_2_"), ("high_noise_model.", "low_noise_model."),
                                           ("high_noise.", "low_noise."), ("model_high_noise.", "model_low_noise."), ("high.", "low."),
                                           ("base_model.model.high_noise_model.", "base_model.model.low_noise_model."),
                                           ("transformer_high.", "transformer_low."), ("lora_unet_high_noise_model_", "lora_unet_low_noise_model_"),
                                           ("low_noise_model.transformer.", "high_noise_model.transformer.")])
def test_a_file_of_both_experts_is_split_under_every_name(high: str, low: str) -> None:
    if high.startswith("low"):
        high, low = low, high
    table = {f"{prefix}{QUERY}.lora_{side}.weight": torch.full(shape, value) for prefix, value in ((high, 1.0), (low, 2.0))
             for side, shape in (("A", (4, 64)), ("B", (64, 4)))}
    form = normal_form(table, {}, SHAPES, "a")
    assert {expert: float(part.modules[QUERY]["lora_up.weight"].max()) for expert, part in form.parts.items()} == {"high": 1.0, "low": 2.0}


def test_a_file_of_both_experts_is_split_by_the_names_of_its_adapters() -> None:
    table = {f"transformer.{QUERY}.lora_{side}.{adapter}.weight": torch.ones(shape) for adapter in ("high_noise", "low_noise")
             for side, shape in (("A", (4, 64)), ("B", (64, 4)))}
    assert set(normal_form(table, {}, SHAPES, "a").parts) == {"high", "low"}
    one = {key.replace("high_noise", "high_quality"): tensor for key, tensor in table.items() if "high" in key}
    assert set(normal_form(one, {}, SHAPES, "a").parts) == {None}


@pytest.mark.parametrize(("prefix", "named"), [("transformer_2.", ("low",)), ("low_noise_model.", ("low",)), ("high_noise_model.", ("high",)),
                                               ("transformer.", ()), ("dit.", ()), ("diffusion_model.", ())])
def test_a_file_of_one_expert_says_which(prefix: str, named: tuple[str, ...]) -> None:
    table = {f"{prefix}{QUERY}.lora_A.weight": torch.ones(4, 64), f"{prefix}{QUERY}.lora_B.weight": torch.ones(64, 4)}
    assert normal_form(table, {}, SHAPES, "a").named_experts == named


def test_a_hostile_name_takes_no_time() -> None:
    assert SPELLINGS.resolve("lora_unet_model_" * 300) is None
    assert len({wrapper.word for wrapper in WRAPPERS}) == len(WRAPPERS)


@pytest.mark.parametrize("page", ["README.md", "web/docs/Wan22LoRA.md", "docs/lora_files.md"])
def test_the_pages_name_every_family_and_kind(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    names = {name for wrapper in WRAPPERS for name in wrapper.family.split(" / ") if name} | {kind.name for kind in KINDS}
    assert {name for name in names if name not in text} == set()
