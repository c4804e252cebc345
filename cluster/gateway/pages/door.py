"""Who may look at the cluster, and who may have it restarted: whoever may ask for a video, a browser too."""

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import urlsplit

from nodes.api.errors import Unauthorized
from nodes.api.settings import Settings
from nodes.api.trust import stranger

from ..errors import NoKeys, OtherOrigin

CHALLENGE = {"WWW-Authenticate": 'Basic realm="cluster", charset="UTF-8"'}  # browsers ask for a password then: the key, with any name


def check_caller(settings: Settings, remote: str | None, headers: Mapping[str, str]) -> None:
    """Unauthorized, or NoKeys, for who is neither a program of this machine where nobody's key is asked for nor has a key."""
    why = stranger(remote, headers)
    if settings.owner(_as_key(headers.get("Authorization", "")), local=not why) is None:
        raise Unauthorized if settings.keys else NoKeys(why)


def check_origin(settings: Settings, headers: Mapping[str, str]) -> None:
    """OtherOrigin for a web page that is not this gateway's: its browser sends the key along by itself."""
    own = {headers.get("Host", ""), urlsplit(settings.public_url).netloc} - {""}
    origin = headers.get("Origin")
    if origin is not None and _netloc(origin) not in own or headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise OtherOrigin(origin or "another site")


def _as_key(authorization: str) -> str:
    """HTTP Basic as the scheme that the API knows: its password is the key."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        return f"Key {base64.b64decode(encoded.strip(), validate=True).decode().partition(':')[2]}"
    except (binascii.Error, ValueError):
        return ""


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
