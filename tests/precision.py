"""Arithmetic without rounding worth speaking of, so that a law about numbers holds on every processor."""

import contextlib
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Within, float32 means float64: for new tensors, and for code that names float32 or calls .float(), whoever wrote it."""
    before = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("float32", "float"):
            patch.setattr(torch, name, torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        patch.setattr(np, "float32", np.float64)
        management = sys.modules.get("comfy.model_management")
        if hasattr(management, "in_training"):  # ComfyUI 0.30.0 computes by kernels for narrower types, but not while it trains
            patch.setattr(management, "in_training", True)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
