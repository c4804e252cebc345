"""What a person sees while the workers load: a bar for each, redrawn in place on a terminal, elsewhere a line for each change."""

import asyncio
import itertools
import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, TextIO

from nodes.api.contract import RUN

from .worker.child import StartFailed

DRAWS_EVERY = 0.2  # seconds, on a terminal
TELLS_EVERY = 5.0  # seconds between two lines about one worker, elsewhere
BAR = 20
READY, STARTS = "ready", "starts"
EXAMPLE = {"prompt": "a red circle moves to the right over a blue background", "resolution": "480p", "num_frames": 17, "interpolator_model": "none"}
ON_CPU = {"num_inference_steps": 2, "aspect_ratio": "1:1"}  # or it would take many minutes
CLEAR_BELOW = "\x1b[J"


class Seat(Protocol):
    """A place for a worker, as the pool knows it: what it does there, and whether its last start failed."""

    name: str
    state: str
    failed: bool


@dataclass
class Shown:
    """What a person has seen of a seat: since when, its last line and when that came, and after how many seconds it was ready or failed."""

    begin: float
    line: str = ""
    at: float = float("-inf")
    took: float | None = None


class Progress:
    """Writes to `out` how the workers come up. `seats` fills when the pool starts."""

    def __init__(self, seats: Collection[Seat], out: TextIO = sys.stderr) -> None:
        self.seats, self._out, self._terminal = seats, out, out.isatty()
        self._shown: dict[str, Shown] = {}
        self._rows = 0  # of bars that stand at the end
        self._lock = threading.RLock()  # log lines come from any thread

    async def until_settled(self) -> int:
        """Draw until each worker is ready or has failed to start. How many are ready; 0 only where none has ever been."""
        ever = False
        while True:
            self.draw()
            ready = sum(seat.state == READY for seat in self.seats)
            ever = ever or ready > 0
            if self.seats and all(seat.failed or seat.state == READY for seat in self.seats) and (ready or not ever):
                with self._lock:
                    self._rows = 0  # the bars stay, and what comes is below them
                return ready
            await asyncio.sleep(DRAWS_EVERY)

    def draw(self) -> None:
        """The bars as they are now, or lines about what has changed."""
        now = time.monotonic()
        with self._lock:
            for seat in self.seats:
                self._look(seat, now)
            if self._terminal:
                rows = self._bars(now)
                self._out.write(self._over_the_bars() + "".join(f"{row}\n" for row in rows))
                self._rows = len(rows)
            self._out.flush()

    def write(self, text: str) -> None:
        """Whole lines, above the bars."""
        with self._lock:
            bars = self._rows
            self._out.write(self._over_the_bars() + text)
            self._rows = 0
            if bars:
                self.draw()
            self._out.flush()

    def _look(self, seat: Seat, now: float) -> None:
        shown = self._shown.setdefault(seat.name, Shown(now))
        settled = seat.state == READY or _is_out(seat)
        shown.took = (shown.took or now - shown.begin) if settled else None
        line = _summary(seat)
        if not self._terminal and line != shown.line and (settled or now - shown.at >= TELLS_EVERY):
            self._out.write(f"{seat.name} after {now - shown.begin:.0f} s: {line}\n")
            shown.line, shown.at = line, now

    def _over_the_bars(self) -> str:
        return f"\x1b[{self._rows}F{CLEAR_BELOW}" if self._rows else ""

    def _bars(self, now: float) -> list[str]:
        """As many as the terminal has room for; where that is not all, those that are not ready first."""
        width, height = shutil.get_terminal_size()
        room = max(1, height - 3)
        if len(self.seats) <= room:
            return [self._bar(seat, now)[:width - 1] for seat in self.seats]
        seats = sorted(self.seats, key=lambda seat: seat.state == READY)
        return [*(self._bar(seat, now)[:width - 1] for seat in seats[:room]), f"and {len(seats) - room} more"]

    def _bar(self, seat: Seat, now: float) -> str:
        shown = self._shown[seat.name]
        seconds = now - shown.begin if shown.took is None else shown.took
        return f"{seat.name:<10} [{_filling(seat, int(seconds / DRAWS_EVERY) % BAR)}] {seconds:5.0f} s  {_summary(seat)}"


def _filling(seat: Seat, place: int) -> str:
    """A mark that runs while it starts, since nobody knows how long that takes."""
    if seat.state == READY or _is_out(seat):
        return ("#" if seat.state == READY else "x") * BAR
    return "".join("#" if column == place and seat.state.startswith(STARTS) else "." for column in range(BAR))


def _is_out(seat: Seat) -> bool:
    """It failed, and is not tried again right now."""
    return seat.failed and not seat.state.startswith(STARTS)


def _summary(seat: Seat) -> str:
    first = seat.state.strip().partition("\n")[0]
    return f"cannot start: {first}" if _is_out(seat) else first


class Above(logging.Handler):
    """Log lines above the bars, which they would tear."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.write(f"{self.format(record)}\n")


async def welcome(progress: Progress, address: str, with_key: bool, on_cpu: bool) -> None:
    """Show how the workers come up, and then how to ask them. StartFailed with each reason where none does."""
    if not (ready := await progress.until_settled()):
        seats = itertools.groupby(sorted(progress.seats, key=_reason), key=_reason)
        raise StartFailed("No worker could start.\n" + "\n".join(f"{', '.join(seat.name for seat in alike)}: {why}" for why, alike in seats))
    key = '-H "Authorization: Key YOUR-KEY" ' if with_key else ""
    body = json.dumps({**EXAMPLE, **(ON_CPU if on_cpu else {})})
    progress.write(f"{ready} of {counted(len(progress.seats))} ready at {address}. Try:\ncurl {address}{RUN} {key}--json '{body}'\n")


def _reason(seat: Seat) -> str:
    return seat.state


def counted(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
