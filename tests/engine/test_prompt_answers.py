"""What is left of a language model's answer is the prompt, and nothing of the prompt is taken away."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.prompt.answers import MAX_WORDS, MOST_CHARACTERS, is_chinese, lost, prompt_in, shortened, words

FOX = 'A red fox in a snowy wood trots past a sign that says "CAFE 24". The camera is static.'
CHINESE = "\u4e00\u53ea\u7ea2\u72d0\u72f8\u5728\u96ea\u5730\u91cc\u8dd1\uff0c\u955c\u5934\u8ddf\u968f\u3002"


@pytest.mark.parametrize("answer", [
    FOX,
    f"  {FOX}\n",
    f"<think>The user wants a fox.\n</think>\n\n{FOX}",
    f"I should think about it.</think>{FOX}",
    f"<thinking>hm</thinking><THINK>hm</THINK>{FOX}",
    f"<|channel|>analysis<|message|>a fox<|end|><|start|>assistant<|channel|>final<|message|>{FOX}<|return|>",
    f"Sure! Here is the expanded prompt:\n\n{FOX}",
    f"Certainly! Here's a detailed version of your prompt for Wan 2.2:\n{FOX}",
    f"Okay, here\u2019s the rewritten prompt: {FOX}",
    f"**Expanded prompt:** {FOX}",
    f"## Prompt\n\n{FOX}".replace("## Prompt", "## Prompt:"),
    f"```text\n{FOX}\n```",
    f"Here is the prompt:\n```\n{FOX}\n```\nLet me know if you need more.",
    f"{FOX}\n\nLet me know if you would like another one!",
    f"{FOX}\n\n(Word count: 18)",
    f"{FOX}\n\n*Note: I kept the sign.*".replace("*Note", "Note"),
    f"<prompt>{FOX}</prompt>",
    FOX.replace("red fox", "**red fox**").replace("The camera", "\n\nThe *camera*"),
    f"> {FOX}",
    f"1. {FOX}",
    f"{FOX}<|im_end|>",
])
def test_talk_and_markup_around_the_prompt_go(answer: str):
    assert prompt_in(answer) == FOX


@pytest.mark.parametrize("quotes", ['""', "''", "\u201c\u201d", "\u300c\u300d"])
def test_quotation_marks_around_the_whole_go(quotes: str):
    assert prompt_in(f"{quotes[0]}A fox trots. It snows.{quotes[1]}") == "A fox trots. It snows."


@pytest.mark.parametrize("preface", ["\u597d\u7684\uff0c\u4ee5\u4e0b\u662f\u6269\u5c55\u540e\u7684\u63d0\u793a\u8bcd\uff1a",
                                     "\u63d0\u793a\u8bcd\uff1a", "<think>\u55ef</think>"])
def test_the_same_in_chinese(preface: str):
    assert prompt_in(preface + CHINESE) == CHINESE


@pytest.mark.parametrize("kept", [
    '"HELLO" says the first sign, the second says "BYE"',
    "Great white sharks circle a boat. The camera dives.",
    "Here the road ends at 10:30 in the morning.",
    "This is a quiet harbour at dawn.",
    "Notebooks lie on a desk of 3 * 4 feet.",
    "A cat_with_underscores and an e-mail sign: a * b * c",
    "Of course the dog wins",
    "A man looks at the camera: he smiles.",
    "This is a kitchen at dawn: a woman kneads dough.",
    "Here is a busy market street in Tokyo: neon lights glow.",
    "A red 2*4*6 block of wood",
])
def test_what_only_looks_like_talk_stays(kept: str):
    assert prompt_in(kept) == kept


@pytest.mark.parametrize("answer", ["", " \n", "<think>I cannot stop thinking about foxes", "<think>a</think>", "```\n```", "<|im_end|>"])
def test_an_answer_without_a_prompt_is_empty(answer: str):
    assert prompt_in(answer) == ""


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_answer_becomes_one_line(answer: str):
    prompt = prompt_in(answer)
    assert "\n" not in prompt and prompt == prompt.strip()


def test_paragraphs_before_the_last_stay():
    text = "A fox.\n\nThis version of the city is dark and wet.\n\nThe camera pans."
    assert prompt_in(text) == "A fox. This version of the city is dark and wet. The camera pans."


@pytest.mark.parametrize("hostile", ["a" + "\n" * 10**6 + "b", "```" + "a" * 10**6, "*a " * 300_000, "a. " * 300_000, "<think>" * 100_000,
                                     "> " * 10**6, "sure, " * 100_000, "(" * 10**6])
def test_an_answer_of_a_megabyte_is_cut_and_becomes_one_line(hostile: str):
    """Work that grows with the square of its length would not end."""
    prompt = prompt_in(hostile)
    assert "\n" not in prompt and prompt == prompt.strip() and len(prompt) <= MOST_CHARACTERS


def test_long_answers_end_after_a_whole_sentence():
    text = prompt_in(" ".join(f"Sentence number {index} has six words." for index in range(100)))
    assert MAX_WORDS - 6 < words(text) <= MAX_WORDS and text.endswith("words.")
    endless = "word " * 400 + "end."
    assert shortened(endless) == endless


def test_chinese_characters_count_by_what_they_say():
    assert words("\u4e2d" * 170) == 100
    assert words("a red fox, \u72d0\u72f8") == 4


def test_language_is_told_by_its_letters():
    assert is_chinese(CHINESE)
    assert not is_chinese(FOX)
    assert not is_chinese('A shop sign that reads "\u832a\u9986" above an old wooden door')
    assert not is_chinese("\U0001f98a\U0001f332")


def test_names_of_quoted_texts_and_numbers_that_got_lost():
    prompt = 'Two cats, 3 dogs and a sign "CAFE 24" at 7.5 metres'
    assert lost(prompt, 'three dogs, 2 cats, a sign saying "cafe 24"') == ("3", "7.5")
    assert lost(prompt, prompt) == ()
