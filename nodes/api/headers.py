"""What a caller asks of the server itself, in fal's headers, beside the request's parameters: which address it means, and how its job is treated.

Names and meanings: https://fal.ai/docs/documentation/model-apis/common-parameters. X-Fal-Runner-Hint and X-Fal-No-Retry ask for what is so here
anyway: there is one runner, and no job is tried twice.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .errors import BadRequest, Detail, InvalidRequest, NotFound

QUEUE = "/queue"  # before the path of what is not waited for
PROXY, TARGET_URL = "/fal/proxy", "X-Fal-Target-Url"
FAL_HOSTS = {"fal.run": "", "queue.fal.run": QUEUE, "rest.fal.ai": "/fal", "rest.alpha.fal.ai": "/fal"}
"""Where the clients think they are, and which of our addresses that is."""
QUEUE_AT_FAL = "https://queue.fal.run"  # in answers to who came through the proxy: such a client goes on where it thinks it is

START_TIMEOUT, OLDER_START_TIMEOUT = "X-Fal-Request-Start-Timeout", "X-Fal-Request-Timeout"
PRIORITY, STORE_IO, LIFECYCLE = "X-Fal-Queue-Priority", "X-Fal-Store-IO", "X-Fal-Object-Lifecycle-Preference"
DURATION = "expiration_duration_seconds"
SHORTEST_START = 0.1  # seconds; the hosted service's limit
LONGEST = 10 * 365 * 86400.0  # seconds: ten years are for ever
NUMBER = re.compile(r"\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
ON, OFF = ("1", "true", "yes"), ("0", "false", "no")


@dataclass(frozen=True)
class Preferences:
    """`start_seconds` until the job must run; `low` priority waits behind all others; `private` jobs leave no text behind; `video_seconds` is how
    long the video stays once it is there. None: without limit."""

    start_seconds: float | None = None
    low: bool = False
    private: bool = False
    video_seconds: float | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Preferences":
        """InvalidRequest that names every header whose value cannot be meant."""
        wrong: list[Detail] = []

        def read(name: str, meaning: Callable[[str], Any]) -> Any:
            if (text := headers.get(name, "").strip()):
                try:
                    return meaning(text)
                except ValueError as error:
                    wrong.append(Detail(("header", name), str(error), "value_error", text))
            return None

        newer, older = read(START_TIMEOUT, _start_seconds), read(OLDER_START_TIMEOUT, _start_seconds)
        preferences = cls(older if newer is None else newer, bool(read(PRIORITY, _is_low)), bool(read(STORE_IO, _is_private)),
                          read(LIFECYCLE, _video_seconds))
        if wrong:
            raise InvalidRequest(wrong)
        return preferences


@dataclass(frozen=True)
class Target:
    """The path and query that a request means, and whether its sender thinks to be at fal."""

    path: str
    query: str
    at_fal: bool = False

    @classmethod
    def of(cls, path: str, query: str, headers: Mapping[str, str]) -> "Target":
        """At the proxy address, what the header names. BadRequest for a header that cannot be read, NotFound for a host that is none of fal's."""
        if path != PROXY:
            return cls(path, query)
        try:
            target = urlsplit(headers.get(TARGET_URL, ""))
        except ValueError as error:
            raise BadRequest("The header x-fal-target-url holds no address.") from error
        if target.hostname not in FAL_HOSTS:
            raise NotFound(f"The proxy's target at '{(target.hostname or '')[:100]}'")
        return cls(FAL_HOSTS[target.hostname] + target.path, target.query, at_fal=True)


def _start_seconds(text: str) -> float:
    seconds = float(text) if NUMBER.fullmatch(text) else math.nan
    if not SHORTEST_START < seconds < math.inf:
        raise ValueError(f"Input should be a number of seconds above {SHORTEST_START}: how long the job may wait before it starts")
    return min(seconds, LONGEST)


def _is_low(text: str) -> bool:
    if text.lower() not in ("low", "normal"):
        raise ValueError("Input should be 'low' or 'normal'")
    return text.lower() == "low"


def _is_private(text: str) -> bool:
    if text.lower() not in ON + OFF:
        raise ValueError("Input should be 0, to keep no text of the request, or 1")
    return text.lower() in OFF


def _video_seconds(text: str) -> float | None:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        entries = None
    seconds = entries.get(DURATION) if isinstance(entries, dict) else math.nan
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise ValueError(f'Input should be JSON such as {{"{DURATION}": 3600}}, with seconds above 0')
    return float(min(seconds, LONGEST))  # a whole number may be larger than a float can be
