"""Names from public reports: English words are no experts, a partner decides what is in doubt, and half of a pair is never silent."""

import json
from pathlib import Path

import pytest

from engine.lora.routing import LoraChoice, Routing, routes

NAMES = json.loads((Path(__file__).parents[1] / "field" / "lora_names.json").read_text(encoding="utf-8"))
PARTNERS = {"style_HN.safetensors": "style_LN.safetensors", "high/style.safetensors": "low/style.safetensors",
            "lightning_h.safetensors": "lightning_l.safetensors"}
DOUBTFUL = ["portrait_H.safetensors", "high_elf_v2.safetensors", "style_high_rank64.safetensors", "hn_style.safetensors", "h/style.safetensors",
            "my_low_mood.safetensors"]
THINGS = ["low_poly.safetensors", "HighHeels.safetensors", "High Contrast v2.safetensors", "low-angle.safetensors", "HIGH_RES.safetensors",
          "high_quality_low_poly.safetensors", "Low Light.safetensors"]


def auto(file: str, *others: str, held: tuple[str, ...] = (), chosen: tuple[str, ...] = ()) -> Routing:
    return routes(LoraChoice(file), held, [file, *others], [file, *chosen])


def experts(routing: Routing) -> set[str]:
    return {route.expert for route in routing.routes}


@pytest.mark.parametrize("case", NAMES, ids=lambda case: case["file"])
def test_public_names(case: dict[str, str]) -> None:
    partner = PARTNERS.get(case["file"])
    routing = auto(case["file"], *filter(None, [partner]))
    to = [route.expert for route in routing.routes if route.name == case["file"]]
    assert to == (["high", "low"] if case["expert"] == "both" else [case["expert"]])
    assert [route.name for route in routing.routes if route.name != case["file"]] == [*filter(None, [partner])]


@pytest.mark.parametrize("name", THINGS)
def test_english_words_are_no_experts_whatever_files_there_are(name: str) -> None:
    swapped = name.replace("high", "L0W").replace("High", "L0w").replace("HIGH", "L0W")
    opposite = swapped.replace("low", "high").replace("Low", "High").replace("L0W", "low").replace("L0w", "Low")
    routing = auto(name, opposite)
    assert {(route.name, route.expert) for route in routing.routes} == {(name, "high"), (name, "low")}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_partner_decides_what_is_in_doubt(name: str) -> None:
    other = {"portrait_H.safetensors": "portrait_L.safetensors", "high_elf_v2.safetensors": "low_elf_v2.safetensors",
             "style_high_rank64.safetensors": "style_low_rank32.safetensors", "hn_style.safetensors": "ln_style.safetensors",
             "h/style.safetensors": "l/style.safetensors", "my_low_mood.safetensors": "my_high_mood.safetensors"}[name]
    alone, paired = auto(name), auto(name, other)
    assert experts(alone) == {"high", "low"}
    assert {route.name for route in alone.routes} == {name}
    assert "its name is in doubt" in alone.routes[0].why
    mine = "low" if "low" in name else "high"
    assert {(route.name, route.expert) for route in paired.routes} == {(name, mine), (other, "low" if mine == "high" else "high")}
    assert "and there is a partner" in paired.routes[0].why


@pytest.mark.parametrize(("name", "lacks"), [
    ("Wan2.2-Lightning_T2V-A14B-4steps-lora_HIGH_fp16.safetensors", "Wan2.2-Lightning_T2V-A14B-4steps-lora_LOW_fp16.safetensors"),
    ("wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors", "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors"),
    ("Physics\\HighNoise.safetensors", "Physics/LowNoise.safetensors"), ("a_hinoise.safetensors", "a_lownoise.safetensors"),
    ("style_LN.safetensors", "style_HN.safetensors"), ("HIGH/style.safetensors", "LOW/style.safetensors"),
    ("high_noise_low_rank.safetensors", "low_noise_low_rank.safetensors"),
    ("\u9ad8\u566a.safetensors", "\u4f4e\u566a.safetensors")])
def test_half_of_a_pair_is_never_silent(name: str, lacks: str) -> None:
    alone, whole = auto(name, "unrelated.safetensors"), auto(name, lacks)
    (route,) = alone.routes
    assert alone.half is not None
    assert (alone.half.lacks, alone.half.expert) == (lacks, "low" if route.expert == "high" else "high")
    assert alone.warning is not None
    assert f"no '{lacks}' is in models/loras" in alone.warning
    assert f"the {alone.half.expert}-noise expert goes without" in route.why
    assert whole.half is whole.warning is None
    assert {route.name for route in whole.routes} == {name, lacks}
    assert auto(name, lacks, chosen=(lacks,)).half is None


@pytest.mark.parametrize(("high", "low"), [("WAN22_HIGH_mychar_v1.1.safetensors", "WAN22_LOW_mychar_v1.0.safetensors"),
                                           ("wan22-high-mychar-000020.safetensors", "wan22-low-mychar-000030.safetensors"),
                                           ("HIGH_style_v2.safetensors", "LOW_style_v3.safetensors")])
def test_halves_of_other_versions_go_to_their_experts_and_warn(high: str, low: str) -> None:
    for name, other, expert in ((high, low, "high"), (low, high, "low")):
        routing = auto(name, other, chosen=(other,))
        assert experts(routing) == {expert} and routing.warning is not None


def test_a_word_in_doubt_warns_and_a_letter_or_a_thing_does_not() -> None:
    assert "Set transformer to high or low" in (auto("mychar_high_rank32_e20.safetensors").warning or "")
    assert [auto(name).warning for name in ("portrait_H.safetensors", "High Contrast v2.safetensors", "style.safetensors")] == [None] * 3


def test_several_partners_are_named_in_the_warning() -> None:
    routing = auto("a_high.safetensors", "a_low.safetensors", "a_LOW.safetensors")
    assert routing.warning is not None
    assert "several files could be its partner (a_low.safetensors, a_LOW.safetensors)" in routing.warning


def test_a_scale_of_zero_lacks_nothing() -> None:
    assert routes(LoraChoice("a_high.safetensors", 0.0), (), ["a_high.safetensors"], []).warning is None


@pytest.mark.parametrize("held", ["high", "low"])
def test_keys_say_more_than_the_name(held: str) -> None:
    routing = auto("style.safetensors", held=(held,))
    assert experts(routing) == {held}
    assert routing.half is not None
    assert routing.routes[0].why.startswith(f"auto: its keys say {held}")


@pytest.mark.parametrize("slashes", [("\\", "/"), ("/", "\\"), ("\\", "\\")])
def test_either_slash_is_a_folder(slashes: tuple[str, str]) -> None:
    mine, theirs = slashes
    routing = auto(f"wan{mine}style_high.safetensors", f"wan{theirs}style_low.safetensors")
    assert {route.name for route in routing.routes} == {f"wan{mine}style_high.safetensors", f"wan{theirs}style_low.safetensors"}
    assert auto(f"wan{mine}style_high.safetensors", f"wan{theirs}style_low.safetensors", chosen=(f"wan{mine}style_low.safetensors",)).half is None


@pytest.mark.parametrize("target", ["high", "low", "both"])
def test_what_was_asked_needs_no_guess(target: str) -> None:
    routing = routes(LoraChoice("portrait_H.safetensors", target=target), (), [], [])
    assert experts(routing) == ({"high", "low"} if target == "both" else {target})
    assert routing.warning is routing.half is None


def test_a_half_that_was_asked_for_is_in_the_report_only() -> None:
    high, low = "a_high.safetensors", "a_low.safetensors"
    alone = routes(LoraChoice(high, target="high"), (), [high, low], [high])
    assert alone.routes[0].why == "as asked; the low-noise expert goes without"
    assert alone.warning is alone.half is None
    assert routes(LoraChoice(high, target="high"), (), [high, low], [high, low]).routes[0].why == ""


def test_a_large_folder_takes_no_time() -> None:
    files = [f"folder_{index % 50}/style_{index}_{side}_noise.safetensors" for index in range(1000) for side in ("high", "low")]
    assert {route.name for route in auto(files[0], *files[1:]).routes} == {files[0], files[1]}
