"""What a file name says about the expert it holds."""

import pytest

from engine.pairs import expert_in_name, likely_pair, swapped_names_warning


@pytest.mark.parametrize(("name", "expert"), [
    ("wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors", "high"),
    ("wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors", "low"),
    ("Wan2_2-T2V-A14B-HIGH_fp8_e4m3fn_scaled_KJ.safetensors", "high"),
    ("Wan2.2-T2V-A14B-LowNoise-Q8_0.gguf", "low"),
    ("my-lora-high-v2.safetensors", "high"),
    ("style_L.safetensors", None),
    ("style_h.safetensors", None),
    ("style_HN.safetensors", "high"),
    ("style_LN_v2.safetensors", "low"),
    ("HIGH/style.safetensors", "high"),
    ("low noise\\style.safetensors", "low"),
    ("low/style_high.safetensors", "high"),
    ("wan2.2_high_noise_low_rank16.safetensors", "high"),
    ("Wan22-LowNoise-HighQuality.safetensors", "low"),
    ("\u9ad8\u566a_style.safetensors", "high"),
    ("high_noise_and_low_noise.safetensors", None),
    ("thigh_high_socks.safetensors", None),
    ("sky_high.safetensors", None),
    ("Low Angle Shot v2.safetensors", None),
    ("lowpoly_v2.safetensors", None),
    ("HIGH_KICK.safetensors", None),
    ("high_elf.safetensors", None),
    ("wan2.1_t2v_14B.safetensors", None),
    ("slow_motion.safetensors", None),
    ("yellow_flower.safetensors", None),
    ("highway_at_night.safetensors", None),
    ("high_and_low_merged.safetensors", None),
])
def test_names(name: str, expert: str | None) -> None:
    assert expert_in_name(name) == expert


@pytest.mark.parametrize(("files", "high", "low"), [
    (["flux.safetensors", "wan2.2_i2v_high.safetensors", "wan2.2_i2v_low.safetensors", "wan2.2_t2v_high.safetensors", "wan2.2_t2v_low.safetensors"],
     "wan2.2_t2v_high.safetensors", "wan2.2_t2v_low.safetensors"),
    (["wan2.2_i2v_high.safetensors", "wan2.2_i2v_low.safetensors", "wan2.2_t2v_high.safetensors"],
     "wan2.2_i2v_high.safetensors", "wan2.2_i2v_low.safetensors"),
    (["a_low.safetensors", "b_high.safetensors"], "b_high.safetensors", "a_low.safetensors"),
    (["flux.safetensors"], None, None),
    (["T2V\\LOW\\wan.gguf", "T2V\\HIGH\\wan.gguf"], "T2V\\HIGH\\wan.gguf", "T2V\\LOW\\wan.gguf"),
    ([], None, None),
])
def test_a_new_loader_begins_with_the_likely_pair(files: list[str], high: str | None, low: str | None) -> None:
    assert likely_pair(files) == (high, low)


def test_only_swapped_names_are_warned_about() -> None:
    assert swapped_names_warning("wan_high.safetensors", "wan_low.safetensors") is None
    assert swapped_names_warning("expert_a.safetensors", "expert_b.safetensors") is None
    warning = swapped_names_warning("wan_low.safetensors", "wan_high.safetensors")
    assert warning is not None
    assert "swapped" in warning
