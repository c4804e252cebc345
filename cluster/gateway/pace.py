"""How many videos are made, and how long each takes: counted as each is complete, so that nobody looks through the jobs."""

import bisect
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

SLICE, FIVE_MINUTES, HOUR = 10, 300, 3600  # seconds
BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)  # seconds of a job


@dataclass
class Slice:
    """What was complete in one slice of time."""

    number: int
    jobs: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Lately:
    """Videos of a time that ends now, and the mean of the seconds that they took; None of no video."""

    jobs: int
    mean_seconds: float | None


class Pace:
    """The last hour in slices, and all seconds since the start as a histogram: `buckets` count up to each of BOUNDS, the last one those above."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._slices: deque[Slice] = deque(maxlen=HOUR // SLICE)
        self.buckets, self.seconds = [0] * (len(BOUNDS) + 1), 0.0

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._began

    def add(self, seconds: float) -> None:
        """A video is complete that took so long."""
        if not self._slices or self._slices[-1].number != self._now():
            self._slices.append(Slice(self._now()))
        self._slices[-1].jobs += 1
        self._slices[-1].seconds += seconds
        self.buckets[bisect.bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def lately(self, seconds: int) -> Lately:
        """Of the last `seconds`, to a slice."""
        first = self._now() - seconds // SLICE
        slices = [each for each in self._slices if each.number > first]
        jobs = sum(each.jobs for each in slices)
        return Lately(jobs, round(sum(each.seconds for each in slices) / jobs, 3) if jobs else None)

    def _now(self) -> int:
        return int(self._clock() // SLICE)
