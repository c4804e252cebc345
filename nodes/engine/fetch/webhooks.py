"""Telling a webhook that a request is done: again and again until it takes the message, and never an error for whoever sends it."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from .addresses import AddressRefused, check_url
from .redirects import checked_session
from .rules import WebhookRules

Signed = Callable[[bytes], Mapping[str, str]]
WORTH_ANOTHER = (408, 425, 429)  # and 5xx: other answers stay what they are


def _unsigned(body: bytes) -> Mapping[str, str]:
    return {}


async def deliver(url: str, payload: Mapping[str, Any], rules: WebhookRules, log: Callable[[str], None],
                  resolver: AbstractResolver | None = None, signed: Signed = _unsigned) -> bool:
    """POST `payload` as JSON; whether the webhook took it (2xx). Redirects are not followed, the answer's body is not read.

    `signed` gives the headers that sign a body, anew for each attempt since they hold its time.
    `log` is told of every attempt that fails, with the host alone: webhooks carry secrets in their paths too.
    """
    try:
        target = check_url(url, rules.addresses)
        body = json.dumps(payload).encode()
    except AddressRefused:
        log("webhook: its address is not allowed. It must be https and public, without a name, a password or an odd port; "
            "webhooks.hosts, webhooks.networks and webhooks.plain_http allow others.")
        return False
    except (TypeError, ValueError) as error:
        log(f"webhook: the message cannot be written as JSON ({error}).")
        return False
    session = partial(checked_session, rules.addresses, resolver=resolver)
    return await _attempts(partial(_attempt, target, body, session, signed), target, rules, log)


async def _attempts(attempt: Callable[[float], Awaitable[tuple[str, bool]]], target: URL, rules: WebhookRules, log: Callable[[str], None]) -> bool:
    end = time.monotonic() + rules.total_seconds
    for pause in (0.0, *rules.pauses):
        await asyncio.sleep(pause)
        left = min(rules.seconds, end - time.monotonic())
        if left <= 0:
            log(f"webhook: {target.raw_host} did not take the message within {rules.total_seconds:g} s.")
            return False
        fault, again = await attempt(left)
        if not fault:
            return True
        log(f"webhook: {target.raw_host} {fault}")
        if not again:
            return False
    return False


async def _attempt(target: URL, body: bytes, connected: Callable[..., aiohttp.ClientSession], signed: Signed, seconds: float) -> tuple[str, bool]:
    """What went wrong, empty when nothing did, and whether another attempt may help."""
    headers = {"Content-Type": "application/json", **signed(body)}
    try:
        async with (connected(limits=aiohttp.ClientTimeout(total=seconds)) as session,
                    session.post(target, data=body, headers=headers, allow_redirects=False) as response):
            if 200 <= response.status < 300:
                return "", False
            return f"answered {response.status}.", response.status in WORTH_ANOTHER or response.status >= 500
    except AddressRefused:
        return "leads to an address that is not on the public internet.", False
    except asyncio.TimeoutError:
        return f"gave no answer within {seconds:.0f} s.", True
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"cannot be reached ({type(error).__name__}).", True
