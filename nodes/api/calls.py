"""One request to the API on its way: who asks for what, of whom, and under which addresses."""

from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from ..engine.fetch.addresses import AddressRefused, check_url
from . import contract
from .contract import MAX_BODY_BYTES, Health, TextToVideoInput
from .errors import BadRequest, Detail, InvalidRequest, PayloadTooLarge
from .headers import Preferences
from .jobs.job import IN_QUEUE, Job
from .jobs.repeats import Repeats
from .settings import Settings
from .uploads.storage import Uploads


class Service(Protocol):
    """Whoever makes the videos: this ComfyUI, or many."""

    @property
    def uploads(self) -> Uploads:
        """Where it keeps what clients send."""

    async def submit(self, request: TextToVideoInput, owner: str, base_url: str, webhook: str | None, preferences: Preferences) -> Job:
        """A job that waits. ApiError where it cannot."""

    def job(self, request_id: str, owner: str) -> Job:
        """NotFound for what is not there, and for what is another key's."""

    def cancel(self, job: Job) -> None:
        """Its result is Cancelled soon, unless it is complete already."""

    def queue_position(self, job: Job) -> int:
        """How many are ahead of it."""

    def health(self) -> Health:
        """What it is, and what it lacks."""

    def jwks(self) -> dict[str, Any]:
        """The keys that verify its webhooks."""


@dataclass(frozen=True)
class Order:
    """A video that somebody wants; two that are equal are the same call, sent again."""

    owner: str
    parameters: str
    webhook: str | None
    preferences: Preferences


@dataclass(frozen=True)
class Call:
    """One request to the API: whose it is, for which job, and the addresses that the caller knows the server and its queue by."""

    request: web.Request
    service: Service
    settings: Settings
    repeats: Repeats
    owner: str
    base_url: str
    queue_url: str
    query: dict[str, list[str]]
    names: dict[str, str]

    def job(self) -> Job:
        return self.service.job(self.names["request_id"], self.owner)

    def parameter(self, name: str) -> str:
        return self.query.get(name, [""])[-1]

    async def order(self) -> Order:
        parameters = contract.parse(await self.body()).model_dump_json()
        return Order(self.owner, parameters, self._webhook(), Preferences.of(self.request.headers))

    async def submitted(self, order: Order) -> Job:
        parameters = TextToVideoInput.model_validate_json(order.parameters)
        return await self.service.submit(parameters, self.owner, self.base_url, order.webhook, order.preferences)

    def is_gone(self) -> bool:
        """Whether the caller hung up."""
        return self.request.transport is None or self.request.transport.is_closing()

    async def body(self) -> bytes:
        try:
            body = await self.request.clone(client_max_size=MAX_BODY_BYTES + 1).read()
        except web.HTTPRequestEntityTooLarge as error:
            raise PayloadTooLarge(MAX_BODY_BYTES) from error
        except web.RequestPayloadError as error:
            raise BadRequest("The body is not encoded as its headers say.") from error
        if len(body) > MAX_BODY_BYTES:  # versions of aiohttp differ in whether the limit itself is too large
            raise PayloadTooLarge(MAX_BODY_BYTES)
        return body

    def _webhook(self) -> str | None:
        if not (url := self.parameter("fal_webhook")):
            return None
        try:
            check_url(url, self.settings.webhooks.addresses)
        except AddressRefused as error:
            raise InvalidRequest([Detail(("query", "fal_webhook"), str(error), "value_error")]) from error
        return url

    def wants(self, name: str) -> bool:
        return self.parameter(name).lower() in ("1", "true")

    def state(self, job: Job, first_line: int = 0, preview: str = "") -> dict[str, Any]:
        position = self.service.queue_position(job) if job.status == IN_QUEUE else 0
        return contract.body(contract.state(job, self.queue_url, position, self.wants("logs"), first_line, preview))
