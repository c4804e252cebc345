"""Packages that only some nodes need: imported where they are used, so that a missing one costs no other node."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def opencv() -> ModuleType:
    """cv2, of opencv-python or opencv-python-headless; ValueError where neither can be imported."""
    with _told_how_to_install("opencv-python"):
        import cv2
    return cv2


def text_fixer() -> ModuleType:
    """ftfy; ValueError where it cannot be imported."""
    with _told_how_to_install("ftfy"):
        import ftfy
    return ftfy


def ed25519() -> ModuleType:
    """The ED25519 part of cryptography; ValueError where it cannot be imported."""
    with _told_how_to_install("cryptography"):
        from cryptography.hazmat.primitives.asymmetric import ed25519
    return ed25519


@contextmanager
def _told_how_to_install(package: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ValueError(f"the package {package} cannot be imported: {error}. "
                         f"Install it with ComfyUI's own Python and start ComfyUI again: pip install {package}") from error
