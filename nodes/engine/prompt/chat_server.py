"""A language model behind an OpenAI-compatible chat server: Ollama, LM Studio, vLLM, llama.cpp, transformers serve, OpenAI."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from .expansion import ExpansionFailed, Request

LOCAL_URL = "http://127.0.0.1:11434/v1"  # Ollama's
MAX_ANSWER_BYTES = 2**20
CONNECT_SECONDS = 10.0


class Refused(ExpansionFailed):
    """The server does not take the request as it is."""


@dataclass(frozen=True)
class ChatServer:
    """Where to ask; without a model's name the first one that the server lists. The key never appears in a text."""

    url: str = LOCAL_URL
    model: str = ""
    key: str = field(default="", repr=False)
    seconds: float = 180.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the chat server's URL is '{self.shown}'; it must look like {LOCAL_URL} or https://api.openai.com/v1.")
        if "@" in parts.netloc or parts.query:
            raise ValueError(f"the chat server's URL {self.shown} must hold no name, password or query; the key has a place of its own.")
        if self.seconds <= 0:
            raise ValueError(f"the chat server's time limit is {self.seconds} s; it must be above 0.")

    @property
    def shown(self) -> str:
        """The URL for messages, without what may be secret in it."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()

    async def answer(self, request: Request) -> str:
        """The text of one chat completion. ExpansionFailed for whatever goes wrong; cancelling closes the connection."""
        limits = aiohttp.ClientTimeout(total=self.seconds, connect=CONNECT_SECONDS)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            async with aiohttp.ClientSession(timeout=limits, headers=headers) as session:
                return await self._completion(session, request)
        except asyncio.TimeoutError as error:
            raise ExpansionFailed(f"{self.shown} gave no answer within {self.seconds:g} s. Use a smaller model, or set WAN22_LLM_SECONDS.") from error
        except aiohttp.ClientError as error:
            raise ExpansionFailed(f"{self.shown} cannot be reached: {error}. Is the server running? For Ollama: ollama serve.") from error

    async def _completion(self, session: aiohttp.ClientSession, request: Request) -> str:
        needed = {"model": self.model or await self._first_model(session), "messages": request.messages}
        wished = {"seed": request.seed % 2**31, "temperature": request.temperature, "max_tokens": request.max_new_tokens, "stream": False}
        try:
            answer = await self._asked(session, "POST", "chat/completions", json={**needed, **wished})
        except Refused:  # OpenAI's reasoning models take neither a temperature nor this name of the limit
            answer = await self._asked(session, "POST", "chat/completions", json=needed)
        return _content(answer, self.shown)

    async def _first_model(self, session: aiohttp.ClientSession) -> str:
        listed = await self._asked(session, "GET", "models")
        try:
            return str(listed["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise ExpansionFailed(f"{self.shown} lists no model. Load one there (for Ollama: ollama pull qwen2.5) or name one.") from error

    async def _asked(self, session: aiohttp.ClientSession, method: str, path: str, **options: Any) -> Any:
        address = f"{self.url.rstrip('/')}/{path}"
        async with session.request(method, address, allow_redirects=False, **options) as response:
            answer = await _limited(response, self.shown)
            if response.status != 200:
                kind = Refused if response.status in (400, 422) else ExpansionFailed
                raise kind(f"{self.shown} answered {response.status} {response.reason}: {_reason(answer)}")
        try:
            return _joined(answer) if response.content_type == "text/event-stream" else json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise ExpansionFailed(f"{self.shown} answered with something that is not JSON: {_shortly(answer)}. Does the URL end in /v1?") from error


async def _limited(response: aiohttp.ClientResponse, name: str) -> bytes:
    """The body, never more than MAX_ANSWER_BYTES of it."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(2**16):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ExpansionFailed(f"{name} answered with more than {MAX_ANSWER_BYTES // 2**20} MB, which is no prompt. Check the URL and the model.")
    return bytes(body)


def _joined(events: bytes) -> Any:
    """One completion of many pieces: transformers serve 4 streams even where it is told not to."""
    lines = [line[5:].strip() for line in events.splitlines() if line.startswith(b"data:")]
    pieces = [json.loads(line) for line in lines if line != b"[DONE]"]
    choices = [piece["choices"][0] for piece in pieces if isinstance(piece, dict) and piece.get("choices")]
    if not choices:
        return pieces[-1] if pieces else None
    return {"choices": [{"message": {"content": "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)}}]}


def _content(answer: Any, name: str) -> str:
    """What the model said; its reasoning comes in another field or between tags."""
    try:
        content = answer["choices"][0]["message"]["content"] or ""
    except (KeyError, IndexError, TypeError):
        content = None
    if not isinstance(content, str):
        raise ExpansionFailed(f"{name} answered without choices[0].message.content: {_shortly(json.dumps(answer).encode())}.")
    return content


def _reason(answer: bytes) -> str:
    """The error's text, wherever servers put it."""
    try:
        body = json.loads(answer)
        error = body.get("error", body.get("detail", body))
        return _shortly(str(error.get("message", error) if isinstance(error, dict) else error).encode())
    except (ValueError, AttributeError):
        return _shortly(answer)


def _shortly(text: bytes) -> str:
    return repr(text[:200].decode("utf-8", "replace"))
