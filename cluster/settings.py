"""What the cluster's owner decides: the API's settings, and a few that only many GPUs need."""

from pydantic import Field

from nodes.api.settings import Settings
from nodes.engine.fetch.rules import Rules


class ResultRules(Rules):
    """How much of the gateway's disk the videos may take, in bytes, and for how many seconds one is kept; the oldest go first."""

    max_bytes: int = Field(default=50 * 2**30, gt=0)
    seconds: float = Field(default=7 * 86400.0, gt=0)


class ClusterSettings(Settings):
    """`max_queued` counts all jobs that wait, `max_waiting` those of one key that are not complete."""

    enabled: bool = True
    max_queued: int = Field(default=10_000, ge=1, le=1_000_000)
    results: ResultRules = ResultRules()
