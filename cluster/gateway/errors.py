"""What only a gateway answers: nobody is there to make a video, or too many were lost under it."""

from nodes.api.errors import InfrastructureError, Unauthorized


class NoWorkers(InfrastructureError):
    """No worker has come up since the gateway started."""

    status, error_type, retryable = 503, "runner_scheduling_failure", True

    def __init__(self) -> None:
        super().__init__("No worker is ready yet: their ComfyUIs start, which takes a minute or two. Send the request again then.")


class Disconnected(InfrastructureError):
    """As many workers ended under the job as it may lose: it may be what ends them."""

    status, error_type = 503, "runner_disconnected"

    def __init__(self, workers: int) -> None:
        super().__init__(f"{workers} workers ended while they made this video, and it is not tried on more: it may be what ends them. The gateway's "
                         "log says how they ended; a smaller video, fewer frames or fewer LoRAs take less memory.")


class NoKeys(Unauthorized):
    """The gateway has no keys, so nobody's key is right; `why` says what makes the caller a stranger."""

    def __init__(self, why: str) -> None:
        InfrastructureError.__init__(
            self, f"This gateway has no keys, and without them it answers programs on its own machine only; {why}. Its owner must set `keys` in its "
                  "settings.json and start it again.")


class OtherOrigin(InfrastructureError):
    """A web page of somebody else's asks for what only the gateway's own may."""

    status, error_type = 403, "forbidden"

    def __init__(self, origin: str) -> None:
        super().__init__(f"A page of {origin[:100]} may not do this. Use the gateway's own page, /cluster, or a program.")
