"""How much of the clips' motion the distilled pair takes, and what gives it back: the way of each shape against that of the full run.

    python dev.py miniature motion [--models FOLDER] [--prompts 64] [--only WAY ...] [--grid FOLDER] [--out FILE]

A table in Markdown: model calls, motion, and the judge's shares. Motion is the distance between the shape's centres in the first and the last frame
that show it, mean over the scenes that move, as a share of that of the full run with the same seeds; with its standard error. Direction is the
prompt's also in the rows of the `reversed` pair: where that pair has its way, only what rests is right.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from miniature import export
from miniature.evaluate import FIRST_PROMPTS, NONE, REVERSED, Miniature, Scores, Setting, draw_grid, scores
from miniature.judge import Array, Parts, Track
from miniature.losses import print_row, print_table
from miniature.scenes import PLAIN, examples

WORDS = ("colour", "shape", "direction", "camera")


@dataclass(frozen=True)
class Way:
    """One way to sample: the setting, and how many of its first steps go without its LoRAs, at the guidance of an opening."""

    name: str
    setting: Setting
    opening: int = 0


def distilled(steps: int, scale: float = 1.0) -> Setting:
    """Euler steps without guidance, with the distilled pair; `scale` is that on the high-noise expert."""
    return replace(NONE, steps=steps, solver="euler", guidance=(1.0, 1.0), loras=(("distilled", "high", scale), ("distilled", "low", 1.0)))


def reversal(steps: int, solver: str) -> Setting:
    return replace(NONE, steps=steps, solver=solver, loras=(REVERSED,))


REVERSALS = ((reversal(27, "unipc"), (0, 1, 2, 3, 6, 9, 12)), (reversal(6, "euler"), (0, 1, 2, 3)), (reversal(4, "euler"), (0, 1, 2)))
FULL = Way("full: 27 steps UniPC, guidance 3.5 / 4", NONE)
WAYS = (
    FULL,
    *(Way(f"{steps} steps, no LoRA, guidance 3.5 / 4", replace(NONE, steps=steps, solver="euler")) for steps in (4, 6)),
    *(Way(f"{steps} steps, no LoRA, guidance 1", replace(distilled(steps), loras=())) for steps in (4, 6)),
    *(Way(f"4 steps, no LoRA, guidance 1, opening of {opening}", replace(distilled(4), loras=()), opening) for opening in (1, 2)),
    *(Way(f"{steps} steps distilled", distilled(steps)) for steps in (4, 5, 6)),
    Way("4 steps distilled, high-noise LoRA at 0.7", distilled(4, 0.7)),
    *(Way(f"{steps} steps distilled, opening of {opening}", distilled(steps), opening) for steps in (4, 5, 6) for opening in (1, 2)),
    *(Way(f"{setting.steps} steps {setting.solver}, reversed, opening of {opening}", setting, opening)
      for setting, openings in REVERSALS for opening in openings),
)


@dataclass(frozen=True)
class Measured:
    """Of one way: calls of one clip, way of each moving shape in pixels, and what the judge says of all clips."""

    way: str
    model_calls: int
    distances: tuple[float, ...]
    scores: Scores

    def row(self, full: "Measured") -> list[str]:
        share, error = share_of(np.array(self.distances), np.array(full.distances))
        words = [f"{100 * self.scores.right[name]:.1f}" for name in (*WORDS, "all")]
        return [self.way, str(self.model_calls), f"{share:.3f} ± {error:.3f}", *words]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=export.MODELS, help="an exported models folder")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--only", nargs="*", default=[], help=f"names of ways beside the full run: {'; '.join(way.name for way in WAYS)}")
    parser.add_argument("--grid", type=Path, help="a folder for a picture of 16 clips of each way")
    parser.add_argument("--out", type=Path, help="JSON of what was measured")
    options = parser.parse_args()
    if unknown := set(options.only) - {way.name for way in WAYS}:
        parser.error(f"{', '.join(sorted(unknown))} is no way. There are: {'; '.join(way.name for way in WAYS)}.")
    miniature = Miniature(options.models, examples(options.prompts, FIRST_PROMPTS))
    results = measured(miniature, [way for way in WAYS if way is FULL or not options.only or way.name in options.only], options.grid)
    if options.out:
        options.out.write_text(json.dumps([asdict(result) for result in results], indent=1), encoding="utf-8")


def measured(miniature: Miniature, ways: Sequence[Way], grids: Path | None = None) -> list[Measured]:
    """The ways in their order, each printed when it is done; the first is the one that the others are compared with."""
    print_table(["way", "calls", "motion", *WORDS, "colour, shape and direction"], [])
    results: list[Measured] = []
    for way in ways:
        clips = miniature.decoded(miniature.latents(way.setting, opening=way.opening))
        moving = [clip for clip, example in zip(clips, miniature.chosen, strict=True) if example.scene.direction != "still"]
        distances = tuple(distance(clip.float() / 255) for clip in moving)
        results.append(Measured(way.name, miniature.model_calls[way.setting], distances, scores(miniature.chosen, clips, PLAIN)))
        print_row(results[-1].row(results[0]))
        if grids:
            draw_grid(miniature.chosen, clips, grids / f"{way.name.replace('/', 'and')}.png")
    return results


def distance(clip: torch.Tensor) -> float:
    """Way in pixels between the shape's centres in the first and the last frame of a clip (T, H, W, 3) in 0..1 that show it; 0 without a shape."""
    parts = Parts.of(clip)
    if parts.empty():
        return 0.0
    track = Track.of(parts.alpha)
    seen = track.centre[np.isfinite(track.area)]
    return float(np.linalg.norm(seen[-1] - seen[0]))


def share_of(distances: Array, full: Array) -> tuple[float, float]:
    """Mean distance as a share of the full run's mean, and its standard error: to first order, the clips being pairs."""
    share = distances.mean() / full.mean()
    return float(share), float((distances - share * full).std(ddof=1) / full.mean() / len(full) ** 0.5)


if __name__ == "__main__":
    main()
