"""Stage: experts of the real shape with random weights; seconds per step, memory and utilisation of ours against core's two KSamplerAdvanced."""

import argparse
import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

import bench_sampling as bench
from comfyui import import_pack
from gpu import card
from gpu.task import Row, Task, task_of_this_process
from sampling_runs import relative_error

TEXT_TOKENS = 512
LOADING_SECONDS = 8  # of both experts in one run, on a slow bus
GUESS = 400e12  # operations per second, until a row has told


@dataclass(frozen=True)
class Case:
    """One run: who samples what."""

    contender: str
    width: int
    height: int
    frames: int
    steps: int
    card_gib: float = 0  # 0: the card as it is

    @property
    def name(self) -> str:
        limit = f", card of {self.card_gib:g} GiB" if self.card_gib else ""
        return f"{self.contender}, {self.width}x{self.height}x{self.frames}, {self.steps} steps{limit}"

    @property
    def tokens(self) -> int:
        return ((self.frames - 1) // 4 + 1) * (self.height // 16) * (self.width // 16)


def cases(dtype: str) -> list[Case]:
    """The most wanted first: what does not fit into the time is left out from the end."""
    short, small, large = (832, 480, 33), (832, 480, 81), (1280, 720, 81)
    whole = [Case("core", *small, 3), Case("ours", *small, 3)]
    if dtype == "bfloat16":
        return [*whole, Case("ours", *small, 2, 48), Case("core", *small, 2, 48), Case("ours", *large, 2), Case("core", *large, 2)]
    return [*whole, Case("ours", *large, 2), Case("ours regular", *short, 12), Case("ours", *small, 2, 24), Case("core", *small, 2, 24),
            Case("core", *large, 2), Case("ours", *small, 2, 16), Case("core", *small, 2, 16), Case("ours", *large, 2, 24),
            Case("ours compiled", *small, 4), Case("ours sage", *small, 3), Case("ours regular", *small, 12)]


def rehearsed(case: Case) -> Case:
    """Small enough for a processor."""
    return Case(case.contender, case.width // 26 // 16 * 16, case.height // 30 // 16 * 16, 9, case.steps)


def operations(tokens: int, dim: int, ffn_dim: int, num_layers: int) -> float:
    """Floating-point operations of one evaluation of an expert for one prompt, without what is done once per token or less."""
    own = 8 * tokens * dim**2 + 4 * tokens**2 * dim
    text = 4 * tokens * dim**2 + 4 * TEXT_TOKENS * dim**2 + 4 * tokens * TEXT_TOKENS * dim
    return num_layers * (own + text + 4 * tokens * dim * ffn_dim)


class Bench:
    """Both experts, and what was called in them."""

    def __init__(self, dtype: str, task: Task) -> None:
        self.task = task
        self.size = "moderate" if task.rehearsal else "14b"
        self.pack = import_pack(cpu=not torch.cuda.is_available())
        self.calls: list[bench.Call] = []
        self.computed: list[int] = []
        self.latents: dict[tuple[int, ...], torch.Tensor] = {}
        self.ceiling = card.product_rate(512 if task.rehearsal else card.SIDE)
        self.rate = GUESS
        begin = card.now()
        self.experts = tuple(bench.random_expert(argparse.Namespace(size=self.size, dtype=dtype), seed) for seed in (1, 2))
        self._watch()
        gib = self.experts[0].model_size() / card.GIB
        task.write("experts", {"gib_each": gib, "making_seconds": card.now() - begin, "matrix_product_tflop_s": self.ceiling / 1e12})

    def _watch(self) -> None:
        for name, expert in zip(("high", "low"), self.experts, strict=True):
            expert.set_model_unet_function_wrapper(bench.timing_wrapper(self.calls, name))
            expert.model.diffusion_model.blocks[0].register_forward_hook(lambda block, args, output: self.computed.append(len(output)))

    def warm_up(self) -> Row:
        """Libraries load their kernels, and the first transfer is paid."""
        run = self.contender(Case("ours", 128, 128, 9, 2))
        begin = card.now()
        run(2)
        return {"seconds": card.now() - begin}

    def contender(self, case: Case) -> Callable[[int], torch.Tensor]:
        options = argparse.Namespace(contender=case.contender, width=case.width, height=case.height, frames=case.frames)
        change = {"sage": with_sage, "compiled": compiled}.get(case.contender.split()[-1])
        return bench.contender(self.pack, options, tuple(map(change, self.experts)) if change else self.experts)

    def attempt(self, case: Case) -> None:
        prompts = 2 * case.steps * (0.84 if "regular" in case.contender else 1)
        needs = 0.0 if self.task.rehearsal else prompts * self.operations(case) / self.rate + LOADING_SECONDS
        with_card = self.on_small_card if case.card_gib and torch.cuda.is_available() else self.measure
        self.task.attempt(case.name, partial(with_card, case), needs)

    def operations(self, case: Case) -> float:
        return operations(case.tokens, **bench.SIZES[self.size])

    def on_small_card(self, case: Case) -> Row:
        self.leave_the_card()
        with card.small_card(case.card_gib):
            row = self.measure(case)
            self.leave_the_card()
        return row

    def leave_the_card(self) -> None:
        import comfy.model_management as management
        management.unload_all_models()
        gc.collect()
        management.soft_empty_cache()

    def measure(self, case: Case) -> Row:
        """From experts in main memory to the latent."""
        self.leave_the_card()
        run = self.contender(case)
        self.calls.clear()
        self.computed.clear()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        begin = bench.now()
        latent = run(case.steps)
        seconds = bench.now() - begin
        return {"seconds": seconds, **self.of_calls(case, begin), **memory(), **self.likeness(case, latent)}

    def of_calls(self, case: Case, begin: float) -> Row:
        high, low = ([call for call in self.calls if call.expert == name] for name in ("high", "low"))
        per_prompt = [call.seconds / call.prompts for call in self.calls]
        typical = statistics.median(per_prompt)
        rate = self.operations(case) / typical
        self.rate = 0.9 * rate
        return {"step_seconds": 2 * typical, "fastest_step_seconds": 2 * min(per_prompt), "tflop_s": rate / 1e12, "utilisation": rate / self.ceiling,
                "prompts_per_call": max(call.prompts for call in self.calls),
                "loading_seconds": high[0].begin - begin, "switch_seconds": low[0].begin - high[-1].end,
                "calls_seconds": sum(call.seconds for call in self.calls), "computed": sum(self.computed) / 2}

    def likeness(self, case: Case, latent: torch.Tensor) -> Row:
        """How far our latent is from core's of the same shape, steps and noise."""
        key = (case.width, case.height, case.frames, case.steps)
        numbers: Row = {"finite": bool(latent.isfinite().all())}
        if case.contender == "core":
            self.latents[key] = latent
        elif key in self.latents:
            numbers["difference_from_core"] = relative_error(latent.float(), self.latents[key].float())
        return numbers


def memory() -> Row:
    """In GiB: the most that tensors took, and the most that PyTorch held for them."""
    if not torch.cuda.is_available():
        return {}
    return {"peak_gib": torch.cuda.max_memory_allocated() / card.GIB, "held_gib": torch.cuda.max_memory_reserved() / card.GIB}


def with_sage(expert: Any) -> Any:
    """RuntimeError where the package is missing."""
    import comfy.ldm.modules.attention as attention
    if not attention.SAGE_ATTENTION_IS_AVAILABLE:
        raise RuntimeError("sageattention is not installed")

    def sage(_: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return attention.attention_sage(*args, **kwargs)

    clone = expert.clone()
    options = clone.model_options["transformer_options"]
    clone.model_options["transformer_options"] = {**options, "optimized_attention_override": sage}
    return clone


def compiled(expert: Any) -> Any:
    """Block by block: they are alike, so that one is compiled."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    clone = expert.clone()
    keys = [f"diffusion_model.blocks.{index}" for index in range(len(clone.model.diffusion_model.blocks))]
    set_torch_compile_wrapper(clone, backend="inductor", keys=keys)
    return clone


def main() -> None:
    task = task_of_this_process()
    dtype = "bfloat16" if "bf16" in task.stage else "fp8_scaled"
    with torch.inference_mode():
        bench_of_dtype = Bench(dtype, task)
        task.attempt("warm-up", bench_of_dtype.warm_up)
        for case in map(rehearsed, cases(dtype)[:3]) if task.rehearsal else cases(dtype):
            bench_of_dtype.attempt(case)


if __name__ == "__main__":
    main()
