"""Whatever a file holds: it is read into something that changes the model, or refused with a LoraError; never a crash, never a silent no-op."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tiny_weights
from engine.lora.normal_form import LoraError, normal_form
from engine.lora.read import read_lora

SHAPES = {key: tuple(tensor.shape) for key, tensor in tiny_weights.expert(seed=1, dim=128, ffn=256, layers=1, text_dim=64).items()}
PREFIXES = ["", "diffusion_model.", "lora_unet_", "lora_unet__", "transformer.", "transformer_2.", "base_model.model.", "lycoris_", "pipe.dit.",
            "lora_transformer_", "unet.", "lora_te_", "dit.", "model.", "_orig_mod.", "low_noise_model."]
MODULES = ["blocks.0.self_attn.q", "blocks_0_self_attn_q", "blocks.0.attn1.to_q", "blocks.0.ffn.0", "blocks.0", "head", "head.head",
           "patch_embedding", "blocks.9.self_attn.q", "blocks.0.cross_attn.k_img", "x", ""]
ENDINGS = [".lora_down.weight", ".lora_up.weight", ".lora_A.weight", ".lora_B.default.weight", ".alpha", ".dora_scale", ".lora_magnitude_vector",
           ".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b", ".hada_t1", ".lokr_w1", ".lokr_w2", ".lokr_w2_a", ".lokr_w2_b", ".diff", ".diff_b",
           ".diff_m", ".lora_B.bias", ".lora_mid.weight", ".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight",
           ".oft_blocks", ".rescale", ".w_norm", ".b_norm", ".set_weight", ".reshape_weight", ".weight", ""]
SIZES = [0, 1, 4, 6, 64, 128, 256]
DEEP = [(8, 16, 16), (2, 8, 16, 16), (9, 8, 16, 16), (1, 0, 2, 2), (128, 16, 1, 2, 2), (128, 36, 1, 2, 2), (4, 36, 1, 2, 2)]
shapes = st.one_of(st.lists(st.sampled_from(SIZES), max_size=3), st.sampled_from(DEEP))
keys = st.builds("{}{}{}".format, st.sampled_from(PREFIXES), st.sampled_from(MODULES), st.sampled_from(ENDINGS))
tensors = st.builds(lambda shape, dtype: torch.ones(shape, dtype=dtype), shapes,
                    st.sampled_from([torch.float32, torch.bfloat16, torch.int64]))


@settings(max_examples=600, deadline=None)
@example({"blocks.0.self_attn.q.lora_B.bias": torch.ones(128), "blocks.0.self_attn.q.alpha": torch.ones(())})
@given(st.dictionaries(keys, tensors, max_size=6))
def test_any_table_of_tensors(table: dict[str, torch.Tensor]) -> None:
    try:
        form = normal_form(table, {}, SHAPES, "fuzz.safetensors")
    except LoraError as error:
        assert str(error).startswith("fuzz.safetensors: ")
        return
    effective = {"diff", "diff_b", "set_weight", "lora_up.weight", "hada_w1_a", "lokr_w1", "lokr_w1_a", "a1.weight", "oft_blocks"}
    for part in form.parts.values():
        assert part.modules
        assert all(roles.keys() & effective for roles in part.modules.values())


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([".safetensors", ".pt", ".ckpt"]))
def test_any_bytes(content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"fuzz{suffix}"
        path.write_bytes(content)
        try:
            assert isinstance(read_lora(path)[0], dict)
        except LoraError as error:
            assert str(error).startswith(f"fuzz{suffix}: ")
