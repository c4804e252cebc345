"""Platform headers mean what fal's documentation says, and a value that cannot be meant is named, never guessed at."""

import pytest
from multidict import CIMultiDict
from wan22.api.errors import InvalidRequest
from wan22.api.headers import LIFECYCLE, LONGEST, OLDER_START_TIMEOUT, PRIORITY, START_TIMEOUT, STORE_IO, Preferences


def of(**headers: str) -> Preferences:
    return Preferences.of(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}))


@pytest.mark.parametrize(("headers", "meant"), [
    ({}, Preferences()), ({"x_fal_request_timeout": "30.0"}, Preferences(start_seconds=30)),
    ({"x_fal_request_start_timeout": " 1e2 "}, Preferences(start_seconds=100)),
    ({"x_fal_request_start_timeout": "5", "x_fal_request_timeout": "9"}, Preferences(start_seconds=5)),
    ({"x_fal_queue_priority": "low"}, Preferences(low=True)), ({"x_fal_queue_priority": "Normal"}, Preferences()),
    ({"x_fal_store_io": "0"}, Preferences(private=True)), ({"x_fal_store_io": "False"}, Preferences(private=True)),
    ({"x_fal_store_io": "1"}, Preferences()),
    ({"x_fal_object_lifecycle_preference": '{"expiration_duration_seconds": 3600, "initial_acl": {"default": "allow"}}'},
     Preferences(video_seconds=3600)),
    ({"x_fal_object_lifecycle_preference": '{"expiration_duration_seconds": null}'}, Preferences()),
    ({"x_fal_object_lifecycle_preference": "{}"}, Preferences()),
    ({"x_fal_object_lifecycle_preference": '{"expiration_duration_seconds": 1e300}'}, Preferences(video_seconds=LONGEST)),
    ({"x_fal_object_lifecycle_preference": f'{{"expiration_duration_seconds": 1{"0" * 400}}}'}, Preferences(video_seconds=LONGEST)),
    ({"x_fal_no_retry": "yes", "x_fal_runner_hint": "any", "x_fal_unheard_of": "?"}, Preferences())])
def test_headers_mean_what_the_hosted_service_documents(headers: dict[str, str], meant: Preferences) -> None:
    assert of(**headers) == meant


@pytest.mark.parametrize(("name", "value"), [
    *((name, value) for name in (START_TIMEOUT, OLDER_START_TIMEOUT) for value in ("soon", "0", "0.1", "-1", "nan", "inf", "1e999", "\u0663")),
    (PRIORITY, "high"), (PRIORITY, "1"), (STORE_IO, "2"), (STORE_IO, "never"),
    *((LIFECYCLE, value) for value in ("3600", "{", "[]", "null", '{"expiration_duration_seconds": 0}', '{"expiration_duration_seconds": true}',
                                       '{"expiration_duration_seconds": "1h"}', '{"expiration_duration_seconds": NaN}', "[" * 100_000))],
    ids=lambda value: value[:40])
def test_a_value_that_cannot_be_meant_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Preferences.of(CIMultiDict({name: value}))
    (detail,) = refused.value.body()["detail"]
    assert detail["loc"] == ["header", name] and "Input should be" in detail["msg"]


def test_every_wrong_header_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        Preferences.of({PRIORITY: "high", STORE_IO: "2"})
    assert [detail["loc"][1] for detail in refused.value.body()["detail"]] == [PRIORITY, STORE_IO]
