"""Webhooks signed with a key pair of this server's own, in the hosted service's form, so that its clients' verifiers take them.

The message is four lines: request id, user id, seconds since 1970, and the body's sha256 in hexadecimal. The signature is ED25519, in hexadecimal
(https://docs.fal.ai/documentation/model-apis/inference/webhooks). The public key is a JWK of RFC 8037.
"""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import packages

PREFIX = "X-Fal-Webhook-"
UNSIGNED = "webhooks go out unsigned: %s"
NEEDED = "The package cryptography must be 40 or newer, and allowed to use ED25519."


@dataclass(frozen=True)
class Letter:
    """What a webhook's signature is about: the request, and whose it is, as only this server may know it."""

    request_id: str
    owner: str


@dataclass(frozen=True)
class _Key:
    """The key pair, tried once, so that it does what is asked of it later."""

    private: Any = field(repr=False)
    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, private: Any) -> "_Key":
        private.sign(b"")
        return cls(private, private.public_key().public_bytes_raw(), private.private_bytes_raw())

    def pseudonym(self, owner: str) -> str:
        """Always the same for an owner, and nothing that leads back to it: an owner is told by a hash of its key."""
        return hmac.digest(self.secret, f"owner {owner}".encode(), "sha256").hex()[:32]


class Signer:
    """Signs with the key in `file`, which is made when it is first needed and readable by this user alone.

    Without the package `cryptography`, where it is older than 40 or may not do this, and where the file cannot be used, nothing is signed, and
    `log` is told why, once: a message without a signature is better than none.
    """

    def __init__(self, file: Path, log: Callable[[str, object], None]) -> None:
        self._file, self._log = file, log
        self._key: _Key | None = None
        self._failed = False

    def headers(self, letter: Letter, body: bytes, now: float) -> Mapping[str, str]:
        """The headers of a message that is sent at `now`, seconds since 1970; none where nothing can be signed."""
        if (key := self._loaded()) is None:
            return {}
        lines = [letter.request_id, key.pseudonym(letter.owner), str(int(now)), hashlib.sha256(body).hexdigest()]
        signature = key.private.sign("\n".join(lines).encode()).hex()
        return dict(zip((f"{PREFIX}{name}" for name in ("Request-Id", "User-Id", "Timestamp", "Signature")), (*lines[:3], signature), strict=True))

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public key as a JSON Web Key Set; without keys where nothing is signed."""
        if (key := self._loaded()) is None:
            return {"keys": []}
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": hashlib.sha256(key.public).hexdigest()[:16],
                          "x": base64.urlsafe_b64encode(key.public).rstrip(b"=").decode()}]}

    def _loaded(self) -> "_Key | None":
        if self._key is None and not self._failed:
            try:
                self._key = _Key.of(self._kept())
            except (OSError, ValueError) as error:
                self._failed = True
                self._log(UNSIGNED, error)
            except Exception as error:  # noqa: BLE001 what an old or a restricted cryptography does is its own affair
                self._failed = True
                self._log(UNSIGNED, f"{type(error).__name__}: {error}. {NEEDED}")
        return self._key

    def _kept(self) -> Any:
        """The key in the file; a new one where there is none. Two servers that begin at once keep the one whose file was there first."""
        private_key = packages.ed25519().Ed25519PrivateKey
        if not self._file.exists():
            made = private_key.generate().private_bytes_raw()
            written = self._file.with_name(f"{self._file.name}.{secrets.token_hex(4)}.part")
            written.touch(mode=0o600)
            written.write_bytes(made)
            try:
                os.link(written, self._file)
            except FileExistsError:
                pass
            except OSError:
                written.replace(self._file)  # a file system without links
            written.unlink(missing_ok=True)
        return private_key.from_private_bytes(self._file.read_bytes())
