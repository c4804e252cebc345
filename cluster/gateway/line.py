"""The waiting line: by priority, and among equals first come, first served. Nothing in it looks at every job."""

from typing import NamedTuple

from sortedcontainers import SortedKeyList


class Place(NamedTuple):
    """Where a job stands: a higher priority first, then the earlier arrival. It has the same place again when a worker is lost under it."""

    rank: int
    arrival: float
    request_id: str


class Waiting(NamedTuple):
    """Those of one priority: how many, and when the first of them came."""

    priority: int
    jobs: int
    since: float


class WaitingLine:
    """The places of all jobs that wait, in order."""

    def __init__(self) -> None:
        self._places: SortedKeyList[Place] = SortedKeyList(key=tuple)
        self._by_id: dict[str, Place] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._by_id

    def join(self, request_id: str, priority: int, arrival: float) -> None:
        """ValueError for a job that waits already."""
        if request_id in self._by_id:
            raise ValueError(f"{request_id} waits already")
        self._by_id[request_id] = place = Place(-priority, arrival, request_id)
        self._places.add(place)

    def leave(self, request_id: str) -> bool:
        """Whether it was there."""
        place = self._by_id.pop(request_id, None)
        if place is not None:
            self._places.remove(place)
        return place is not None

    def first(self) -> str | None:
        return self._places[0].request_id if self._places else None

    def by_priority(self) -> list[Waiting]:
        """The highest first, without those that nobody waits with."""
        groups, start = list[Waiting](), 0
        while start < len(self._places):
            first = self._places[start]
            end = self._places.bisect_key_left((first.rank + 1,))
            groups.append(Waiting(-first.rank, end - start, first.arrival))
            start = end
        return groups

    def ahead_of(self, request_id: str) -> int:
        """How many come before it; 0 for one that does not wait."""
        place = self._by_id.get(request_id)
        return 0 if place is None else int(self._places.bisect_left(place))
