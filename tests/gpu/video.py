"""Stage: decoding, interpolating and writing on the card, ours against core's and against each pair by itself."""

import importlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import bench_video as bench
import interpolation_oracles as oracles
import tiny_weights
import videos
from bench_interpolation import clip, per_pair
from comfyui import import_pack
from gpu import card
from gpu.task import Row, Task, task_of_this_process

RIFE = "4.25 or 4.26"
SIZES = ((832, 480), (1280, 720))
FRAMES, PAIRS, NEW_FRAMES = 81, 8, (1, 4)
ROUNDS = 2  # of the pairs, one after the other: 8 pairs of RIFE alone take a tenth of a second


class Bench:
    """A VAE of the real width and both interpolation networks, all with random weights."""

    def __init__(self, task: Task) -> None:
        self.task, self.pack = task, import_pack(cpu=not torch.cuda.is_available())
        import comfy.sd
        self.host = self.pack.nodes.host.video
        self.frames = 9 if task.rehearsal else FRAMES
        self.pairs = 1 if task.rehearsal else PAIRS
        self.vae = comfy.sd.VAE(sd=tiny_weights.vae(seed=4, dim=8 if task.rehearsal else 96))
        task.write("VAE", {"dtype": str(self.vae.vae_dtype)})

    def decoding(self, width: int, height: int) -> None:
        latent = {"samples": bench.drifting_latent((self.frames - 1) // 4 + 1, width, height)}
        short = {"samples": latent["samples"][:, :, :2]}
        made: dict[str, torch.Tensor] = {}

        def measured(name: str, decode: Callable[[Any], torch.Tensor]) -> Row:
            decode(short)
            reset_peak()
            begin = card.now()
            made[name] = decode(latent)
            seconds = card.now() - begin
            return {"frames_s": self.frames / seconds, "seconds": seconds, **peak()}

        self.task.attempt(f"decode {width}x{height}x{self.frames}, core", lambda: measured("core", self.core_decoded))
        self.task.attempt(f"decode {width}x{height}x{self.frames}, ours", lambda: measured("ours", self.our_decoded))
        self.task.attempt("decoded frames, largest difference in 0..255", lambda: {"levels": levels_apart(made["core"], made["ours"])})

    def core_decoded(self, latent: Any) -> torch.Tensor:
        return importlib.import_module("nodes").VAEDecode().decode(self.vae, latent)[0].cpu()

    def our_decoded(self, latent: Any) -> torch.Tensor:
        return torch.cat([chunk.cpu() for chunk in self.host.decoding.decode(latent, self.vae, 16).stream.pull()])

    def decoding_and_writing(self, width: int, height: int) -> None:
        latent = {"samples": bench.drifting_latent((self.frames - 1) // 4 + 1, width, height)}
        for name, pipeline in (("core", bench.core_pipeline), ("ours", bench.our_pipeline)):
            self.task.attempt(f"decode and write {width}x{height}x{self.frames}, {name}", partial(self.written, pipeline, latent))

    def written(self, pipeline: Callable[..., None], source: Any) -> Row:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            begin = card.now()
            pipeline(self.pack, self.vae, source, path)
            seconds = card.now() - begin
            return {"frames_s": self.frames / seconds, "kilobytes": path.stat().st_size / 1000, "frames": videos.facts(path).frames}

    def writing(self, width: int, height: int) -> None:
        """Of smooth pictures that move, on the device that decoding leaves them on."""
        frames = torch.cat(list(clip(self.frames, height, width)))
        for name, pipeline in (("core", core_writer), ("ours", our_writer)):
            self.task.attempt(f"write {width}x{height}x{self.frames}, {name}", partial(self.written, pipeline, frames))

    def interpolation(self, family: str, width: int, height: int) -> None:
        model = self.host.interpolation._patcher(random_weights(family))
        for new_frames in (1,) if self.task.rehearsal else NEW_FRAMES:
            for name, run in (("each pair by itself", self.alone), ("ours", self.ours)):
                self.task.attempt(f"{family} {width}x{height}, {new_frames} new per pair, {name}",
                                  partial(self.interpolated, run, model, width, height, new_frames))

    def interpolated(self, run: Callable[..., Iterator[torch.Tensor]], model: Any, width: int, height: int, new_frames: int) -> Row:
        for _ in run(model, self.pictures(2, width, height), new_frames):
            pass
        frames = self.pictures(self.pairs + 1, width, height) * (1 if self.task.rehearsal else ROUNDS)
        reset_peak()
        begin = card.now()
        made = sum(len(chunk.cpu()) for chunk in run(model, frames, new_frames))
        seconds = card.now() - begin
        return {"new_frames_s": made / seconds, **peak(), "dtype": str(next(model.model.parameters()).dtype)}

    def pictures(self, count: int, width: int, height: int) -> list[torch.Tensor]:
        return [frame.to(card.device()) for frame in clip(count, height, width)]

    def ours(self, model: Any, frames: list[torch.Tensor], new_frames: int) -> Iterator[torch.Tensor]:
        made = self.host.interpolation.interpolated(bench.core_video(torch.cat(frames)), model, new_frames, True, 0.5)
        return (chunk for index, chunk in enumerate(made.stream.pull()) if index % 2)

    def alone(self, model: Any, frames: list[torch.Tensor], new_frames: int) -> Iterator[torch.Tensor]:
        import comfy.model_management
        comfy.model_management.load_models_gpu([model])
        with torch.no_grad():
            yield from per_pair(iter(frames), new_frames, model.model)


def core_writer(pack: Any, vae: Any, frames: torch.Tensor, path: Path) -> None:
    bench.core_video(frames).save_to(str(path))


def our_writer(pack: Any, vae: Any, frames: torch.Tensor, path: Path) -> None:
    bench.write_ours(pack, bench.core_video(frames), path)


def random_weights(family: str) -> dict[str, torch.Tensor]:
    """Under published names, small enough that nothing overflows."""
    if family == "FILM":
        return oracles.film_weights()
    from engine.interpolation.rife import Rife
    from engine.interpolation.rife_files import VERSIONS
    shape = VERSIONS[RIFE]
    ours = Rife(shape, torch.nn).state_dict()
    return {name: published(tensor, 4 * shape.outputs) if "lastconv" in name else tensor for name, tensor in ours.items()}


def published(tensor: torch.Tensor, outputs: int) -> torch.Tensor:
    """With the output channels that nothing reads, which ours leave out: (outputs) or (inputs, outputs, rows, columns)."""
    axis = 0 if tensor.ndim == 1 else 1
    missing = [outputs - size if index == axis else size for index, size in enumerate(tensor.shape)]
    return torch.cat((tensor, tensor.new_zeros(missing)), axis)


def levels_apart(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max() * 255)


def reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak() -> Row:
    return {"peak_gib": torch.cuda.max_memory_allocated() / card.GIB} if torch.cuda.is_available() else {}


def main() -> None:
    task = task_of_this_process()
    sizes = ((64, 48),) if task.rehearsal else SIZES
    with torch.inference_mode():
        bench_of_task = Bench(task)
        for size in sizes:
            bench_of_task.decoding(*size)
        for family in ("RIFE", "FILM"):
            for size in sizes:
                bench_of_task.interpolation(family, *size)
        bench_of_task.writing(*sizes[0])
        bench_of_task.decoding_and_writing(*sizes[0])


if __name__ == "__main__":
    main()
