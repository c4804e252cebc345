"""How much memory a computation takes, from the tensors that its operations make: also of tensors that have a shape and no contents.

A GPU need not be there, nor the memory: `pretended_card` makes tensors of its kind that hold nothing, and `LiveMemory` adds up what they would hold.
What libraries take for themselves inside an operation (cuBLAS' and cuDNN's workspaces) is not seen.
"""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Bytes of the storages on devices of one type that were made since it was entered and are still held: `now`, and the most of them, `peak`.

    To be entered without gradients, so that composite operations come apart into those that make tensors.
    """

    def __init__(self, device_type: str) -> None:
        super().__init__()
        self.device_type = device_type
        self.now, self.peak = 0, 0
        self.known: set[int] = set()
        self.older: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        for storage in self._storages((args, kwargs)):
            if id(storage) not in self.known:  # from before, such as a weight: a view of it will make nothing
                self.known.add(id(storage))
                self.older.append(storage)
        made = func(*args, **(kwargs or {}))
        for storage in self._storages(made):
            self._note(storage)
        return made

    def _storages(self, tree: Any) -> list[Any]:
        return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.device.type == self.device_type]

    def _note(self, storage: Any) -> None:
        if id(storage) not in self.known:
            self.known.add(id(storage))
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, id(storage), storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


@contextmanager
def pretended_card(attention: str = "pytorch", free_bytes: float = 8 * 2**30) -> Iterator[None]:
    """Tensors made meanwhile hold nothing, and core takes the attention function of this name as on an NVIDIA card; some ask how much is free."""
    import comfy.ldm.modules.attention
    import comfy.ldm.modules.diffusionmodules.model
    import comfy.ldm.wan.model
    import comfy.ldm.wan.vae
    import comfy.model_management
    import comfy.ops
    chosen = getattr(comfy.ldm.modules.attention, f"attention_{attention}")
    of_the_vae = comfy.ldm.modules.diffusionmodules.model.pytorch_attention
    changes = ((comfy.ops, "scaled_dot_product_attention", _flash), (comfy.ldm.wan.model, "optimized_attention", chosen),
               (comfy.ldm.wan.vae, "vae_attention", lambda: of_the_vae),
               (comfy.model_management, "pytorch_attention_flash_attention", lambda: attention == "pytorch"),
               (comfy.model_management, "get_free_memory",
                lambda _=None, torch_free_too=False: (free_bytes, 0) if torch_free_too else free_bytes))
    with ExitStack() as stack:
        for place, name, change in changes:
            stack.enter_context(mock.patch.object(place, name, change))
        stack.enter_context(FakeTensorMode())
        stack.enter_context(torch.no_grad())
        yield


def _flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """What PyTorch calls on a card: no matrix of scores, and a number per row beside the result."""
    attended: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
    return attended
