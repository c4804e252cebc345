"""Which addresses a request may send this server to: public ones, however they are spelled and whatever their name resolves to."""

import ipaddress
import re
import socket
from dataclasses import dataclass

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL = 8192  # characters; signed addresses of storage services have about 2000
GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")  # RFC 4291: what is outside is local, reserved or stands for an IPv4 address
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
NOT_PUBLIC: tuple[IPNetwork, ...] = tuple(ipaddress.ip_network(network) for network in (
    "192.0.0.0/24",  # RFC 6890; Oracle's metadata is at 192.0.0.192
    "192.88.99.0/24",  # RFC 7526
    "168.63.129.16/32",  # Azure's host agent: public by number, answers only virtual machines
    "3fff::/20"))  # RFC 9637
"""What `is_global` lets through in one Python or another and no stranger may reach."""

_UNPRINTED = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_LISTED = re.compile(r"(?:\*\.)?(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(?P<port>\d+))?")


class AddressRefused(ValueError):
    """No request goes to this address; the text says why, without what may be secret in the address."""


@dataclass(frozen=True)
class AddressRules:
    """Where requests may go. ValueError for a host or network that cannot be understood.

    `hosts` holds names, "*.name" for all names below one, "name:port" for a port other than 443; None allows every public host at its usual port.
    `redirect_hosts` are further ones that only a redirect may lead to. `networks` ("192.168.1.0/24") may be reached although they are not public.
    `settings` is where the owner writes these rules, and `hosts_setting` what `hosts` is called there: every refusal says what would allow it.
    """

    hosts: tuple[str, ...] | None = None
    redirect_hosts: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    plain_http: bool = False
    settings: str = ""
    hosts_setting: str = "hosts"

    def cure(self, name: str) -> str:
        """A sentence about the setting that allows what was refused."""
        return f" Its owner can allow it in {self.settings}.{name}." if self.settings else ""

    def __post_init__(self) -> None:
        for host in (*(self.hosts or ()), *self.redirect_hosts):
            if not _LISTED.fullmatch(host):
                raise ValueError(f"'{host}' is no host; write huggingface.co, *.hf.co or example.com:8443, in lower case.")
        for network in self.networks:
            ipaddress.ip_network(network)

    def reach(self, address: IPAddress) -> bool:
        """Whether a connection to this address is allowed, by its number alone."""
        seen = _embedded(address) or address
        return is_public(address) or any(seen in ipaddress.ip_network(network) for network in self.networks)


def is_public(address: IPAddress) -> bool:
    """Whether an address belongs to the public internet; one that stands for an IPv4 address is as public as that."""
    if (inner := _embedded(address)) is not None:
        return is_public(inner)
    if address.version == 6 and address not in GLOBAL_IPV6:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in NOT_PUBLIC)


def _embedded(address: IPAddress) -> IPAddress | None:
    """The IPv4 address behind an IPv4-mapped, 6to4 (RFC 3056) or NAT64 one. Teredo's 2001::/32 is not global to begin with."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def check_url(url: str, rules: AddressRules, redirected: bool = False) -> URL:
    """The URL as a request must use it; AddressRefused where the rules do not allow it.

    Names are not resolved here: requests need `CheckedResolver` as well. IP addresses never pass a resolver, so they are decided here.
    """
    if len(url) > MAX_URL or _UNPRINTED.search(url):
        raise AddressRefused(f"{shown(url)} is no address: it must have at most {MAX_URL} characters, without spaces, line breaks or backslashes.")
    try:
        parsed = URL(url, encoded=url.isascii())
        host = (parsed.raw_host or "").lower()
    except ValueError:
        raise AddressRefused(f"{shown(url)} is no address. It must look like https://example.com/folder/file.safetensors.") from None
    if parsed.scheme.lower() != "https" and not (rules.plain_http and parsed.scheme.lower() == "http"):
        raise AddressRefused(f"{shown(url)} does not begin with https://. Only encrypted addresses are used.{rules.cure('plain_http')}")
    if "@" in parsed.raw_authority:
        raise AddressRefused(f"{shown(url)} holds a name or password before its host. Leave that out.")
    literal = _literal(host, url, "[" in parsed.raw_authority)
    if literal is not None and not rules.reach(literal):
        raise AddressRefused(f"{shown(url)} is not on the public internet, and this server is not set up to go there.{rules.cure('networks')}")
    usual = parsed.explicit_port in (None, 443 if parsed.scheme.lower() == "https" else 80)
    if rules.hosts is not None:
        listed, setting = (rules.hosts + rules.redirect_hosts, "redirect_hosts") if redirected else (rules.hosts, rules.hosts_setting)
        _check_listed(url, host, None if usual else parsed.explicit_port, listed, rules.cure(setting))
    elif not usual and (literal is None or is_public(literal)):
        raise AddressRefused(f"{shown(url)} uses port {parsed.explicit_port}; only the usual port 443 is used."
                             + rules.cure(rules.hosts_setting))
    return parsed


def _literal(host: str, url: str, bracketed: bool) -> IPAddress | None:
    """The IP address that a host is, None for a name. Other spellings of numbers (octal, hexadecimal, short) are refused, not guessed at."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
    if bracketed or not all(_LABEL.fullmatch(label) for label in labels) or len(host) > 253 or _NUMBER.fullmatch(labels[-1]):
        raise AddressRefused(f"{shown(url)} has no host that can be used. Write a name in plain letters, or an IP address as 1.2.3.4.") from None
    return None


def _check_listed(url: str, host: str, port: int | None, listed: tuple[str, ...], cure: str) -> None:
    """AddressRefused unless one of `listed` names this host; `port` is None for the usual one."""
    if not any(_matches(pattern, host, port) for pattern in listed):
        where = host if port is None else f"{host}:{port}"
        raise AddressRefused(f"{shown(url)}: {where} is not among the hosts this server may use: {', '.join(listed) or 'none'}.{cure}")


def _matches(pattern: str, host: str, port: int | None) -> bool:
    match = _LISTED.fullmatch(pattern)
    if not match or (int(match["port"]) if match["port"] else None) != port:
        return False
    name = match["host"].strip("[]")
    return host.endswith(f".{name}") if pattern.startswith("*.") else host == name


def shown(url: str) -> str:
    """A URL for messages: without name, password, query and whatever cannot be printed, at most 200 characters."""
    plain = re.split(r"[?#]", url, maxsplit=1)[0].rpartition("@")[2]
    return "".join(letter if letter.isprintable() else "?" for letter in plain[:200])


class CheckedResolver(AbstractResolver):
    """Resolves names for a connector and refuses those with any address that may not be reached: what was checked is what is connected to."""

    def __init__(self, rules: AddressRules, inner: AbstractResolver | None = None) -> None:
        self._rules, self._inner = rules, inner or ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        addresses = await self._inner.resolve(host, port, family)
        if not all(self._rules.reach(ipaddress.ip_address(result["host"])) for result in addresses):
            raise AddressRefused(f"{shown(host)} leads to an address that is not on the public internet, and this server is not set up to go there."
                                 + self._rules.cure("networks"))
        return addresses

    async def close(self) -> None:
        await self._inner.close()
