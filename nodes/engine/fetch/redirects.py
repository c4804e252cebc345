"""Requests that check every address they are led to, and show a token only to the host it belongs to."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from .addresses import AddressRefused, AddressRules, CheckedResolver, check_url, shown

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Answer:
    """The last response, its body not yet read, and the headers of the redirects that led to it."""

    response: aiohttp.ClientResponse
    hops: tuple[Mapping[str, str], ...]

    def header(self, name: str) -> str | None:
        """From the last response that has it."""
        return next((headers[name] for headers in (self.response.headers, *reversed(self.hops)) if name in headers), None)


def checked_session(rules: AddressRules, limits: aiohttp.ClientTimeout, resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """A session whose every connection is checked by its address; no cookies, no proxies, nothing decompressed."""
    connector = aiohttp.TCPConnector(resolver=CheckedResolver(rules, resolver), use_dns_cache=False)
    return aiohttp.ClientSession(connector=connector, timeout=limits, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
                                 headers={"Accept-Encoding": "identity"})


@asynccontextmanager
async def followed(session: aiohttp.ClientSession, url: str, rules: AddressRules, headers: Mapping[str, str],
                   tokens: Mapping[str, str]) -> AsyncIterator[Answer]:
    """GET `url` and what it redirects to, at most MAX_REDIRECTS times. AddressRefused for an address that the rules do not allow.

    `tokens` holds one per host; a token is dropped for good with the first redirect to another scheme, host or port.
    """
    at = check_url(url, rules)
    token = tokens.get((at.raw_host or "").lower())
    secret = {"Authorization": f"Bearer {token}"} if token else {}
    hops: list[Mapping[str, str]] = []
    while True:
        async with session.get(at, headers={**headers, **secret}, allow_redirects=False) as response:
            if response.status not in REDIRECTS:
                yield Answer(response, tuple(hops))
                return
            hops.append(response.headers)
        if len(hops) > MAX_REDIRECTS:
            raise AddressRefused(f"{shown(url)} redirects more than {MAX_REDIRECTS} times.")
        target = _target(at, hops[-1], rules)
        if target.origin() != at.origin():
            secret = {}
        at = target


def _target(at: URL, headers: Mapping[str, str], rules: AddressRules) -> URL:
    location = headers.get("Location", "")
    try:
        target = str(at.join(URL(location, encoded=location.isascii())))
    except ValueError:
        raise AddressRefused(f"{shown(str(at))} redirects to something that is no address.") from None
    return check_url(target, rules, redirected=True)
