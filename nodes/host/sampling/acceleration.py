"""Skip the transformer blocks of a step by adding the residual of an earlier one, through ComfyUI's block patches.

The patches live in the options of one model call: nothing is written into the user's models.
"""

from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
import torch

from ...engine.log import log
from ...engine.sampling.caching import magnitude_ratio
from ..models.memory import Model

BlockPatch = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
CONDITIONAL, UNCONDITIONAL = 0, 1  # ComfyUI's cond_or_uncond
BLOCK = "double_block"  # what comfy/ldm/wan/model.py calls its blocks


def core_cache(model: Model) -> str:
    """Name of core's cache on this expert that skips steps by its own lights, EasyCache or LazyCache; empty without."""
    holder = model.model_options.get("transformer_options", {}).get("easycache")
    return "" if holder is None else str(getattr(holder, "name", "EasyCache"))


class BlockCache:
    """What all blocks of one expert added to their input (B, tokens, dim), last time, per conditioning.

    ComfyUI sends conditional and unconditional apart or together in one batch; a residual is kept per conditioning and fits both.
    """

    def __init__(self, block_count: int) -> None:
        self.last_block = block_count - 1
        self.residuals: dict[Any, torch.Tensor] = {}
        self.block_input: torch.Tensor | None = None
        self.reusing = False
        self.seen: set[Any] = set()
        self.ambiguous = False
        self.patches: dict[bool, dict[tuple[str, int], BlockPatch]] = {}

    def clear(self) -> None:
        self.residuals.clear()
        self.block_input = None

    def patched(self, options: dict[str, Any], skip: bool) -> dict[str, Any]:
        """A copy of the model options whose blocks fill this cache or, when `skip`, are replaced by it."""
        self.seen.clear()
        if not skip:
            self._begin_computed_step()
        if skip not in self.patches:
            present = options.get("transformer_options", {}).get("patches_replace", {}).get("dit", {})
            self.patches[skip] = {(BLOCK, index): self._patch(index, skip, present.get((BLOCK, index))) for index in range(self.last_block + 1)}
        return comfy.patcher_extension.merge_nested_dicts(options, {"transformer_options": {"patches_replace": {"dit": self.patches[skip]}}})

    def _begin_computed_step(self) -> None:
        """A residual is of the last step that the plan computes, or of none: where another pack's cache skips that step, none is left to reuse."""
        self.residuals.clear()

    def _patch(self, index: int, skip: bool, inner: BlockPatch | None) -> BlockPatch:
        def block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
            options = args["transformer_options"]
            image, conditionings = args["img"], options["uuids"]
            if index == 0:
                self._note(conditionings)
                self.reusing = skip and not self.ambiguous and self._holds(conditionings, image)
                self.block_input = image
            if not self.reusing:
                result = inner(args, extra) if inner else extra["original_block"](args)
                if index == self.last_block:
                    self._remember(conditionings, options["cond_or_uncond"], result["img"])
                return result
            return {"img": image + self._residual(conditionings)} if index == 0 else {"img": image}

        return block

    def _remember(self, conditionings: list[Any], branches: list[int], output: torch.Tensor) -> None:
        if self.block_input is None:  # another pack's patch took the first block's place
            return
        residuals = (output - self.block_input).chunk(len(conditionings))
        self.block_input = None
        for key, branch, residual in zip(conditionings, branches, residuals, strict=True):
            self._keep(key, branch, residual)

    def _keep(self, key: Any, branch: int, residual: torch.Tensor) -> None:
        self.residuals[key] = residual

    def _note(self, conditionings: list[Any]) -> None:
        """Context windows and skip-layer guidance evaluate one conditioning several times in a step: then a residual fits none of them."""
        if not self.ambiguous and not self.seen.isdisjoint(conditionings):
            self.ambiguous = True
            self.residuals.clear()
            log.info("acceleration off: another node evaluates a prompt more than once per step")
        self.seen.update(conditionings)

    def _holds(self, conditionings: list[Any], image: torch.Tensor) -> bool:
        shape = (image.shape[0] // len(conditionings), *image.shape[1:])
        return all(key in self.residuals and self.residuals[key].shape == shape for key in conditionings)

    def _residual(self, conditionings: list[Any]) -> torch.Tensor:
        self.block_input = None
        return torch.cat([self.residuals[key] for key in conditionings])


class MagnitudeRecorder(BlockCache):
    """Measures, while every step is computed, by which ratio each branch's residual grows or shrinks from step to step."""

    def __init__(self, block_count: int) -> None:
        super().__init__(block_count)
        self.ratios: dict[int, list[float]] = {CONDITIONAL: [], UNCONDITIONAL: []}

    def _begin_computed_step(self) -> None:
        """The residuals of the step before stay, for comparison."""

    def _keep(self, key: Any, branch: int, residual: torch.Tensor) -> None:
        previous = self.residuals.get(key)
        self.ratios[branch].append(1.0 if previous is None else magnitude_ratio(residual, previous))
        super()._keep(key, branch, residual)
