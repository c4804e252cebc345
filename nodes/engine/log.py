"""The pack's lines in ComfyUI's log."""

import logging
from collections.abc import MutableMapping
from typing import Any

MARK = "[Wan 2.2] "  # before every line


class MarkedLog(logging.LoggerAdapter):  # type: ignore[type-arg] # Python 3.10 takes none
    """Lines that a reader of the log can tell from those of other packs."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return f"{MARK}{msg}", kwargs


log = MarkedLog(logging.getLogger("wan22"), {})
