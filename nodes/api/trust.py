"""Who a request comes from: this machine, or somebody behind a network, a proxy or a web page."""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

OF_PROXIES = ("forwarded", "via", "x-real-ip", "true-client-ip", "cf-connecting-ip", "x-forwarded-")
"""How the headers begin that proxies add. A proxy that adds none is not told from a program of this machine."""


def is_local(remote: str | None, headers: Mapping[str, str]) -> bool:
    """Whether a program of this machine asks, and no web page of another one through a browser here.

    `remote` is the address of the other end. A page's own host in `Host` (DNS rebinding) or in `Origin`, "null" too, makes it a stranger.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    return (_is_loopback(remote or "") and _names_this_machine(f"//{lowered.get('host', '')}")
            and ("origin" not in lowered or _names_this_machine(lowered["origin"])) and not any(name.startswith(OF_PROXIES) for name in lowered))


def _names_this_machine(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or host.endswith(".localhost") or _is_loopback(host)  # RFC 6761: browsers resolve these nowhere else


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
