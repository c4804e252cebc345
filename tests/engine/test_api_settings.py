"""Who is answered, and what the settings file may say."""

import json
import re

import pytest

from comfyui import ROOT
from engine.api.settings import Settings

KEY, OTHER = "one-0123456789abcdef", "two-0123456789abcdef"


@pytest.mark.parametrize("remote", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_without_keys_this_machine_is_answered(remote: str) -> None:
    assert Settings().owner("", remote, forwarded=False) == ""
    assert Settings().owner("Key whatever", remote, forwarded=False) == ""


@pytest.mark.parametrize("remote", ["192.168.0.2", "10.0.0.1", "8.8.8.8", "::2", "fe80::1%eth0", "::ffff:10.0.0.1", "0.0.0.0", "", None, "localhost"])
def test_without_keys_nobody_else_is_answered(remote: str | None) -> None:
    assert Settings().owner("", remote, forwarded=False) is None


def test_without_keys_a_proxy_on_this_machine_is_not_this_machine() -> None:
    assert Settings().owner("", "127.0.0.1", forwarded=True) is None


def test_each_key_is_somebody_wherever_it_comes_from() -> None:
    settings = Settings(keys=(KEY, OTHER))
    places = (("127.0.0.1", False), ("8.8.8.8", False), ("127.0.0.1", True))
    owners = {settings.owner(f"Key {key}", *place) for key in (KEY, OTHER) for place in places}
    assert len(owners) == 2 and not any(KEY in str(owner) or owner in (None, "") for owner in owners)
    assert settings.owner(f"Bearer {KEY}", None, False) == settings.owner(f"key {KEY}", None, False)


@pytest.mark.parametrize("sent", ["", KEY, f"Basic {KEY}", "Key", "Key ", f"Key {KEY}x", f"Key {KEY[:-1]}", f"Key {KEY},{OTHER}", "Key \udce4",
                                  "Key \u00e4"])
def test_any_other_header_is_nobody(sent: str) -> None:
    assert Settings(keys=(KEY, OTHER)).owner(sent, "127.0.0.1", False) is None


@pytest.mark.parametrize("wrong", [{"enable": True}, {"keys": ["0123456789abcde"]}, {"keys": ["with a space in it 123"]}, {"max_waiting": 0},
                                   {"downloads": {"max_bytes": 0}}, {"models": {"vae": 3}}, {"downloads": {"tokens": {"x.com": "a b"}}}, [], None])
def test_wrong_settings_are_refused_without_being_repeated(wrong: object) -> None:
    with pytest.raises(ValueError) as refused:
        Settings.read(json.dumps(wrong))
    assert "0123456789abcde" not in str(refused.value) and "a b" not in str(refused.value)


def test_nothing_secret_is_in_the_text_of_settings() -> None:
    settings = Settings.read(json.dumps({"keys": [KEY], "downloads": {"tokens": {"huggingface.co": "hf_secret"}}}))
    assert KEY not in repr(settings) and "hf_secret" not in repr(settings) and "hf_secret" not in repr(settings.downloads.rules())


def test_the_documented_settings_are_settings() -> None:
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2 and all(Settings.read(block).enabled for block in blocks)


def test_everything_is_off_at_first() -> None:
    settings = Settings.read("{}")
    assert not settings.enabled and not settings.downloads.enabled and not settings.downloads.rules().enabled
