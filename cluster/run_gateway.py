"""The gateway as a program: its settings, its port, Ray, its workers, and the jobs that an earlier one left."""

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Coroutine
from typing import Any

import ray

from nodes.engine.log import log

from .gateway.pages.routes import Pages
from .gateway.server import listening, served
from .gateway.service import ClusterService
from .on_ray.pool import RayPool
from .progress import Above, Progress, counted, welcome
from .settings import ClusterSettings
from .worker.child import StartFailed

WRONG = 2  # the exit status of what must be put right before another start


def read_settings(options: argparse.Namespace) -> ClusterSettings:
    """ValueError for a file that is not as it must be."""
    path = options.settings or options.state / "settings.json"
    if not path.exists() and options.settings is None:
        return ClusterSettings()
    try:
        return ClusterSettings.read(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def gateway(options: argparse.Namespace) -> int:
    """Until SIGTERM. Its exit status."""
    settings = read_settings(options)
    with contextlib.closing(listening(options.listen, options.port)) as door:
        count, on_cpu = connected(options.address, options.workers)
        pool = RayPool(count, on_cpu, for_workers(settings))
        progress = Progress(pool.seats.values())
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, handlers=[Above(progress)])
        progress.write(f"{counted(count)} on {'the CPU' if on_cpu else 'a GPU each'} start. Jobs and videos are kept in {options.state}.\n")
        telling = welcome(progress, address_of(settings, door), bool(settings.keys), on_cpu)
        return asyncio.run(_run(options, settings, door, pool, telling))


def for_workers(settings: ClusterSettings) -> dict[str, object]:
    """What their ComfyUIs must know: which models, and what may be downloaded. The gateway has checked the rest."""
    kept = settings.model_dump(mode="json", include={"models", "downloads"})
    return {**kept, "max_waiting": 100, "kept_jobs": 20, "uploads": {"max_bytes": settings.uploads.max_bytes}}


def connected(address: str, workers: int | None) -> tuple[int, bool]:
    """How many workers there are to be, and whether on the CPU. StartFailed without GPUs where no number is named."""
    ray.init(address=address, log_to_driver=False, configure_logging=False)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if not gpus and workers is None:
        raise StartFailed("There is no GPU. Name how many workers are to run on the CPU: --workers N.")
    return workers or gpus, not gpus


def address_of(settings: ClusterSettings, door: socket.socket) -> str:
    """Where clients find the gateway."""
    host, port = door.getsockname()[:2]
    host = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return settings.public_url.rstrip("/") or f"http://{host}:{port}"


async def _run(options: argparse.Namespace, settings: ClusterSettings, door: socket.socket, pool: RayPool, telling: Coroutine[Any, Any, None]) -> int:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    service = ClusterService(options.state, settings, pool)
    async with served(service, door, Pages(service, pool).routes()) as work:
        log.info("the gateway takes requests on port %d", options.port)
        workers = asyncio.gather(pool.run_workers(service.dispatcher), telling)
        tasks: list[asyncio.Future[Any]] = [workers, work, asyncio.ensure_future(stopped.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in (workers, work):
            if each.done():
                each.result()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return 0
