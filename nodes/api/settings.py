"""What the owner of the machine allows: one JSON file, checked whole when the server starts."""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from ..engine.fetch.rules import DownloadRules, Rules, UploadRules, WebhookRules
from .jobs.store import KEPT

S = TypeVar("S", bound="Settings")
SHORTEST_KEY = 16  # characters
OF_A_CHECK = "Value error, "  # how pydantic begins what one of our own checks says


class Models(Rules):
    """Files and folders below models/, by the blueprint's names; what is empty is found by its usual names."""

    high_noise_model: str = ""
    low_noise_model: str = ""
    text_encoder: str = ""
    vae: str = ""
    language_model: str = ""
    image_classifier: str = ""


class Settings(Rules):
    """`keys`: without any, only this machine is answered; with some, nobody without one of them. `public_url` is where a reverse proxy puts the
    server; `max_waiting` counts the jobs of one key that are not complete. `kept_jobs` finished ones are remembered; the video of one that is
    forgotten is deleted unless `delete_videos` is false. What `downloads`, `uploads` and `webhooks` may hold stands in engine.fetch.rules."""

    enabled: bool = False
    keys: tuple[Annotated[str, Field(min_length=SHORTEST_KEY, pattern=r"^[\x21-\x7e]+$")], ...] = Field(default=(), repr=False)
    public_url: str = Field(default="", pattern=r"^(https?://[^\s?#]+)?$")
    max_waiting: int = Field(default=100, ge=1, le=10_000)
    kept_jobs: int = Field(default=KEPT, ge=1, le=100_000)
    delete_videos: bool = True
    models: Models = Models()
    downloads: DownloadRules = DownloadRules()
    uploads: UploadRules = UploadRules()
    webhooks: WebhookRules = WebhookRules()

    @classmethod
    def read(cls: "type[S]", text: str) -> "S":
        """ValueError that names each wrong entry, without its value."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ValueError("; ".join(f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg'].removeprefix(OF_A_CHECK)}"
                                       for each in error.errors())) from None

    def owner(self, authorization: str, local: bool) -> str | None:
        """Whose request it is: a fingerprint of its key, "" for a local one where no key is asked for, None for nobody's.

        `authorization` is the header of that name.
        """
        if not self.keys:
            return "" if local else None
        scheme, _, key = authorization.partition(" ")
        valid = _matches(key.strip(), self.keys) and scheme.lower() in ("key", "bearer")
        return hashlib.sha256(key.strip().encode()).hexdigest()[:16] if valid else None


def _matches(candidate: str, keys: Sequence[str]) -> bool:
    """Compared with every key in a time that tells nothing of how much was right."""
    return any([hmac.compare_digest(candidate.encode("utf-8", "surrogatepass"), key.encode()) for key in keys])
