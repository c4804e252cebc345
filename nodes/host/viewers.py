"""Who looks at a video while it is made: the page that runs the prompt, or the program whose prompt it is."""

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from comfy_execution.utils import get_executing_context
from server import PromptServer

EVENT = "wan22.preview"


class Viewer(Protocol):
    """Whoever may look; a picture is the data URL of an image that may move."""

    def looks(self) -> bool:
        """Whether a picture would be seen now."""

    def show(self, picture: str) -> None:
        """In place of the one before. It is called in any thread."""


@dataclass(frozen=True)
class Page:
    """The page that runs the prompt, and the node that runs in it."""

    client_id: str
    prompt_id: str
    node_id: str

    def looks(self) -> bool:
        return True

    def show(self, picture: str) -> None:
        data: dict[str, Any] = {"node": self.node_id, "prompt": self.prompt_id, "image": picture}
        PromptServer.instance.send_sync(EVENT, data, self.client_id)


programs: MutableMapping[str, Viewer] = {}  # by the id of the prompt that each waits for


def viewer_at_work() -> Viewer | None:
    """Of the prompt that runs; None where nobody could look."""
    server, context = getattr(PromptServer, "instance", None), get_executing_context()
    if context is None:
        return None
    if server is not None and server.client_id is not None:
        return Page(server.client_id, context.prompt_id, context.node_id)
    return programs.get(context.prompt_id)
