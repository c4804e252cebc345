"""Who is answered, and what the settings file may say."""

import json
import re

import pytest
from wan22.api.settings import Settings

from comfyui import ROOT

KEY, OTHER = "one-0123456789abcdef", "two-0123456789abcdef"


def test_without_keys_this_machine_is_answered_and_nobody_else() -> None:
    assert Settings().owner("", local=True) == Settings().owner("Key whatever", local=True) == ""
    assert Settings().owner("", local=False) is None
    assert Settings().owner("Key whatever", local=False) is None


def test_each_key_is_somebody_wherever_it_comes_from() -> None:
    settings = Settings(keys=(KEY, OTHER))
    owners = {settings.owner(f"Key {key}", local) for key in (KEY, OTHER) for local in (False, True)}
    assert len(owners) == 2 and not any(KEY in str(owner) or owner in (None, "") for owner in owners)
    assert settings.owner(f"Bearer {KEY}", False) == settings.owner(f"key {KEY}", False)


@pytest.mark.parametrize("sent", ["", KEY, f"Basic {KEY}", "Key", "Key ", f"Key {KEY}x", f"Key {KEY[:-1]}", f"Key {KEY},{OTHER}", "Key \udce4",
                                  "Key \u00e4"])
def test_any_other_header_is_nobody(sent: str) -> None:
    assert Settings(keys=(KEY, OTHER)).owner(sent, local=True) is None


@pytest.mark.parametrize("wrong", [{"enable": True}, {"keys": ["0123456789abcde"]}, {"keys": ["with a space in it 123"]}, {"max_waiting": 0},
                                   {"downloads": {"max_bytes": 0}}, {"models": {"vae": 3}}, {"downloads": {"tokens": {"x.com": "a b"}}}, [], None,
                                   {"public_url": "example.com"}, {"public_url": "https://example.com/?a b"},
                                   {"downloads": {"tokens": {"X.com": "token"}}}, {"downloads": {"tokens": {"x.com:8443": "token"}}}])
def test_wrong_settings_are_refused_without_being_repeated(wrong: object) -> None:
    with pytest.raises(ValueError) as refused:
        Settings.read(json.dumps(wrong))
    assert "0123456789abcde" not in str(refused.value) and "a b" not in str(refused.value)


def test_nothing_secret_is_in_the_text_of_settings() -> None:
    settings = Settings.read(json.dumps({"keys": [KEY], "downloads": {"tokens": {"huggingface.co": "hf_secret"}}}))
    assert KEY not in repr(settings) and "hf_secret" not in repr(settings) and "hf_secret" not in repr(settings.downloads)


def test_the_documented_settings_are_settings() -> None:
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2 and all(Settings.read(block).enabled for block in blocks)


def test_everything_is_off_at_first() -> None:
    settings = Settings.read("{}")
    assert not settings.enabled and not settings.downloads.enabled and not settings.downloads.enabled
