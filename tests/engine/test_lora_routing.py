"""Where LoRA files go, by the names that published Wan 2.2 LoRAs have."""

import pytest

from engine.lora.routing import LoraChoice, Route, read_name, routes

PAIRS = [
    ("wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors", "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors"),
    ("Wan2.2-Lightning_T2V-A14B-4steps-lora_HIGH_fp16.safetensors", "Wan2.2-Lightning_T2V-A14B-4steps-lora_LOW_fp16.safetensors"),
    ("Wan22_A14B_T2V_HIGH_Lightning_4steps_lora_250928_rank128_fp16.safetensors",
     "Wan22_A14B_T2V_LOW_Lightning_4steps_lora_250928_rank64_fp16.safetensors"),
    ("Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1.1/high_noise_model.safetensors",
     "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1.1/low_noise_model.safetensors"),
    ("Wan2.2-Fun-A14B-InP-HIGH-MPS_resized_dynamic_avg_rank_21_bf16.safetensors",
     "Wan2.2-Fun-A14B-InP-LOW-MPS_resized_dynamic_avg_rank_15_bf16.safetensors"),
    ("Instagirlv2.0_hinoise.safetensors", "Instagirlv2.0_lownoise.safetensors"),
    ("WAN2.2-HighNoise_SmartphoneSnapshotPhotoReality_v3_by-AI_Characters.safetensors",
     "WAN2.2-LowNoise_SmartphoneSnapshotPhotoReality_v3_by-AI_Characters.safetensors"),
    ("wan22-mouse-high-noise-e40.safetensors", "wan22-mouse-low-noise-e40.safetensors"),
    ("DR34ML4Y_T2V_14B_HIGH_V2.safetensors", "DR34ML4Y_T2V_14B_LOW_V2.safetensors"),
    ("wan22-f4c3spl4sh-100epoc-high-k3nk.safetensors", "wan22-f4c3spl4sh-100epoc-low-k3nk.safetensors"),
    ("Wan2.2_T2V_14B_orbit_shot_high.safetensors", "Wan2.2_T2V_14B_orbit_shot_low.safetensors"),
    ("23High noise-Cinematic Lighting.safetensors", "23Low noise-Cinematic Lighting.safetensors"),
    ("l3n0v0_h.safetensors", "l3n0v0_l.safetensors"),
    ("my_style_000002500_high_noise.safetensors", "my_style_000002500_low_noise.safetensors"),
    ("styles/anime-HIGH.safetensors", "styles/anime-LOW.safetensors"),
    ("PhysicsHighNoise.safetensors", "PhysicsLowNoise.safetensors"),
    ("slow_motion_high.safetensors", "slow_motion_low.safetensors"),
]
FILES = [name for pair in PAIRS for name in pair] + ["wan21_style.safetensors", "yellow_flowers.safetensors"]


@pytest.mark.parametrize(("high", "low"), PAIRS)
def test_published_pairs_find_each_other_and_their_experts(high: str, low: str) -> None:
    assert {(route.name, route.expert) for route in routes(LoraChoice(high), (), FILES, [high]).routes} == {(high, "high"), (low, "low")}
    assert {(route.name, route.expert) for route in routes(LoraChoice(low), (), FILES, [low]).routes} == {(high, "high"), (low, "low")}


@pytest.mark.parametrize("name", ["wan21_style.safetensors", "yellow_flowers.safetensors"])
def test_names_that_say_neither_go_to_both(name: str) -> None:
    assert routes(LoraChoice(name, 0.7), (), FILES, [name]).routes == [Route(name, 0.7, "high"), Route(name, 0.7, "low")]


def test_a_file_with_both_experts_goes_to_both_whatever_its_name() -> None:
    assert [route.expert for route in routes(LoraChoice(PAIRS[0][0]), ("high", "low"), FILES, []).routes] == ["high", "low"]


def test_a_partner_in_the_stack_is_not_put_on_twice() -> None:
    high, low = PAIRS[0]
    assert [route.name for route in routes(LoraChoice(high), (), FILES, [high, low]).routes] == [high]


def test_several_candidates_are_none() -> None:
    assert read_name("a_high.safetensors", ["a_high.safetensors", "a_low.safetensors", "a_LOW.safetensors"]).partner is None


def test_partners_stay_in_their_folder() -> None:
    assert read_name("x/a_high.safetensors", ["x/a_high.safetensors", "y/a_low.safetensors"]).partner is None


@pytest.mark.parametrize(("wrong", "message"), [({"scale": 4.5}, "scale is 4.5"), ({"scale": float("nan")}, "scale is nan"),
                                                ({"target": "middle"}, "transformer is 'middle'")])
def test_choices_out_of_range_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraChoice("a.safetensors", **wrong)
