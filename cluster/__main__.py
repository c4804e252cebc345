"""`python -m cluster up`: Ray and the gateway on this machine, until Ctrl-C. `python -m cluster gateway`: the gateway alone, on a Ray that runs."""

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from .gateway.server import PortInUse
from .one_machine import up
from .run_gateway import WRONG, gateway
from .worker.child import StartFailed

STATE = Path("~/.local/state/wan22-cluster")
PORT = 8189
MOST_WORKERS = 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one_machine = commands.add_parser("up", help="everything on this machine")
    alone = commands.add_parser("gateway", help="the gateway alone, on a Ray that runs")
    for command in (one_machine, alone):
        command.add_argument("--port", type=_whole(1, 65535), default=PORT)
        command.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0 to be reached from other machines; set keys then")
        command.add_argument("--state", type=Path, default=STATE, metavar="FOLDER", help="where jobs and videos are kept (default: %(default)s)")
        command.add_argument("--settings", type=Path, metavar="FILE", help="see docs/cluster.md (default: settings.json in the state)")
        command.add_argument("--workers", type=_whole(1, MOST_WORKERS), metavar="N",
                             help="default: as many as there are GPUs; without a GPU, N workers on the CPU")
    alone.add_argument("--address", default="auto", help="of Ray's head (default: the one on this machine)")
    one_machine.add_argument("--comfyui", type=Path, required=True, metavar="FOLDER")
    one_machine.add_argument("--python", type=Path, required=True, metavar="FILE", help="ComfyUI's own")
    one_machine.add_argument("--arguments", default="", help="more for ComfyUI's main.py")
    options = parser.parse_args()
    options.state = options.state.expanduser().absolute()
    options.state.mkdir(mode=0o700, parents=True, exist_ok=True)  # ids are in it: who knows one may have its video
    try:
        return up(options) if options.command == "up" else gateway(options)
    except (StartFailed, PortInUse, OSError, ValueError, asyncio.TimeoutError) as error:
        print(f"{error or type(error).__name__}", file=sys.stderr, flush=True)
        return WRONG


def _whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} to {most}")
        return int(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
