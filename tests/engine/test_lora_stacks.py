"""A stack as a file: what is saved is what is read, and anything else is refused by its place and its value."""

import json
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.lora.routing import MAX_SCALE, TARGETS, LoraChoice
from engine.lora.stacks.format import MOST_BYTES, MOST_LORAS, MOST_WORDS, SavedLora, StackError, read_stack, stack_text
from engine.lora.stacks.links import is_link, link_of, links_in
from engine.lora.stacks.names import MOST_PART, file_named, is_text, leads_out
from engine.model_files import DOWNLOADS
from engine.spans import MAX_STEPS, Span

DIGEST = "0123456789abcdef" * 4
LINK = "https://somewhere.example/style.safetensors"
OFFICIAL = next(iter(DOWNLOADS["loras"]))
ENTRY = {"file": "styles/a.safetensors", "sha256": DIGEST, "scale": 0.8, "transformer": "auto", "first_step": 1, "last_step": 0}


def spans() -> st.SearchStrategy[Span]:
    steps = st.integers(1, MAX_STEPS)
    return st.tuples(steps, steps).map(lambda ends: Span(min(ends), max(ends))) | steps.map(Span)


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)
NAMES = TEXT.filter(lambda name: not leads_out(name))
CHOICES = st.builds(LoraChoice, NAMES, st.floats(-MAX_SCALE, MAX_SCALE), st.sampled_from(TARGETS), spans())
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
SAVED = st.builds(SavedLora, CHOICES, DIGESTS, st.none() | st.integers(0, 2**50), st.sampled_from(["", LINK]),
                  st.lists(TEXT, max_size=MOST_WORDS).map(tuple))


def content(*entries: Any, version: Any = 1) -> bytes:
    return json.dumps({"version": version, "loras": list(entries)}).encode()


def refusal(read: bytes) -> str:
    with pytest.raises(StackError) as refused:
        read_stack(read, "anime.json")
    return str(refused.value)


@given(st.lists(SAVED, max_size=5).map(tuple))
def test_what_is_saved_is_what_is_read(loras: tuple[SavedLora, ...]) -> None:
    assert read_stack(stack_text(loras).encode(), "a.json") == loras


def test_the_file_is_plain_json_that_people_can_read() -> None:
    lora = SavedLora(LoraChoice("\u53e4\u98ce.safetensors", 0.5, "high", Span(3, 4)), DIGEST, 7, LINK, ("ohwx",))
    text = stack_text([lora])
    assert "\u53e4\u98ce" in text
    assert json.loads(text) == {"version": 1, "loras": [{
        "file": "\u53e4\u98ce.safetensors", "sha256": DIGEST, "scale": 0.5, "transformer": "high", "first_step": 3, "last_step": 4, "size": 7,
        "url": LINK, "trigger_words": ["ohwx"]}]}


def test_an_editor_of_windows_may_have_written_it() -> None:
    assert read_stack(b"\xef\xbb\xbf" + content(ENTRY), "a.json") == read_stack(content(ENTRY), "a.json")


# --- refused ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ENTRY)
def test_every_field_is_needed(field: str) -> None:
    which = "" if field == "file" else " ('styles/a.safetensors')"
    without = {name: value for name, value in ENTRY.items() if name != field}
    assert f"LoRA 2{which}: {field} is missing." in refusal(content(ENTRY, without))


@pytest.mark.parametrize(("field", "value", "told"), [
    ("file", 3, "file is 3; it must be a text."), ("file", "", "file is ''"), ("file", "a\nb", r"file is 'a\nb'"),
    ("sha256", "abc", "sha256 is 'abc'"), ("sha256", DIGEST.upper(), "sha256 is '0123456789ABCDEF"),
    ("scale", "1", "scale is '1'; it must be a number."), ("scale", True, "scale is true"),
    ("scale", 4.5, "scale is 4.5; it must be between -4.0 and 4.0."), ("scale", 10**400, "scale is 1000"),
    ("transformer", "middle", "transformer is 'middle'; choose one of: auto, high, low, both."), ("transformer", "x" * 9999, "transformer is 'xxx"),
    ("first_step", 1.5, "first_step is 1.5; it must be a whole number."), ("first_step", 0, "first_step is 0"),
    ("first_step", True, "first_step is true"), ("last_step", 201, "last_step is 201"), ("size", -1, "size is -1"), ("size", "9", "size is '9'"),
    ("url", "javascript:alert(1)", "url is 'javascript"), ("url", 3, "url is 3"),
    ("trigger_words", "ohwx", "trigger_words is 'ohwx'; it must be a list."), ("trigger_words", [3], "trigger_words must be"),
    ("trigger_words", ["x"] * 11, "trigger_words must be"), ("trigger_words", ["a\x1bb"], "trigger_words must be"),
    ("strength", 1, "'strength' is no field"),
])
def test_a_wrong_value_is_named_with_file_entry_and_cure(field: str, value: Any, told: str) -> None:
    message = refusal(content({**ENTRY, field: value}))
    assert message.startswith("the stack 'anime.json' cannot be used: LoRA 1")
    assert told in message and message.endswith("Save the stack again with Wan 2.2 Save LoRA Stack, or correct the file.")
    assert len(message) < 700


def test_steps_out_of_order_are_refused() -> None:
    assert "first_step is 5, after last_step 4" in refusal(content({**ENTRY, "first_step": 5, "last_step": 4}))


@pytest.mark.parametrize("name", ["../a.safetensors", "styles/../../a.safetensors", "/etc/a.safetensors", "C:\\a.safetensors", "c:a.safetensors",
                                  "\\\\server\\a.safetensors", "styles\\..\\..\\a.safetensors", ".", "styles/", "styles//a"])
def test_names_that_lead_out_of_the_folder_are_refused(name: str) -> None:
    assert "leads out of models/loras" in refusal(content({**ENTRY, "file": name}))


@given(NAMES)
def test_names_that_are_taken_stay_below_on_every_system(name: str) -> None:
    for system in (PurePosixPath, PureWindowsPath):
        assert not system(name).is_absolute() and not system(name).drive and ".." not in system(name).parts


@pytest.mark.parametrize(("read", "told"), [
    (b"", "it is not JSON"), (b"[]", "[] stands where a table must be"), (b"\xff\xfe", "it is not text in UTF-8"),
    (b"[" * 200_000, "it is nested too deep"), (b'{"version": 1, "loras": [NaN]}', "it is not JSON (NaN is no number)"),
    (b'{"version": ' + b"9" * 5000 + b"}", "it is not JSON"),
    (b" " * (MOST_BYTES + 1), "a stack has at most 4,000,000"), (b'{"loras": []}', "version is missing"), (b'{"version": 1}', "loras is missing"),
    (content(version=2), "version is 2; this pack knows version 1"), (content(version="1"), "version is '1'; it must be a whole number"),
    (content(version=True), "version is true"), (content(*[ENTRY] * (MOST_LORAS + 1)), "it has 101 LoRAs"),
    (content(3), "LoRA 1: 3 stands where a table"),
    (b'{"version": 1, "loras": [], "extra": 1}', "'extra' is no field"),
], ids=range(15))
def test_what_is_no_stack_is_refused(read: bytes, told: str) -> None:
    message = refusal(read)
    assert message.startswith("the stack 'anime.json' cannot be ") and told in message and len(message) < 700


FIELDS = st.sampled_from([*ENTRY, "size", "url", "trigger_words", "version", "loras"])
ANYTHING = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                        lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner), max_leaves=10)


@given(st.binary(max_size=200) | ANYTHING.map(lambda value: json.dumps(value).encode()) | ANYTHING.map(lambda value: content(value)))
def test_whatever_the_file_holds_it_is_a_stack_or_an_error_of_ours(read: bytes) -> None:
    try:
        assert stack_text(read_stack(read, "a.json"))
    except StackError as error:
        assert is_text(str(error).replace("\n", ""))


def test_a_stack_that_could_not_be_read_again_is_not_written() -> None:
    lora = SavedLora(LoraChoice("a.safetensors"), DIGEST)
    with pytest.raises(StackError, match="the stack has 101 LoRAs; a file holds at most 100"):
        stack_text([lora] * (MOST_LORAS + 1))


# --- names of stacks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "file"), [("my_stack", "my_stack.json"), (" anime/my stack.json ", "anime/my stack.json"), ("a\\b", "a/b.json"),
                                            ("v1.2", "v1.2.json"),
                                            ("a?b:c", "a_b_c.json"), ("con", "_con.json"), ("\u53e4\u98ce", "\u53e4\u98ce.json")])
def test_a_stack_gets_a_name_that_every_system_takes(name: str, file: str) -> None:
    assert file_named(name) == file


@pytest.mark.parametrize("name", ["", " ", ".json", "..", "../a", "a/../../b", "/a", "C:\\a", "c:a", "a/", "a\nb", "\ud800", "a\\..\\b"])
def test_a_name_that_is_none_or_leads_out_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"it must be a name below models/loras/stacks, such as my_stack"):
        file_named(name)


def test_a_long_name_is_refused() -> None:
    assert file_named("x" * (MOST_PART - 5)).startswith("xxx")
    for name in ("x" * MOST_PART, "\u53e4" * 80, "/".join("x" * 600)):
        with pytest.raises(ValueError, match="Choose a shorter one"):
            file_named(name)


@given(st.text(max_size=40))
def test_no_name_leads_out(name: str) -> None:
    try:
        file = file_named(name)
    except ValueError:
        return
    assert not leads_out(file) and file.endswith(".json") and file == file_named(file)


# --- links -----------------------------------------------------------------------------------------------------------------------


def model(name: str, url: Any = LINK, directory: str = "loras") -> dict[str, Any]:
    return {"name": name, "url": url, "directory": directory}


def node(*models: Any) -> dict[str, Any]:
    return {"type": "Wan22LoRA", "properties": {"models": list(models)}}


def test_links_come_from_nodes_in_graph_and_subgraphs() -> None:
    workflow = {"nodes": [node(model("a.safetensors"), model("b.safetensors", directory="vae"), model("c.safetensors", "file:///x"))],
                "definitions": {"subgraphs": [{"nodes": [node(model("sub\\d.safetensors"))]}]}}
    assert set(links_in(workflow)) - set(DOWNLOADS["loras"]) == {"a.safetensors", "sub/d.safetensors"}
    assert link_of("styles/a.safetensors", links_in(workflow)) == link_of("sub/d.safetensors", links_in(workflow)) == LINK
    assert link_of("b.safetensors", links_in(workflow)) == ""


def test_no_workflow_changes_an_official_link() -> None:
    assert links_in({"nodes": [node(model(OFFICIAL))]})[OFFICIAL] == DOWNLOADS["loras"][OFFICIAL]


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"nodes": x}, lambda x: {"nodes": [x]}, lambda x: {"nodes": [{"properties": x}]},
                                  lambda x: {"nodes": [{"properties": {"models": x}}]}, lambda x: {"nodes": [node(x)]}, lambda x: {"definitions": x},
                                  lambda x: {"definitions": {"subgraphs": x}}, lambda x: {"definitions": {"subgraphs": [x]}},
                                  lambda x: {"nodes": [node({"name": x, "url": x, "directory": x})]}], ids=range(10))
@pytest.mark.parametrize("anything", [None, 3, "x", [], [None], {}, {"a": 1}])
def test_a_workflow_may_be_anything(wrap: Callable[[Any], Any], anything: Any) -> None:
    assert links_in(wrap(anything)) == DOWNLOADS["loras"]


@pytest.mark.parametrize(("text", "answer"), [(LINK, True), ("http://a.b/c?d=e&f", True), ("ftp://a.b/c", False), ("https://", False),
                                              ("https://a b", False), ("https://a/<b>", False), ("https://a/\n", False), ("https://[", False),
                                              ("", False),
                                              ("https://a/" + "x" * 2000, False)])
def test_only_web_addresses_are_links(text: str, answer: bool) -> None:
    assert is_link(text) is answer
