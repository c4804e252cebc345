"""Webhooks are signed in the hosted service's form, by one key that stays; without the package for it they go out unsigned, said once."""

import base64
import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from engine import packages
from engine.fetch.signatures import Letter, Signer

LETTER, BODY = Letter("request", "user"), b'{"a": 1}'


def signer(folder: Path, messages: list[Any] | None = None) -> Signer:
    return Signer(folder / "webhook_key", lambda *words: (messages if messages is not None else []).append(words))


def verify(headers: Any, body: bytes, jwks: dict[str, Any]) -> None:
    (key,) = jwks["keys"]
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
    lines = [*(headers[f"X-Fal-Webhook-{name}"] for name in ("Request-Id", "User-Id", "Timestamp")), hashlib.sha256(body).hexdigest()]
    public.verify(bytes.fromhex(headers["X-Fal-Webhook-Signature"]), "\n".join(lines).encode())


def test_the_signature_is_about_the_request_its_owner_the_time_and_the_body(tmp_path: Path) -> None:
    signs = signer(tmp_path)
    headers = signs.headers(LETTER, BODY, 1_700_000_000.9)
    assert headers["X-Fal-Webhook-Timestamp"] == "1700000000"
    verify(headers, BODY, signs.jwks())
    assert "user" not in headers["X-Fal-Webhook-User-Id"]
    for changed, body in (({}, b"{}"), ({"X-Fal-Webhook-Request-Id": "x"}, BODY), ({"X-Fal-Webhook-User-Id": "x"}, BODY),
                          ({"X-Fal-Webhook-Timestamp": "1"}, BODY)):
        with pytest.raises(InvalidSignature):
            verify({**headers, **changed}, body, signs.jwks())


def test_the_key_stays_and_belongs_to_its_user_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(lambda _: str(signer(tmp_path).jwks()), range(8)))
    (file,) = tmp_path.iterdir()
    assert len(set(keys)) == 1 and (os.name == "nt" or file.stat().st_mode & 0o077 == 0)


def test_the_user_id_is_a_name_that_only_this_server_can_give(tmp_path: Path) -> None:
    (tmp_path / "another").mkdir()
    names = [signer(folder).headers(Letter("request", owner), BODY, 0)["X-Fal-Webhook-User-Id"]
             for folder, owner in ((tmp_path, "a"), (tmp_path, "a"), (tmp_path, "b"), (tmp_path / "another", "a"))]
    assert names[0] == names[1] and len(set(names)) == 3


def no_package(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)


def a_damaged_key(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "webhook_key").write_bytes(b"short")


def a_folder_for_a_key(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "webhook_key").mkdir()


def an_old_package(folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Old:  # before cryptography 40, without the raw forms
        generate = from_private_bytes = classmethod(lambda cls, *_: cls())
        sign = public_key = lambda self, *_: self

    patch.setattr(packages, "ed25519", lambda: SimpleNamespace(Ed25519PrivateKey=Old))


def an_old_package_and_a_key(folder: Path, patch: pytest.MonkeyPatch) -> None:
    signer(folder).jwks()
    an_old_package(folder, patch)


def a_restricted_package(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise UnsupportedAlgorithm("ed25519 is not supported by this version of OpenSSL.")

    patch.setattr(packages, "ed25519", lambda: SimpleNamespace(Ed25519PrivateKey=SimpleNamespace(generate=refuse)))


@pytest.mark.parametrize("fault", [no_package, a_damaged_key, a_folder_for_a_key, an_old_package, an_old_package_and_a_key, a_restricted_package])
def test_what_cannot_be_signed_goes_out_unsigned_and_that_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    fault(tmp_path, monkeypatch)
    messages: list[Any] = []
    signs = signer(tmp_path, messages)
    assert [signs.headers(LETTER, BODY, 0), signs.headers(LETTER, BODY, 0), signs.jwks()] == [{}, {}, {"keys": []}]
    assert len(messages) == 1 and "unsigned" in messages[0][0]
    assert not list(tmp_path.glob("*.part"))
    assert fault is not no_package or "pip install cryptography" in str(messages[0][1])
