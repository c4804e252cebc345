"""Stage: run out of memory on purpose. Decoding goes on in tiles, acceleration wants no more than none, and what cannot be decoded is kept."""

import argparse
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import bench_sampling
import bench_video
import tiny_weights
from comfyui import import_pack
from gpu import card
from gpu.task import Row, Task, task_of_this_process
from sampling_runs import relative_error

SMALL, LARGE = (64, 64, 9), (1280, 720, 17)
SAMPLED = (832, 480, 33)
TILED_SHARES = (0.75, 0.4)  # the features of all tiles fit, and do not
STEPS = 12  # acceleration forecasts from 10 on
LATENTS_GIB = 64 / 1024  # more than enough: `regular` keeps the velocities of two steps


class Exhaustion:
    """Each row first measures what a run takes, then gives it less."""

    def __init__(self, task: Task) -> None:
        self.task, self.pack = task, import_pack(cpu=not torch.cuda.is_available())
        import comfy.sd
        self.width, self.height, self.frames = SMALL if task.rehearsal else LARGE
        self.vae = comfy.sd.VAE(sd=tiny_weights.vae(seed=4, dim=8 if task.rehearsal else 96))
        self.latent = bench_video.drifting_latent((self.frames - 1) // 4 + 1, self.width, self.height)

    def decoded(self) -> torch.Tensor:
        video = self.pack.nodes.host.video.decoding.decode({"samples": self.latent}, self.vae, 16)
        return torch.cat([chunk.cpu() for chunk in video.stream.pull()])

    def tiles(self, share: float) -> Row:
        """With `share` of what whole frames take: the same frames come, from tiles."""
        self.leave_the_card()
        self.decoded()
        begin = card.now()
        whole, most = self.peak_of(self.decoded)
        whole_seconds = card.now() - begin
        limit = self.weights() + share * (most - self.weights())
        with heard(self.pack) as log, card.limited_to(limit):
            begin = card.now()
            tiled, least = self.peak_of(self.decoded)
            tiled_seconds = card.now() - begin
        return {"whole_gib": most, "whole_seconds": whole_seconds, "limit_gib": limit, "tiled_gib": least, "tiled_seconds": tiled_seconds,
                "lines": log, "same_frames": len(whole) == len(tiled), "mean_difference_levels": float((whole - tiled).abs().mean() * 255)}

    def weights(self) -> float:
        return self.vae.patcher.model_size() / card.GIB

    def kept(self) -> Row:
        """Less than the smallest tile takes: an error that says where the latent is, and it is there."""
        import folder_paths
        self.leave_the_card()
        before = folder_paths.get_input_directory()
        with tempfile.TemporaryDirectory() as folder:
            folder_paths.set_input_directory(folder)
            try:
                with card.limited_to(self.weights() + 0.02):
                    self.decoded()
            except self.pack.nodes.host.video.decoding.DecodingFailed as error:
                (file,) = Path(folder).glob("*.latent")
                return {"message": str(error).replace(folder, ""), "latent_equal": torch.equal(load_file(file)["latent_tensor"], self.latent)}
            finally:
                folder_paths.set_input_directory(before)
        return {"failed": "decoding did not run out of memory"}

    def acceleration(self) -> Row:
        """With what `none` takes and room for a few latents, `regular` samples what it samples without a limit."""
        size = "moderate" if self.task.rehearsal else "wide"
        experts = tuple(bench_sampling.random_expert(argparse.Namespace(size=size, dtype="bfloat16"), seed) for seed in (1, 2))

        def run(contender: str) -> Callable[[], torch.Tensor]:
            width, height, frames = SMALL if self.task.rehearsal else SAMPLED
            options = argparse.Namespace(contender=contender, width=width, height=height, frames=frames)
            sample = bench_sampling.contender(self.pack, options, experts)
            return lambda: sample(STEPS)

        run("ours")()
        self.leave_the_card()
        plain, peak_of_none = self.peak_of(run("ours"))
        self.leave_the_card()
        fast, peak_of_regular = self.peak_of(run("ours regular"))
        self.leave_the_card()
        limit = peak_of_none + LATENTS_GIB
        with heard(self.pack) as log, card.limited_to(limit):
            limited, _ = self.peak_of(run("ours regular"))
        return {"none_gib": peak_of_none, "regular_gib": peak_of_regular, "limit_gib": limit, "lines": log, "finite": bool(limited.isfinite().all()),
                "latent_equal": torch.equal(limited, fast), "regular_from_none": relative_error(fast, plain)}

    def leave_the_card(self) -> None:
        import comfy.model_management as management
        management.unload_all_models()
        management.soft_empty_cache()

    def peak_of(self, run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float]:
        """What `run` returns, and the GiB that PyTorch held meanwhile."""
        if not torch.cuda.is_available():
            return run(), 0.0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return run(), torch.cuda.max_memory_reserved() / card.GIB


@contextmanager
def heard(pack: Any) -> Iterator[list[str]]:
    """The warnings of the pack meanwhile."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = pack.nodes.engine.log.log.logger
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)


def main() -> None:
    task = task_of_this_process()
    with torch.inference_mode():
        exhaustion = Exhaustion(task)
        if not torch.cuda.is_available():
            task.write("all", {"skipped": "a processor's memory cannot be limited"})
            exhaustion.decoded()
            return
        task.attempt("a latent that cannot be decoded is kept", exhaustion.kept)
        task.attempt("acceleration takes no more memory", exhaustion.acceleration)
        for share in TILED_SHARES:
            task.attempt(f"decoding goes on in tiles with {share:.0%} of the memory", partial(exhaustion.tiles, share))


if __name__ == "__main__":
    main()
