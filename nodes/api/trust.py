"""Who a request comes from: this machine, or somebody behind a network, a proxy or a web page."""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

OF_PROXIES = ("forwarded", "via", "x-real-ip", "true-client-ip", "cf-connecting-ip", "x-forwarded-")
"""How the headers begin that proxies add. A proxy that adds none is not told from a program of this machine."""


def stranger(remote: str | None, headers: Mapping[str, str]) -> str:
    """Why a request does not come from a program of this machine; empty where it does.

    `remote` is the address of the other end. A page's own host in `Host` (DNS rebinding) or in `Origin`, "null" too, makes it a stranger.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    if not _is_loopback(remote or ""):
        return f"it came from {remote or 'nowhere'}, as requests do from another machine and from Docker's network"
    if proxied := next((name for name in headers if name.lower().startswith(OF_PROXIES)), ""):
        return f"it came through a proxy, which added the header {proxied[:40]}"
    if not _names_this_machine(f"//{lowered.get('host', '')}"):
        return f"it asked for the host '{lowered.get('host', '')[:100]}', which is no name of this machine"
    if "origin" in lowered and not _names_this_machine(lowered["origin"]):
        return f"it came from a web page of '{lowered['origin'][:100]}'"
    return ""


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
