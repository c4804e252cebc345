"""The request is the hosted endpoint's: its defaults, its ranges, its errors; and no body whatever does more than be refused."""

import json
import random
from typing import Any

import pytest
from wan22.api.contract import ENDPOINT, MAX_BODY_BYTES, MAX_LORAS, MAX_PROMPT_LENGTH, NO_INTERPOLATOR, LoRAWeight, TextToVideoInput, parse
from wan22.api.errors import InvalidRequest

import hosted_contract as hosted
from engine.interpolation.checkpoints import FAMILIES
from engine.sampling.forecast import ACCELERATIONS
from engine.video.formats import QUALITIES, WRITE_MODES
from engine.video.sizes import ASPECT_RATIOS, MAX_FRAMES, MIN_FRAMES, RESOLUTIONS


def body(**fields: Any) -> bytes:
    return json.dumps({"prompt": "a fox", **fields}).encode()


def refusal(sent: bytes) -> dict[str, Any]:
    """The one reason why it is refused."""
    with pytest.raises(InvalidRequest) as caught:
        parse(sent)
    assert caught.value.status == 422
    (detail,) = caught.value.body()["detail"]
    assert detail["url"] == f"https://docs.fal.ai/errors#{detail['type']}"
    return detail


def test_only_the_prompt_is_needed() -> None:
    parsed = parse(b'{"prompt": "a fox"}')
    assert parsed.model_dump() == {"prompt": "a fox", **hosted.DEFAULTS}
    detail = refusal(b"{}")
    assert (detail["loc"], detail["type"]) == (["body", "prompt"], "missing")


def test_the_endpoint_is_the_hosted_one() -> None:
    assert ENDPOINT == hosted.ENDPOINT
    assert set(TextToVideoInput.model_fields) == hosted.PARAMETERS
    assert set(LoRAWeight.model_fields) == hosted.LORA_PARAMETERS


@pytest.mark.parametrize(("name", "number"), hosted.NUMBERS.items())
def test_numbers_keep_their_range(name: str, number: hosted.Number) -> None:
    for value in (number.low, number.high):
        assert getattr(parse(body(**{name: value})), name) == value
    for value, kind, limit in ((number.low - number.step, "greater_than_equal", {"ge": number.low}),
                               (number.high + number.step, "less_than_equal", {"le": number.high})):
        detail = refusal(body(**{name: value}))
        assert (detail["loc"], detail["type"], detail["ctx"], detail["input"]) == (["body", name], kind, limit, value)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, choice in hosted.CHOICES.items() for value in choice.values])
def test_choices_are_taken(name: str, value: str) -> None:
    assert getattr(parse(body(**{name: value})), name) == value


@pytest.mark.parametrize("name", hosted.CHOICES)
@pytest.mark.parametrize("value", ["", "custom", "FILM", None, 1, [], {}])
def test_other_choices_are_not(name: str, value: Any) -> None:
    detail = refusal(body(**{name: value}))
    assert (detail["loc"], detail["type"]) == (["body", name], "literal_error")
    assert all(choice in detail["ctx"]["expected"] for choice in hosted.CHOICES[name].values)


@pytest.mark.parametrize("name", hosted.SWITCHES)
def test_switches_are_as_lax_as_fastapi(name: str) -> None:
    for value, meant in ((True, True), (False, False), (1, True), (0, False), ("true", True), ("off", False)):
        assert getattr(parse(body(**{name: value})), name) is meant
    for wrong, kind in ((2, "bool_parsing"), ("maybe", "bool_parsing"), (None, "bool_type"), ([], "bool_type")):
        detail = refusal(body(**{name: wrong}))
        assert (detail["loc"], detail["type"]) == (["body", name], kind)


def test_numbers_are_as_lax_as_fastapi() -> None:
    parsed = parse(body(num_frames="33", shift="2.5", guidance_scale=2, num_inference_steps=4.0, seed="7"))
    assert (parsed.num_frames, parsed.shift, parsed.guidance_scale, parsed.num_inference_steps, parsed.seed) == (33, 2.5, 2, 4, 7)
    assert refusal(body(num_frames=33.5))["type"] == "int_from_float"
    assert refusal(body(num_frames="many"))["type"] == "int_parsing"


@pytest.mark.parametrize("name", hosted.NUMBERS)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_are_finite(name: str, value: str) -> None:
    detail = refusal(f'{{"prompt": "a fox", "{name}": {value}}}'.encode())
    assert (detail["loc"], detail["type"]) == (["body", name], "finite_number")


@pytest.mark.parametrize("name", hosted.NUMBERS)
@pytest.mark.parametrize("digits", [25, 400, 4000])
def test_huge_numbers_are_refused_where_they_are(name: str, digits: int) -> None:
    assert refusal(b'{"prompt": "a fox", "%s": %s}' % (name.encode(), b"9" * digits))["loc"] == ["body", name]


@pytest.mark.parametrize("name", sorted(hosted.DEFAULTS.keys() - {"seed"}))
def test_only_the_seed_may_be_null(name: str) -> None:
    assert parse(body(seed=None)).seed is None
    assert refusal(body(**{name: None}))["loc"] == ["body", name]


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_prompts_end_somewhere(name: str) -> None:
    assert len(getattr(parse(body(**{name: "狐" * MAX_PROMPT_LENGTH})), name)) == MAX_PROMPT_LENGTH
    detail = refusal(body(**{name: "狐" * (MAX_PROMPT_LENGTH + 1)}))
    assert (detail["loc"], detail["type"], detail["ctx"]) == (["body", name], "string_too_long", {"max_length": MAX_PROMPT_LENGTH})
    assert len(json.dumps(detail)) < 4096


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "a\0b"])
def test_text_can_be_sent_on(name: str, text: str) -> None:
    detail = refusal(body(**{name: text}))
    assert (detail["loc"], detail["type"]) == (["body", name], "string_unicode")


def test_a_pair_of_surrogates_is_a_letter() -> None:
    assert parse(b'{"prompt": "\\ud83e\\udd8a"}').prompt == "\U0001f98a"


def test_unknown_fields_are_ignored() -> None:
    assert parse(body(image_url="x", model={"a": 1})) == parse(body())


def test_loras() -> None:
    seed = parse(b'{"prompt": "a fox", "loras": [{"path": "owner/repository", "scale": 1, "transformer": "high"}]}')
    assert seed.loras == [LoRAWeight(path="owner/repository", scale=1.0, transformer="high")]
    assert parse(body(loras=[{"path": "a"}])).loras[0].model_dump() == {"path": "a", **hosted.LORA_DEFAULTS}
    for scale in (hosted.LORA_SCALE.low, hosted.LORA_SCALE.high):
        assert parse(body(loras=[{"path": "a", "scale": scale}])).loras[0].scale == scale
    for transformer in hosted.TRANSFORMERS:
        assert parse(body(loras=[{"path": "a", "transformer": transformer}])).loras[0].transformer == transformer
    assert parse(body(loras=[{"path": "a", "weight_name": "b.safetensors"}])).loras[0].weight_name == "b.safetensors"
    assert len(parse(body(loras=[{"path": "a"}] * MAX_LORAS)).loras) == MAX_LORAS


@pytest.mark.parametrize(("lora", "name", "kind"), [
    ({}, "path", "missing"), ({"path": 5}, "path", "string_type"), ({"path": None}, "path", "string_type"),
    ({"path": "\ud800"}, "path", "string_unicode"), ({"path": "a", "weight_name": "\udfff"}, "weight_name", "string_unicode"),
    ({"path": "a", "scale": -0.01}, "scale", "greater_than_equal"), ({"path": "a", "scale": 4.01}, "scale", "less_than_equal"),
    ({"path": "a", "scale": float("nan")}, "scale", "finite_number"), ({"path": "a", "scale": None}, "scale", "float_type"),
    ({"path": "a", "transformer": "auto"}, "transformer", "literal_error"), ({"path": "a", "weight_name": "b\0"}, "weight_name", "string_unicode")])
def test_wrong_loras_are_named(lora: dict[str, Any], name: str, kind: str) -> None:
    detail = refusal(body(loras=[{"path": "right"}, lora]))
    assert (detail["loc"], detail["type"]) == (["body", "loras", 1, name], kind)


@pytest.mark.parametrize(("loras", "kind"), [
    ({"path": "a"}, "list_type"), ("a", "list_type"), ([{"path": "a"}] * (MAX_LORAS + 1), "too_long"), ([0] * 50_000, "too_long")])
def test_wrong_lists_of_loras_are_one_mistake(loras: Any, kind: str) -> None:
    details = refused_details(body(loras=loras))
    assert (details[-1]["loc"], details[-1]["type"]) == (["body", "loras"], kind)


def refused_details(sent: bytes) -> list[dict[str, Any]]:
    with pytest.raises(InvalidRequest) as caught:
        parse(sent)
    return caught.value.body()["detail"]


def test_every_mistake_is_told_at_once() -> None:
    details = refused_details(body(num_frames=1, resolution="8k", loras=[{"scale": 9}]))
    assert [detail["loc"] for detail in details] == [
        ["body", "num_frames"], ["body", "resolution"], ["body", "loras", 0, "path"], ["body", "loras", 0, "scale"]]


@pytest.mark.parametrize("name", ["input", "arguments", "data", "params", "body", "parameters", "payload"])
def test_what_is_wrapped_is_refused_by_the_name_of_its_wrapper(name: str) -> None:
    detail = refusal(json.dumps({"webhook": {"url": "x"}, name: {"prompt": "a fox"}}).encode())
    assert (detail["loc"], detail["type"]) == (["body", name], "value_error")
    assert f'inside "{name}"' in detail["msg"] and '{"prompt": "..."}' in detail["msg"]


@pytest.mark.parametrize("name", ["input", "arguments"])
def test_an_empty_wrapper_is_one_and_what_stands_beside_a_prompt_is_none(name: str) -> None:
    assert refusal(json.dumps({name: {}}).encode())["loc"] == ["body", name]
    assert parse(body(**{name: {"prompt": "another"}})).prompt == "a fox"


@pytest.mark.parametrize("sent", [
    b"", b" ", b"\xff", b"\xef\xbb\xbf{}", '{"prompt": "a"}'.encode("utf-16"), b"{", b'{"prompt": }', b"{'prompt': 'a'}", b"prompt=a",
    b"[" * 100_000, b'{"prompt": ' * 20_000, b'{"prompt": ' + b"9" * 5000 + b"}", b'{"prompt": "a", "prompt": "b"}',
    b'{"prompt": "a", "\\ud800": 1, "\\ud800": 1}', b'{"prompt": "a\nb"}'])
def test_what_is_not_json_is_refused(sent: bytes) -> None:
    detail = refusal(sent)
    assert (detail["loc"][0], detail["type"]) == ("body", "json_invalid")


@pytest.mark.parametrize("sent", [b"null", b"5", b"NaN", b'"prompt"', b"[]", b"true", b'[{"prompt": "a"}]'])
def test_what_is_no_object_is_refused(sent: bytes) -> None:
    detail = refusal(sent)
    assert (detail["loc"], detail["type"]) == (["body"], "model_attributes_type")


def test_the_longest_body_is_read() -> None:
    assert parse(body() + b" " * (MAX_BODY_BYTES - len(body()))) == parse(body())


def test_a_quarter_of_a_megabyte_of_names_is_read_at_once() -> None:
    names = ",".join(f'"{index}": 0' for index in range(20_000))
    assert refusal(f'{{{names}, "prompt": "a", "7": 1}}'.encode())["msg"].startswith('The field "7" occurs twice')


def test_parsed_requests_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(body()).prompt = "another"


def test_the_engine_offers_what_the_endpoint_does() -> None:
    interpolators = [NO_INTERPOLATOR, *(family.name.lower() for family in FAMILIES)]
    for name, offered in (("resolution", RESOLUTIONS), ("aspect_ratio", ASPECT_RATIOS), ("acceleration", ACCELERATIONS), ("video_quality", QUALITIES),
                          ("video_write_mode", WRITE_MODES), ("interpolator_model", interpolators)):
        assert set(hosted.CHOICES[name].values) <= set(offered)
    assert hosted.NUMBERS["num_frames"].low >= MIN_FRAMES
    assert hosted.NUMBERS["num_frames"].high == MAX_FRAMES


def malformed(draw: random.Random) -> bytes:
    """A body that is wrong in one of the ways that bodies are."""
    whole = {"prompt": "a fox", **hosted.DEFAULTS, "loras": [{"path": "owner/repository", "scale": 1, "transformer": "high"}]}
    match draw.randrange(4):
        case 0:
            mutated = bytearray(json.dumps(whole).encode())
            for _ in range(draw.randint(1, 8)):
                mutated[draw.randrange(len(mutated))] = draw.randrange(256)
            return bytes(mutated)
        case 1:
            return json.dumps({**whole, **{name: value(draw, 3) for name in draw.sample(list(whole), draw.randint(1, 6))}}).encode()
        case 2:
            return json.dumps(value(draw, 5)).encode()
        case _:
            depth = draw.randint(1, 30_000)
            opened, closed = draw.choice([("[", "]"), ('{"prompt":', "}"), ('{"loras":[', "]}")])
            return (opened * depth + "1" + closed * draw.choice([depth, depth - 1, 0])).encode()[:MAX_BODY_BYTES + 10]


def value(draw: random.Random, depth: int) -> Any:
    """Random JSON, with numbers and letters that many programs do not expect."""
    simple = [None, True, 0, -1, 10**draw.randrange(400), draw.uniform(-1e3, 1e3), float("nan"), float("-inf"), 1e308, "",
              "x" * draw.randrange(20_000), "\ud800", "\0", "\U0001f98a", "81", "true", "'; drop", "film"]
    if depth == 0 or draw.random() < 0.4:
        return draw.choice(simple)
    names = ["path", "scale", "transformer", "prompt", "loras", "\udc00", "__class__"]
    if draw.random() < 0.5:
        return [value(draw, depth - 1) for _ in range(draw.randrange(5))]
    return {draw.choice(names): value(draw, depth - 1) for _ in range(draw.randrange(5))}


def test_a_thousand_malformed_bodies_are_requests_or_refusals() -> None:
    draw = random.Random(20261101)
    accepted = 0
    for _ in range(1000):
        try:
            parsed = parse(malformed(draw))
            parsed.model_dump_json().encode()
            accepted += 1
        except InvalidRequest as error:
            sent = json.dumps(error.body(), ensure_ascii=False, allow_nan=False).encode("utf-8")
            assert error.status == 422
            assert len(sent) < 300_000
            str(error).encode("utf-8")
    assert 0 < accepted < 500
