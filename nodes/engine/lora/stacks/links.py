"""Where LoRAs can be fetched, as workflows say it."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ...model_files import DOWNLOADS
from ...pairs import with_slashes
from .names import is_text

FOLDER = "loras"
MOST_LINK = 2000  # characters


def is_link(text: str) -> bool:
    """Whether a text is a web address, short and without spaces."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc) and len(text) <= MOST_LINK and is_text(text) and not set(text) & set(' <>"')


def links_in(workflow: object) -> dict[str, str]:
    """Addresses of LoRAs by name: those of the workflow's nodes (`properties.models`), in subgraphs too, and before them the official ones.

    A workflow comes from anywhere and may hold anything; what is no address is passed over.
    """
    told = {with_slashes(model["name"]): model["url"] for node in _nodes(workflow) for model in _list(_table(node.get("properties")).get("models"))
            if isinstance(model, dict) and model.get("directory") == FOLDER and isinstance(model.get("name"), str)
            and isinstance(model.get("url"), str) and is_link(model["url"])}
    return told | DOWNLOADS[FOLDER]


def link_of(name: str, links: Mapping[str, str]) -> str:
    """The address for a LoRA in any folder; empty where nobody knows."""
    path = with_slashes(name)
    return links.get(path) or links.get(path.rsplit("/", 1)[-1], "")


def _nodes(workflow: object) -> Iterator[dict[str, Any]]:
    whole = _table(workflow)
    for graph in (whole, *_list(_table(whole.get("definitions")).get("subgraphs"))):
        yield from (node for node in _list(_table(graph).get("nodes")) if isinstance(node, dict))


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
