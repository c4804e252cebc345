"""Decoding and writing: ours against core's VAEDecode -> CreateVideo -> SaveVideo, and the writer against core's and the ffmpeg program.

    python dev.py bench video            decode and write 17 and 161 frames of 832x480: time, and growth of the peak memory
    python dev.py bench video --writer   frames per second, size and SSIM of the writer on a real clip, at the same CRF and preset
    python dev.py bench video --table    seconds, size and SSIM of every quality and write mode; the tables in formats.py are chosen from it

One process per measurement, contenders alternating.
"""

import argparse
import importlib
import json
import statistics
import subprocess
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

import clips
import tiny_weights
import videos
from comfyui import has_gpu, import_pack
from peak_memory import PeakMemory, alternating, in_own_process

WIDTH, HEIGHT = 832, 480
LENGTHS = (17, 161)
SCENES = (("bikes.mp4", 0), ("bikes.mp4", 80), ("bigbuckbunny.mp4", 20), ("bigbuckbunny.mp4", 90), ("carphone_pristine.mp4", 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writer", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--codecs", nargs="+", default=["h264"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dim", type=int, default=8, help="width of the VAE; the real one has 96")
    parser.add_argument("--contender", choices=("core", "ours", "ffmpeg"), help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, default=161, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps((written if options.writer else decoded_and_written)(options, Path(folder) / "clip.mp4")))
    elif options.table:
        print_table(options)
    elif options.writer:
        compare_writers(options)
    else:
        compare_pipelines(options)


def compare_pipelines(options: argparse.Namespace) -> None:
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for turn in range(options.rounds):
        for name in ("core", "ours") if turn % 2 == 0 else ("ours", "core"):
            for frames in LENGTHS:
                run = in_own_process("--contender", name, "--frames", str(frames))
                runs.setdefault((name, frames), []).append(run)
                print(f"round {turn + 1}, {name}, {frames} frames: {run}", flush=True)
    typical = {key: {field: statistics.median(run[field] for run in of_key) for field in of_key[0]} for key, of_key in runs.items()}
    short, long = LENGTHS
    for name in ("core", "ours"):
        growth = typical[name, long]["peak_mb"] - typical[name, short]["peak_mb"]
        print(f"{name}: {typical[name, long]['seconds']:.1f} s for {long} frames, peak {typical[name, long]['peak_mb']:.0f} MB, "
              f"which is {growth:.0f} MB more than for {short} frames")
    print(f"time ratio ours / core: {typical['ours', long]['seconds'] / typical['core', long]['seconds']:.3f}")


def decoded_and_written(options: argparse.Namespace, path: Path) -> dict[str, float]:
    pack = import_pack(cpu=not has_gpu())
    import comfy.sd
    vae = comfy.sd.VAE(sd=tiny_weights.vae(seed=4, dim=options.dim))
    latent = {"samples": drifting_latent((options.frames - 1) // 4 + 1)}
    with torch.inference_mode():
        run = core_pipeline if options.contender == "core" else our_pipeline
        run(pack, vae, {"samples": latent["samples"][:, :, :2]}, path.with_name("warm.mp4"))
        memory, start = PeakMemory(), time.perf_counter()
        run(pack, vae, latent, path)
        seconds = time.perf_counter() - start
    assert videos.facts(path).frames == options.frames
    return {"seconds": seconds, "peak_mb": memory.megabytes()}


def drifting_latent(frames: int, width: int = WIDTH, height: int = HEIGHT) -> torch.Tensor:
    """Smooth clouds that move: compresses like a video, not like noise."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, 16, frames // 8 + 2, -(-height // 64), -(-width // 64), generator=generator)
    return torch.nn.functional.interpolate(coarse, (frames, height // 8, width // 8), mode="trilinear")


def core_pipeline(pack: Any, vae: Any, latent: dict[str, torch.Tensor], path: Path) -> None:
    images = importlib.import_module("nodes").VAEDecode().decode(vae, latent)[0]
    core_video(images).save_to(str(path))


def our_pipeline(pack: Any, vae: Any, latent: dict[str, torch.Tensor], path: Path) -> None:
    write_ours(pack, pack.nodes.host.video.decoding.decode(latent, vae, 16), path)


def core_video(images: torch.Tensor) -> Any:
    from comfy_api.latest import InputImpl, Types
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=None, frame_rate=Fraction(16)))


def write_ours(pack: Any, video: Any, path: Path) -> None:
    """At core's settings: CRF 23, preset medium."""
    host, write = pack.nodes.host.video.lazy, pack.nodes.engine.video.write
    video_format = pack.nodes.engine.video.formats.VideoFormat("medium", "balanced", options={"crf": "23", "preset": "medium"})
    stream = host.stream_of(video)
    write.write_file(write.PartFile(path), host.levels(stream, video_format), stream, video_format, {})


def compare_writers(options: argparse.Namespace) -> None:
    runs = alternating(("core", "ours", "ffmpeg"), options.rounds)
    typical = {name: {field: statistics.median(run[field] for run in of_name) for field in of_name[0]} for name, of_name in runs.items()}
    print(f"{'writer':<8}{'frames/s':>10}{'kB':>8}{'SSIM':>9}")
    for name, run in typical.items():
        print(f"{name:<8}{run['fps']:>10.1f}{run['kilobytes']:>8.0f}{run['ssim']:>9.4f}")
    for peer in ("core", "ffmpeg"):
        print(f"speed ours / {peer}: {typical['ours']['fps'] / typical[peer]['fps']:.3f}")


def written(options: argparse.Namespace, path: Path) -> dict[str, float]:
    pack = import_pack(cpu=not has_gpu())
    frames = clips.clip("bigbuckbunny.mp4", 0, 72)
    start = time.perf_counter()
    match options.contender:
        case "core":
            core_video(frames).save_to(str(path))
        case "ours":
            write_ours(pack, core_video(frames), path)
        case "ffmpeg":
            write_with_ffmpeg(frames, path)
    seconds = time.perf_counter() - start
    matrix = "bt601" if options.contender == "core" else "bt709"
    return {"fps": len(frames) / seconds, "kilobytes": path.stat().st_size / 1000, "ssim": clips.ssim(frames, videos.rgb(path, matrix))}


def write_with_ffmpeg(frames: torch.Tensor, path: Path) -> None:
    import imageio_ffmpeg

    from engine.frames import chunks, to_levels
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "16", "-i", "-",
               "-vf", "scale=out_color_matrix=bt709:out_range=limited", "-c:v", "libx264", "-crf", "23", "-preset", "medium", "-pix_fmt", "yuv420p",
               "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-movflags", "+faststart", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for chunk in chunks(frames):
            process.stdin.write(to_levels(chunk).data)
        process.stdin.close()
    assert process.returncode == 0


def print_table(options: argparse.Namespace) -> None:
    from engine.video.formats import QUALITIES, WRITE_MODES, VideoFormat
    scenes = [clips.clip(name, first, 24)[:, ::2, ::2] if "bunny" in name else clips.clip(name, first, 24) for name, first in SCENES]
    with tempfile.TemporaryDirectory() as folder:
        for codec in options.codecs:
            print(f"\n{codec:<10}{'write mode':<12}{'seconds':>9}{'kB':>8}{'SSIM':>9}")
            for quality in QUALITIES:
                for mode in WRITE_MODES:
                    print_row(scenes, VideoFormat(quality, mode, codec), quality, mode, Path(folder), options.rounds)


def print_row(scenes: list[torch.Tensor], video: Any, quality: str, mode: str, folder: Path, rounds: int) -> None:
    seconds, size, likeness = 0.0, 0.0, 0.0
    for index, frames in enumerate(scenes):
        path = folder / f"{video.codec}-{quality}-{mode}-{index}.{video.extension}"
        seconds += min(encoding_seconds(frames, video, path) for _ in range(rounds))
        size += path.stat().st_size / 1000
        likeness += clips.ssim(frames[:, : frames.shape[1] // 2 * 2], videos.rgb(path)) / len(scenes)
    print(f"{quality:<10}{mode:<12}{seconds:>9.2f}{size:>8.0f}{likeness:>9.4f}", flush=True)


def encoding_seconds(frames: torch.Tensor, video: Any, path: Path) -> float:
    from engine.frames import FrameStream, chunks, to_levels
    from engine.video.write import PartFile, write_file
    path.unlink(missing_ok=True)
    stream = FrameStream(frames.shape[2], frames.shape[1], len(frames), Fraction(16), lambda: chunks(frames))
    levels = [to_levels(chunk, video.level_depth) for chunk in stream.pull()]
    start = time.perf_counter()
    write_file(PartFile(path), iter(levels), stream, video, {})
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
