"""Compare the accelerations on your own models: the same prompts and seed under each, as a table and as videos side by side.

    python dev.py --comfyui PATH compare [--prompts FILE] [--steps N] [--lora-high FILE --lora-low FILE] [--out FOLDER]

File names are those ComfyUI lists. Without --comfyui, the miniature is compared. What is finished is kept in the folder: the same command goes on
where it was stopped, and more prompts or another acceleration cost only their own runs.
"""

import argparse
import contextlib
import hashlib
import json
import math
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from comfyui import ROOT, has_gpu, import_pack
from compare_report import Row, summary_table, write_report
from demo import draw
from engine.sampling.forecast import ACCELERATIONS
from engine.sampling.solvers import SOLVERS
from engine.video.sizes import Size, video_size
from likeness import likeness
from miniature import scenes
from model_choice import add_models, add_run, choices, find_models
from side_by_side import write_side_by_side
from studio import RATE, REFERENCE, Sampled, Settings, Studio, empty_gpu

SAMPLING_CODE = (ROOT / "nodes" / "engine" / "sampling", ROOT / "nodes" / "host" / "sampling")
PROMPTS = (
    "A red fox runs through deep snow towards the camera, powder flies up behind it, then it leaps over a fallen log.",
    "Macro shot of hands knitting a coarse grey wool scarf, every fibre visible, slow push in, soft window light.",
    "A crowded fruit market in the rain: three people with umbrellas pass each other between stalls of oranges, melons and fish.",
    "Portrait of an old fisherman who turns his head to the camera and begins to laugh, deep wrinkles, wind in his white beard.",
    "Night drive through a city, neon signs reflect in wet asphalt, the camera glides past parked cars and a cyclist overtakes.",
)
MINIATURE_PROMPTS = (
    "a red circle moves to the right over a blue background",
    "a white ring moves up quickly over a purple background, the camera zooms in",
    "a yellow triangle moves slowly to the left over a green background",
    "a green cross stays still over a black background, the camera zooms out",
)


def main() -> int:
    options = choices(arguments())
    try:
        settings, prompts = settings_of(options), prompts_of(options.prompts, options.own_models)
        pack = import_pack(cpu=not has_gpu())
        find_models(options.own_models)
        studio = Studio(pack, settings)
    except ValueError as problem:
        print(problem)
        return 2
    try:
        rows = Comparison(studio, in_order(options.acceleration), options.out).run(prompts)
    except KeyboardInterrupt:
        print("\nStopped. What is finished is kept; the same command goes on from there.")
        return 130
    print(f"\n{summary_table(rows, REFERENCE)}\n\n{options.out / 'compare.md'}")
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dev.py compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_models(parser)
    parser.add_argument("--vae", metavar="FILE", help="default: the official file")
    add_run(parser, steps=27, shift=5.0, guidance=(3.5, 4.0))
    parser.add_argument("--solver", default="unipc", choices=tuple(SOLVERS))
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="a text file with a prompt on each line; default: a few of ours")
    parser.add_argument("--acceleration", nargs="+", default=ACCELERATIONS, choices=ACCELERATIONS, help="default: all; `none` always runs")
    parser.add_argument("--out", type=Path, default=ROOT / ".dev" / "compare", metavar="FOLDER", help="default: .dev/compare")
    return parser


def settings_of(options: argparse.Namespace) -> Settings:
    size = video_size(options.resolution, "16:9", 0, 0) if options.own_models else Size(scenes.SIZE, scenes.SIZE)
    frames = options.frames if options.own_models else scenes.FRAMES
    return Settings(options.high, options.low, options.vae, options.text_encoder, options.lora_high, options.lora_low,
                    size.width, size.height, frames, options.solver, options.steps, options.shift, tuple(options.guidance), options.seed)


def prompts_of(file: Path | None, own_models: bool) -> list[str]:
    """The lines of the file that are not empty, each once; ValueError where there are none."""
    if file is None:
        return list(PROMPTS if own_models else MINIATURE_PROMPTS)
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--prompts {file} cannot be read ({error}). Name a text file in UTF-8 with a prompt on each line.") from error
    if not any(lines):
        raise ValueError(f"--prompts {file} holds no prompt. Write one on each line.")
    return list(dict.fromkeys(filter(None, lines)))


def in_order(accelerations: Sequence[str]) -> list[str]:
    """`none` first, which the others are compared with."""
    return [REFERENCE, *(name for name in ACCELERATIONS if name in accelerations and name != REFERENCE)]


class Comparison:
    """All prompts under all accelerations, in a folder that keeps what is finished."""

    def __init__(self, studio: Studio, accelerations: Sequence[str], folder: Path) -> None:
        self.studio, self.accelerations, self.folder, self.kept = studio, accelerations, folder, folder / "kept"
        self.kept.mkdir(parents=True, exist_ok=True)

    def run(self, prompts: Sequence[str]) -> list[Row]:
        """The report is written anew after each prompt."""
        waiting = [prompt for prompt in prompts if self.unfinished(prompt) and self.unsampled(prompt)]
        if waiting:
            print(f"Encoding {len(waiting)} prompts ...", flush=True)
            self.studio.prepare(waiting)
        rows: list[Row] = []
        for number, prompt in enumerate(prompts, 1):
            print(f"\n{number}/{len(prompts)}  {prompt}", flush=True)
            of_prompt = self.compared(prompt) if self.unfinished(prompt) else self.finished(prompt)
            print("\n".join(map(line_of, of_prompt)), flush=True)
            rows += of_prompt
            write_report(self.folder, self.studio.settings.title(), asdict(self.studio.settings), rows, REFERENCE)
        return rows

    def key(self, prompt: str, acceleration: str) -> str:
        """What `none` makes does not change with the code; what the others make may."""
        code = "" if acceleration == REFERENCE else code_mark()
        content = json.dumps([asdict(self.studio.settings), self.studio.files, prompt, acceleration, code])
        return f"{acceleration}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def latent_file(self, prompt: str, acceleration: str) -> Path:
        return self.kept / f"{self.key(prompt, acceleration)}.safetensors"

    def row_files(self, prompt: str) -> list[Path]:
        return [self.kept / f"{self.key(prompt, name)}.json" for name in self.accelerations]

    def finished(self, prompt: str) -> list[Row]:
        rows = [Row.from_json(json.loads(file.read_text(encoding="utf-8"))) for file in self.row_files(prompt)]
        return [replace(row, video=self.video_file(prompt).name) for row in rows]  # that of the accelerations asked for now

    def video_file(self, prompt: str) -> Path:
        """Named after the prompt and what it shows."""
        words = re.sub(r"[^a-z0-9]+", "_", prompt.lower())[:48].strip("_")
        shown = hashlib.sha256("".join(self.key(prompt, name) for name in self.accelerations).encode()).hexdigest()[:6]
        return self.folder / f"{'_'.join(filter(None, (words, shown)))}.mp4"

    def unsampled(self, prompt: str) -> list[str]:
        return [name for name in self.accelerations if not self.latent_file(prompt, name).exists()]

    def unfinished(self, prompt: str) -> bool:
        return not all(file.exists() for file in (*self.row_files(prompt), self.video_file(prompt)))

    def compared(self, prompt: str) -> list[Row]:
        """Sample what is not there, then decode and measure all of it."""
        for name in self.unsampled(prompt):
            with progress(name):
                sampled = self.studio.sampled(prompt, name)
            sampled.save(self.latent_file(prompt, name))
            print(f"  {name:<9}sampled in {sampled.seconds:.1f} s", flush=True)
        empty_gpu()
        video, rows, clips = self.video_file(prompt), [], []
        for name in self.accelerations:
            sampled = Sampled.load(self.latent_file(prompt, name))
            clips.append(self.studio.decoded(sampled.samples))
            rows.append(Row(prompt, name, sampled.seconds, sampled.model_calls, likeness(clips[-1], clips[0]), video.name))
        write_side_by_side(video, clips, [caption(row) for row in rows], prompt, RATE)
        for row, file in zip(rows, self.row_files(prompt), strict=True):
            file.write_text(json.dumps({**row.as_json(), "settings": asdict(self.studio.settings)}, indent=1), encoding="utf-8")
        return rows


def caption(row: Row) -> list[str]:
    like = row.likeness
    alike = "" if row.acceleration == REFERENCE else f", PSNR {like.psnr:.1f} dB, SSIM {like.ssim:.4f}" if like.psnr < math.inf else ", equal"
    return [row.acceleration, f"{row.model_calls} model calls, {row.seconds:.1f} s{alike}"]


def line_of(row: Row) -> str:
    return f"  {row.acceleration:<9}{caption(row)[1]}"


@contextlib.contextmanager
def progress(name: str) -> Iterator[None]:
    """A bar for each step on a terminal."""
    import comfy.utils
    begin, before = time.monotonic(), comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(lambda value, total, *preview, **more: draw(name, value, total, begin) if sys.stdout.isatty() else None)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(before)
        print(f"\r{'':<80}\r" if sys.stdout.isatty() else "", end="", flush=True)


def code_mark() -> str:
    code = b"".join(path.read_bytes() for folder in SAMPLING_CODE for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(code).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
