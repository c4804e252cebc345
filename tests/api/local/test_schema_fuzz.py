"""Nothing that a client sends breaks the server: what its document allows, what it forbids, and what is no request at all."""

import http.client
import json
import random
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis

from api_servers import ApiServer
from endpoint_client import document
from hosted_contract import SUBMIT

BODIES = 96  # the parser meets a thousand in tests/api
PATIENCE = 0.4  # seconds with what may be a video that is waited for, or a stream that does not end
BLOCKERS = 6  # jobs of many steps in front, so that what is accepted here waits until it is cancelled
SETTINGS = hypothesis.settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck))

WRONG: dict[str, list[Any]] = {
    "prompt": [None, 1, [], {}, "\0", "\ud800", "x" * 20_000],
    "num_frames": [16, 162, -1, 17.5, 1e300, 10**30, "many", None, [], {}],
    "frames_per_second": [3, 61, "fast", None, [16]],
    "seed": [-1, 2**64, 2.5, "random", [], {}],
    "resolution": ["4k", "", 480, None, ["480p"]],
    "aspect_ratio": ["4:3", 1, None, {}],
    "num_inference_steps": [1, 41, 2.5, "few", None],
    "guidance_scale": [0.99, 10.01, float("nan"), float("inf"), "much", None],
    "guidance_scale_2": [0, 11, -float("inf"), {}],
    "shift": [0.5, 12, "5,0", None],
    "enable_safety_checker": ["maybe", 7, None, []],
    "acceleration": ["fast", True, None],
    "interpolator_model": ["amt", 0, None],
    "num_interpolated_frames": [-1, 5, "one", None],
    "video_quality": ["best", None, 3],
    "loras": ["a.safetensors", {}, [1], [{}], [None], [{"path": 1}], [{"path": "a", "scale": 4.1}], [{"path": "a", "transformer": "all"}],
              [{"path": "a", "scale": "x"}] * 1000],
    "reverse_video": ["backwards", 2, {}]}


def cut(body: bytes, chance: random.Random) -> bytes:
    return body[:chance.randrange(len(body))]


def not_utf8(body: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(body))
    return body[:place] + b"\xff" + body[place:]


def no_object(_: bytes, chance: random.Random) -> bytes:
    return chance.choice([b"null", b"true", b"[]", b'"prompt"', b"17", b"NaN", b"-", b"\x00", b"{}", b"{} {}", b"prompt=a+cat", b"--a\r\n\r\n--a--"])


def too_deep(_: bytes, chance: random.Random) -> bytes:
    opening = chance.choice([b"[", b'{"prompt":', b'{"prompt":"a","loras":['])
    return opening * chance.choice([500, 2_000])


def too_many_digits(_: bytes, chance: random.Random) -> bytes:
    return b'{"prompt": "a", "seed": ' + b"9" * chance.choice([30, 400, 5_000]) + b"}"


def wrong_value(body: bytes, chance: random.Random) -> bytes:
    name = chance.choice(list(WRONG))
    return json.dumps({**json.loads(body), name: chance.choice(WRONG[name])}).encode()


def noise(_: bytes, chance: random.Random) -> bytes:
    return b"\xfe" + chance.randbytes(chance.randrange(300))


FAULTS: list[Callable[[bytes, random.Random], bytes]] = [cut, not_utf8, no_object, too_deep, too_many_digits, wrong_value, wrong_value, noise]


def is_the_endpoints(error: dict[str, Any]) -> bool:
    """The form of a model error."""
    return bool(error["detail"]) and all({"loc", "msg", "type", "url"} <= set(entry) and entry["loc"][0] in ("body", "query", "header", "path")
                                         for entry in error["detail"])


def test_malformed_bodies_on_one_connection(endpoint: ApiServer, video: dict[str, Any]) -> None:
    chance, body = random.Random(0), json.dumps(video).encode()
    connection = http.client.HTTPSConnection("localhost", endpoint.port, timeout=60, context=endpoint.trusted)
    connection.connect()
    socket = connection.sock
    for number in range(BODIES):
        fault = FAULTS[number % len(FAULTS)]
        sent = fault(body, chance)
        connection.request("POST", SUBMIT, sent, {"Content-Type": "application/json", "Authorization": "Key any"})
        answer = connection.getresponse()
        error = json.loads(answer.read())
        assert answer.status in (400, 413, 422), (fault.__name__, sent[:200], answer.status, error)
        assert answer.status != 422 or is_the_endpoints(error), (fault.__name__, sent[:200], error)
    assert connection.sock is socket
    assert endpoint.jobs() == ([], [])


@pytest.mark.parametrize(("size", "status"), [(256 * 1024, 422), (256 * 1024 + 1, 413), (20 * 2**20, 413)])
def test_a_body_that_is_too_long_is_refused(endpoint: ApiServer, size: int, status: int) -> None:
    answer = requests.post(endpoint.url + SUBMIT, data=b'{"num_frames": 1}'.ljust(size), verify=endpoint.authority, timeout=60)
    assert answer.status_code == status and answer.json()["detail"]


def test_every_answer_to_whatever_the_document_allows_or_forbids_is_in_the_document(emptied: ApiServer, long: dict[str, Any]) -> None:
    for number in range(BLOCKERS):
        emptied.post(SUBMIT, {**long, "seed": number})
    for operation in (operation_result.ok() for operation_result in document(emptied).get_all_operations()):
        submits = operation.path.startswith("/queue") and operation.method == "post"
        modes = list(schemathesis.GenerationMode) if submits or operation.method != "post" else [schemathesis.GenerationMode.NEGATIVE]
        for mode in modes:
            fuzz(operation.as_strategy(generation_mode=mode), emptied, 24 if submits else 6)


def fuzz(cases: Any, server: ApiServer, count: int) -> None:
    """Send `count` of the cases and hold each answer against the document; a video that is waited for may take longer than this waits."""

    @hypothesis.settings(SETTINGS, max_examples=count)
    @hypothesis.given(case=cases)
    def answers_are_sound(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url=server.url)
        try:
            answer = requests.request(**sent, verify=server.authority, timeout=PATIENCE)
        except requests.Timeout:
            return
        assert answer.status_code < 500, answer.text
        if answer.status_code != 405:  # the server knows no such method there
            case.operation.validate_response(answer)
        if answer.status_code == 422:
            assert is_the_endpoints(answer.json()), answer.text
        if answer.status_code == 200 and case.operation.method == "post":
            assert requests.put(answer.json()["cancel_url"], verify=server.authority, timeout=30).status_code == 202

    answers_are_sound()
