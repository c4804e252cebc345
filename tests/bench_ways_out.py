"""Save Video's pictures: seconds, bytes and growth of the peak memory of each way, beside core's SaveAnimatedWEBP and Pillow.

    python dev.py bench ways_out            17 and 161 frames of 832x480 of a real clip: time, size, and growth of the peak memory
    python dev.py bench ways_out --table    seconds, size and SSIM of every quality and write mode; the tables in `pictures` are chosen from it

One process per measurement, contenders alternating. `core webp` and `pillow gif` hold all frames, as those who call them do.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

import clips
from engine.frames import FrameStream, chunks, to_levels
from engine.video import read
from engine.video.edit import LOOPS, Edit
from engine.video.formats import ANIMATIONS, QUALITIES, SEQUENCES, WRITE_MODES, VideoFormat
from engine.video.pictures import read as pictures
from engine.video.pictures.sequence import PartFolder
from engine.video.pictures.write import write_pictures
from engine.video.spool import played_again
from engine.video.write import PartFile, write_file
from peak_memory import PeakMemory, alternating

WIDTH, HEIGHT, RATE = 832, 480, Fraction(16)
LENGTHS = (17, 161)
PEERS = ("core webp", "pillow gif")
OURS = ("mp4", *ANIMATIONS, *SEQUENCES, "png 16", *(f"mp4 {loop}" for loop in LOOPS[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--contender", choices=(*PEERS, *OURS), help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, default=161, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(measured(options.contender, options.frames)))
    elif options.table:
        print_table()
    else:
        compare(options.rounds)


def compare(rounds: int) -> None:
    runs = {frames: alternating((*PEERS, *OURS), rounds, "--frames", str(frames)) for frames in LENGTHS}
    print(f"{'way':<18}{'s':>8}{'kB':>9}{'peak MB':>9}{'more than for 17 frames':>26}")
    for name in (*PEERS, *OURS):
        short, long = ({field: statistics.median(run[field] for run in runs[frames][name]) for field in ("seconds", "kb", "peak_mb")}
                       for frames in LENGTHS)
        print(f"{name:<18}{long['seconds']:>8.1f}{long['kb']:>9.0f}{long['peak_mb']:>9.0f}{long['peak_mb'] - short['peak_mb']:>26.0f}")


def measured(name: str, frames: int) -> dict[str, float]:
    if name == "core webp":
        from comfyui import import_comfyui
        import_comfyui()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_ours("mp4", 1, folder / "warm")
        memory, start = PeakMemory(), time.perf_counter()
        path = write_peers(name, frames, folder) if name in PEERS else write_ours(name, frames, folder)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "kb": size(path) / 1024, "peak_mb": memory.megabytes()}


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def scene(frames: int) -> Iterator[torch.Tensor]:
    """Chunks of a real clip, enlarged to 832x480, made one after the other; it begins again where it ends."""
    left = frames
    while left:
        for chunk in read.frames(str(clips.clip_path("bikes.mp4"))):
            large = np.stack([cv2.resize(picture, (WIDTH, HEIGHT)) for picture in chunk[:left].numpy()])
            left -= len(large)
            yield torch.from_numpy(large)
            if not left:
                return


def write_peers(name: str, frames: int, folder: Path) -> Path:
    images = torch.cat(list(scene(frames)))
    if name == "core webp":
        import folder_paths
        from comfy_api.latest._io import FolderType
        from comfy_api.latest._ui import ImageSaveHelper
        folder_paths.set_output_directory(str(folder))
        return folder / ImageSaveHelper.save_animated_webp(images, "core", FolderType.output, None, float(RATE), False, 90, 4)["filename"]
    first, *others = [Image.fromarray(picture) for picture in to_levels(images)]
    first.save(folder / "pillow.gif", save_all=True, append_images=others, duration=1000 / float(RATE), loop=0)
    return folder / "pillow.gif"


def write_ours(name: str, frames: int, folder: Path) -> Path:
    container, _, how = name.partition(" ")
    video = VideoFormat(container=container, bit_depth=10 if how == "16" else 8)
    stream = FrameStream(WIDTH, HEIGHT, frames, RATE, lambda: scene(frames))
    edit = Edit(loop=how) if how in LOOPS else Edit()
    folder.mkdir(exist_ok=True)
    clip = edit.clip((to_levels(chunk, video.level_depth) for chunk in stream.pull()), frames, folder)
    return written(folder / "clip", clip, edit.stream(stream), video)


def written(target: Path, clip: Iterator[np.ndarray], stream: FrameStream, video: VideoFormat) -> Path:
    if video.container in SEQUENCES:
        folder = PartFolder(target)
        write_pictures(folder, clip, stream, video, {}, lambda seen: played_again(seen, target.parent))
        return folder.target
    file = PartFile(target.with_name(f"{target.name}.{video.extension}"))
    if video.of_pictures:
        write_pictures(file, clip, stream, video, {}, lambda seen: played_again(seen, target.parent))
    else:
        write_file(file, clip, stream, video, {})
    return file.target


def print_table() -> None:
    print(f"{'way':<6}{'quality':<10}{'mode':<10}{'s':>8}{'kB':>9}{'SSIM':>9}")
    for container in (*ANIMATIONS, *SEQUENCES):
        for quality in QUALITIES:
            for mode in WRITE_MODES:
                with tempfile.TemporaryDirectory() as place:
                    runs = [table_run(frames, VideoFormat(quality, mode, container=container), Path(place) / str(number))
                            for number, frames in enumerate(table_scenes())]
                seconds, kilobytes, likeness = (sum(run[field] for run in runs) for field in range(3))
                print(f"{container:<6}{quality:<10}{mode:<10}{seconds:>8.2f}{kilobytes:>9.0f}{likeness / len(runs):>9.4f}", flush=True)


def table_scenes() -> list[torch.Tensor]:
    return [clips.clip(name, first, 12) for name, first in (("bikes.mp4", 0), ("bikes.mp4", 80), ("carphone_pristine.mp4", 0))]


def table_run(frames: torch.Tensor, video: VideoFormat, folder: Path) -> tuple[float, float, float]:
    """Seconds of processor time, kilobytes and SSIM."""
    folder.mkdir()
    stream, start = FrameStream(frames.shape[2], frames.shape[1], len(frames), RATE, lambda: chunks(frames)), time.process_time()
    path = written(folder / "clip", map(to_levels, stream.pull()), stream, video)
    seconds = time.process_time() - start
    return seconds, size(path) / 1024, clips.ssim(frames, torch.cat(list(pictures.frames(path))))


main()
