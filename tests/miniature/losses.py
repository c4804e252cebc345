"""What the miniature's clips lose first as model calls fall: each way to save calls against `none` with the same seeds.

    python dev.py miniature losses [--models FOLDER] [--prompts 32] [--only WAY ...] [--out FILE]

Two tables in Markdown. The first: model calls, PSNR, the judge's shares, and each measure of fidelity as a mean over the clips with its standard
error. The second: how far each measure is from SAME, mean over the clips, as a multiple of what another solver at as many steps changes
(`UNIT`), which nobody takes for a loss. The measure that moves first is the one that exceeds 1 at the most calls. The stripes are measured on
clips of the striped LoRA, everything else without it. A way to add is one Run in `WAYS`.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from miniature import export
from miniature.evaluate import DEFAULT, FIRST_PROMPTS, MAGCACHE, NONE, STRIPED, Miniature, Run, Scores, Setting, psnr, scores
from miniature.fidelity import MEASURES, STRIPES, Fidelity, fidelity, mean, standard_error
from miniature.scenes import PLAIN, examples

UNIT = Run("euler", replace(NONE, solver="euler"))
WAYS = (UNIT, Run("regular", DEFAULT), *(Run(name, replace(NONE, acceleration=name)) for name in ("high", MAGCACHE)),
        *(Run(f"{steps} steps", replace(NONE, steps=steps)) for steps in (22, 18, 14, 10, 8)))
WORDS = ("colour", "shape", "direction")


@dataclass(frozen=True)
class Loss:
    """What one way loses against `none`: the fidelity of each clip beside calls of one clip, PSNR in dB, and what the judge says."""

    way: str
    model_calls: int
    psnr: float
    scores: Scores
    clips: tuple[Fidelity, ...]

    def row(self) -> list[str]:
        words = [f"{100 * self.scores.right[name]:.1f}" for name in WORDS]
        return [self.way, str(self.model_calls), f"{self.psnr:.1f}", *words, *cells(self.clips)]

    def row_in_units(self, unit: "Loss") -> list[str]:
        return [self.way, str(self.model_calls), f"{self.psnr:.1f}", *cells(in_units(self.clips, unit.clips), digits=2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=export.MODELS, help="an exported models folder")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--seed", type=int, default=FIRST_PROMPTS, help="what draws the prompts; training draws from seeds below 10,000")
    parser.add_argument("--only", nargs="*", default=[], help=f"names of ways: {', '.join(way.name for way in WAYS)}")
    parser.add_argument("--out", type=Path, help="JSON of every clip's measures")
    options = parser.parse_args()
    if unknown := set(options.only) - {way.name for way in WAYS}:
        parser.error(f"{', '.join(sorted(unknown))} is no way. There are: {', '.join(way.name for way in WAYS)}.")
    miniature = Miniature(options.models, examples(options.prompts, options.seed))
    losses = measured(miniature, [way for way in WAYS if way is UNIT or not options.only or way.name in options.only])
    print_table(["way", "calls", "PSNR", *MEASURES], [loss.row_in_units(losses[0]) for loss in losses])
    if options.out:
        options.out.write_text(json.dumps([asdict(loss) for loss in losses], indent=1), encoding="utf-8")


def measured(miniature: Miniature, ways: Sequence[Run]) -> list[Loss]:
    """The ways in their order, each printed when it is done."""
    references = [miniature.clips(setting) for setting in plain_and_striped(NONE)]
    print_table(["way", "calls", "PSNR", *WORDS, *MEASURES], [["none", str(miniature.model_calls[NONE]), "", *["" for _ in (*WORDS, *MEASURES)]]])
    losses = []
    for way in ways:
        losses.append(loss_of(miniature, way, references))
        print_row(losses[-1].row())
    return losses


def loss_of(miniature: Miniature, way: Run, references: Sequence[torch.Tensor]) -> Loss:
    made = [miniature.clips(setting) for setting in plain_and_striped(way.setting)]
    plain, striped = (compared(some, reference) for some, reference in zip(made, references, strict=True))
    both = tuple(replace(one, **{name: getattr(other, name) for name in STRIPES}) for one, other in zip(plain, striped, strict=True))
    return Loss(way.name, miniature.model_calls[way.setting], psnr(made[0], references[0]), scores(miniature.chosen, made[0], PLAIN), both)


def plain_and_striped(setting: Setting) -> tuple[Setting, Setting]:
    return setting, replace(setting, loras=(STRIPED,))


def compared(made: torch.Tensor, reference: torch.Tensor) -> list[Fidelity]:
    """Each clip (N, T, H, W, 3) of bytes against its reference."""
    return [fidelity(one.float() / 255, other.float() / 255) for one, other in zip(made, reference, strict=True)]


def in_units(clips: Sequence[Fidelity], unit: Sequence[Fidelity]) -> list[Fidelity]:
    """The clips' distances from SAME, whose mean is the mean distance as a multiple of the unit's, and whose deviation is that of this quotient, to
    first order: the unit's distances come from the same prompts, and are uncertain as well."""
    here, there = (np.array([astuple(one.loss()) for one in some]) for some in (clips, unit))
    quotient = here.mean(axis=0) / there.mean(axis=0)
    return [Fidelity(*row) for row in (quotient + (here - quotient * there) / there.mean(axis=0)).tolist()]


def cells(clips: Sequence[Fidelity], digits: int = 4) -> list[str]:
    """Each measure's mean with its standard error."""
    return [f"{value:.{digits}f} ± {error:.{digits}f}" for value, error in zip(astuple(mean(clips)), astuple(standard_error(clips)), strict=True)]


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print()
    for row in (titles, ["---"] * len(titles), *rows):
        print_row(row)


def print_row(row: Sequence[str]) -> None:
    print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
