"""Core's MultiGPU CFG Split, where this ComfyUI has it: clones of an expert on other GPUs, each computing its share of the prompts in a thread."""

import importlib
from typing import Any

import comfy.sampler_helpers

from .memory import Model

CLONES, THREADS = "multigpu_clones", "multigpu_thread_pool"  # where core looks for them in the model options


class CfgSplit:
    """The clones that work beside an expert while it is active; none without the node. As `CFGGuider.outer_sample` prepares and ends them."""

    def __init__(self, model: Model, loaded: list[Any], model_options: dict[str, Any]) -> None:
        prepare = getattr(comfy.sampler_helpers, "prepare_model_patcher_multigpu_clones", None)
        self.model_options = model_options
        self.clones: list[Model] = prepare(model, loaded, model_options) if prepare else []
        if self.clones:
            pool = importlib.import_module("comfy.multigpu").MultiGPUThreadPool
            model_options[THREADS] = pool([model.load_device, *(clone.load_device for clone in self.clones)])

    def end(self) -> None:
        self.model_options.pop(CLONES, None)
        threads = self.model_options.pop(THREADS, None)
        if threads is not None:
            threads.shutdown()
        for clone in self.clones:
            clone.cleanup()
