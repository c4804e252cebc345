"""What metadata tells of a LoRA: what helps a user, one short line of plain text, whatever the file holds."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.lora.about import LONGEST_PHRASE, MOST_CHARACTERS, MOST_JSON, MOST_WORDS, TRIGGERS, about, harmless, trigger_words

FIELD = json.loads((Path(__file__).parents[1] / "field" / "lora_cases.json").read_text(encoding="utf-8"))["cases"]
CASES = {case["name"]: case.get("raw_metadata", case.get("metadata")) for case in FIELD if {"raw_metadata", "metadata"} & set(case)}
NAME = "styles/a.safetensors"
ACTIVE = ("<", ">", "[", "]", "`", "|", "\\", "*", "~", "://", "www.")


def tags(folders: dict[str, Any], sizes: dict[str, Any] | None = None) -> dict[str, str]:
    return {"ss_tag_frequency": json.dumps(folders)} | ({"ss_dataset_dirs": json.dumps(sizes)} if sizes is not None else {})


def said(metadata: dict[str, Any]) -> str:
    return about(NAME, metadata).removeprefix(f"{NAME}: ")


# --- as trainers write it --------------------------------------------------------------------------------------------------------


def test_kohya_and_musubi_tuner() -> None:
    """modelspec beside ss_; a title that is the file's own name tells nothing, Wan as the base neither."""
    metadata = {"ss_base_model_version": "wan", "modelspec.architecture": "wan2.1/lora", "modelspec.title": "a", "modelspec.resolution": "960x544",
                "modelspec.date": "2025-08-21T10:11:12", "ss_network_dim": "32",
                **tags({"10_rain": {"rainstorm style": 40, "street": 12}, "5_more": {"rainstorm style": 10, "night": 9}},
                       {"10_rain": {"n_repeats": 10, "img_count": 40}, "5_more": {"n_repeats": 5, "img_count": 10}})}
    assert said(metadata) == "trigger words: rainstorm style; trained at 960x544, 2025-08-21"


def test_ai_toolkit() -> None:
    metadata = {"format": "pt", "name": "my_lora", "training_info": '{"step": 2000, "epoch": 12}', "ss_base_model_version": "wan22_14b",
                "ss_output_name": "my_lora", **tags({"1_ohwx": {"ohwx": 1}})}
    assert said(metadata) == "trigger words: ohwx"


def test_managers_of_models() -> None:
    """They write what a model's page says."""
    metadata = {"modelspec.trigger_phrase": "arcane style, painterly", "modelspec.title": "Arcane", "modelspec.author": "Somebody",
                **tags({"1_x": {"x": 1}})}
    assert said(metadata) == "trigger words: arcane style, painterly; 'Arcane' by Somebody"


@pytest.mark.parametrize("key", TRIGGERS)
def test_every_key_of_the_field_names_trigger_words(key: str) -> None:
    assert trigger_words({key: "ohwx"}) == trigger_words({key: '["ohwx"]'}) == trigger_words({key: ["ohwx", "ohwx", 3]}) == ("ohwx",)


@pytest.mark.parametrize(("base", "told"), [("sdxl_base_v1-0", "made for sdxl_base_v1-0"), ("Wan2.2-I2V-A14B", "made for Wan2.2-I2V-A14B"),
                                            ("Wan2.2-T2V", ""), ("wan2.2_ti2v", ""), ("unknown", ""), ("Flux.1-dev/lora", "made for Flux.1-dev")])
def test_another_base_model_is_said(base: str, told: str) -> None:
    assert said({"ss_base_model_version": base}) == said({"modelspec.architecture": base}) == told


def test_the_time_of_training_is_a_day() -> None:
    assert said({"ss_training_finished_at": "1755770000.5", "ss_resolution": "(960, 544)"}) == "trained at 960x544, 2025-08-21"
    assert all(not said({"ss_training_finished_at": text}) for text in ("nan", "inf", "-inf", "1e300", "0", "yesterday", ""))


@pytest.mark.parametrize("name", CASES)
def test_metadata_without_a_word_for_users_has_no_line(name: str) -> None:
    assert about(NAME, CASES[name]) == ""


@pytest.mark.parametrize("word", ["", "None", "null", "unknown"])
def test_words_for_what_nobody_knows_tell_nothing(word: str) -> None:
    keys = ("modelspec.title", "modelspec.author", "ss_base_model_version", "modelspec.date", "ss_resolution", *TRIGGERS)
    assert said(dict.fromkeys(keys, word)) == ""


# --- tags ------------------------------------------------------------------------------------------------------------------------


def test_only_tags_of_nearly_all_pictures_are_trigger_words() -> None:
    found = {"sks": 20, "woman": 19, "smile": 12}
    assert trigger_words(tags({"f": found})) == trigger_words(tags({"f": found}, {"f": {"img_count": 20}})) == ("sks", "woman")
    assert trigger_words(tags({"f": found}, {"f": {"img_count": 40}})) == ()


def test_whole_captions_are_no_tags() -> None:
    assert trigger_words(tags({"f": {f"A sentence of picture {number}": 1 for number in range(30)}})) == ()
    assert trigger_words(tags({"f": {"x" * 80: 30, "sks": 30}})) == ("sks",)


def test_escaped_parentheses_are_parentheses() -> None:
    assert trigger_words(tags({"f": {r"asuka \(evangelion\)": 5}})) == ("asuka (evangelion)",)


# --- hostile ---------------------------------------------------------------------------------------------------------------------

ANYTHING = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=30),
                        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4), max_leaves=12)
KEYS = st.sampled_from([*TRIGGERS, "ss_tag_frequency", "ss_dataset_dirs", "modelspec.title", "modelspec.author", "modelspec.architecture",
                        "ss_base_model_version", "modelspec.resolution", "ss_resolution", "modelspec.date", "ss_training_finished_at"])


@given(st.dictionaries(KEYS, ANYTHING | ANYTHING.map(json.dumps)))
def test_whatever_is_in_it_the_line_is_short_and_plain(metadata: dict[str, Any]) -> None:
    line = said(metadata)
    assert len(line) <= MOST_CHARACTERS
    assert_plain(line)
    assert len(trigger_words(metadata)) <= MOST_WORDS and all(0 < len(word) <= LONGEST_PHRASE for word in trigger_words(metadata))


@given(st.text() | st.text(alphabet="<>[]()`*_~|\\:/w. \n\u202e\u200b"))
def test_no_text_is_markup(text: str) -> None:
    assert_plain(harmless(text, 50))
    assert len(harmless(text, 50)) <= 50


def assert_plain(line: str) -> None:
    assert line == line.strip() and not any(unicodedata.category(letter)[0] == "C" or letter in "\u2028\u2029" for letter in line)
    assert [mark for mark in ACTIVE if mark in line.lower()] == []


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>", "![](https://somewhere/p.png)", "[click](javascript:alert(1))", "`x`",
                                  "**b** __u__ ~~s~~", "a\n\n# head", "a\x1b[31m\x07\u202e", "hhttps://ttps://x", "wwwwww.w.x"])
def test_marks_become_text(text: str) -> None:
    assert_plain(said({"modelspec.trigger_phrase": text}))


def test_a_word_stays_what_must_be_typed() -> None:
    assert trigger_words({"trigger_word": "my_style v2.1 (dark), 3d: on!"}) == ("my_style v2.1 (dark), 3d: on!",)
    assert trigger_words({"trigger_word": "\u53e4\u98ce"}) == ("\u53e4\u98ce",)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"a": ' * 50_000, '{"f": {"x": NaN}}', '{"f": {"x": 1e999}}', "null",
                                  '{"f": {"x": ' + "9" * 5000 + "}}", '{"f": {"' + "x" * MOST_JSON + '": 3}}'], ids=range(8))
def test_broken_and_huge_tables_are_passed_over(text: str) -> None:
    assert said({"ss_tag_frequency": text, "ss_dataset_dirs": text, "modelspec.resolution": text}) == ""
