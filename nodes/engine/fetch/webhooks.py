"""Telling a webhook that a request is done: a few attempts, and never an error for whoever sends it."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from .addresses import AddressRefused, AddressRules, check_url
from .redirects import checked_session
from .rules import WebhookRules

WORTH_ANOTHER = (408, 425, 429)  # and 5xx: other answers stay what they are


async def deliver(url: str, payload: Mapping[str, Any], rules: WebhookRules, log: Callable[[str], None],
                  resolver: AbstractResolver | None = None) -> bool:
    """POST `payload` as JSON; whether the webhook took it (2xx). Redirects are not followed, the answer's body is not read.

    `log` is told of every attempt that fails, with the host alone: webhooks carry secrets in their paths too.
    """
    try:
        target = check_url(url, rules.addresses)
        body = json.dumps(payload).encode()
    except AddressRefused:
        log("webhook: its address is not allowed. It must be https and public, without a name, a password or an odd port.")
        return False
    except (TypeError, ValueError) as error:
        log(f"webhook: the message cannot be written as JSON ({error}).")
        return False
    return await _attempts(target, body, rules, log, resolver)


async def _attempts(target: URL, body: bytes, rules: WebhookRules, log: Callable[[str], None], resolver: AbstractResolver | None) -> bool:
    end = time.monotonic() + rules.total_seconds
    for pause in (0.0, *rules.pauses):
        await asyncio.sleep(pause)
        left = min(rules.seconds, end - time.monotonic())
        if left <= 0:
            log(f"webhook: {target.raw_host} did not take the message within {rules.total_seconds:g} s.")
            return False
        fault, again = await _attempt(target, body, rules.addresses, left, resolver)
        if not fault:
            return True
        log(f"webhook: {target.raw_host} {fault}")
        if not again:
            return False
    return False


async def _attempt(target: URL, body: bytes, rules: AddressRules, seconds: float, resolver: AbstractResolver | None) -> tuple[str, bool]:
    """What went wrong, empty when nothing did, and whether another attempt may help."""
    try:
        async with (checked_session(rules, aiohttp.ClientTimeout(total=seconds), resolver) as session,
                    session.post(target, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False) as response):
            if 200 <= response.status < 300:
                return "", False
            return f"answered {response.status}.", response.status in WORTH_ANOTHER or response.status >= 500
    except AddressRefused:
        return "leads to an address that is not on the public internet.", False
    except asyncio.TimeoutError:
        return f"gave no answer within {seconds:.0f} s.", True
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"cannot be reached ({type(error).__name__}).", True
