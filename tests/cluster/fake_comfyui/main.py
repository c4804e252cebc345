"""A ComfyUI that only speaks: the pack's API on a port, with jobs that take as long as their prompt says and videos that their seed decides.

`takes 0.5` in a prompt is seconds; `fails` ends in a node's error, `unsafe` in a content policy's, `kills` ends the process.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from aiohttp import web  # noqa: E402

from nodes.api.app import App, answered_paths  # noqa: E402
from nodes.api.contract import Health, TextToVideoInput  # noqa: E402
from nodes.api.errors import Cancelled, ContentPolicyViolation, InternalError, NotFound  # noqa: E402
from nodes.api.headers import Preferences  # noqa: E402
from nodes.api.jobs.job import Answer, Job  # noqa: E402
from nodes.api.settings import Settings  # noqa: E402
from nodes.api.uploads.storage import Uploads  # noqa: E402
from nodes.api.version import pack_version  # noqa: E402

SECONDS = re.compile(r"takes ([\d.]+)")
LORAS = ["style.safetensors", "folder/motion.safetensors"]
STEPS = 10
PICTURE = "data:image/webp;base64"


def video(request: TextToVideoInput, seed: int) -> bytes:
    """What comes of a request, always the same."""
    digest = hashlib.sha256(f"{request.model_dump_json(exclude={'seed', 'loras'})} {seed}".encode()).digest()
    return digest * (1000 + seed % 60_000)


class Fake:
    """One job at a time, first come, first served."""

    def __init__(self, folder: Path) -> None:
        self.jobs: dict[str, Job] = {}
        self.videos: dict[str, bytes] = {}
        self.turn = asyncio.Lock()
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.uploads = Uploads(folder / "uploads", Settings().uploads)

    async def submit(self, request: TextToVideoInput, owner: str, base_url: str, webhook: str | None, preferences: Preferences) -> Job:
        assert request.seed is not None, "the gateway pins it"
        job = Job(owner, request.seed, preferences=preferences)
        self.jobs[job.request_id] = job
        self.tasks[job.request_id] = asyncio.create_task(self.run(job, request, base_url))
        return job

    async def run(self, job: Job, request: TextToVideoInput, base_url: str) -> None:
        try:
            async with self.turn:
                job.start()
                match = SECONDS.search(request.prompt)
                for step in range(STEPS):
                    await asyncio.sleep((float(match[1]) if match else 0.05) / STEPS)
                    job.say(f"Sampler: {step + 1} of {STEPS}")
                    job.show(f"{PICTURE},{step}")
                    if "kills" in request.prompt:
                        os._exit(9)
                job.complete(await self.answer(job, request, base_url))
        except asyncio.CancelledError:
            job.complete(Answer.of(Cancelled()))

    async def answer(self, job: Job, request: TextToVideoInput, base_url: str) -> Answer:
        if "fails" in request.prompt:
            return Answer.of(InternalError("Sampler: it failed."))
        if "unsafe" in request.prompt:
            return Answer.of(ContentPolicyViolation(request.prompt, "unsafe 0.97"))
        self.videos[job.request_id] = content = video(request, job.seed)
        file = {"url": f"{base_url}/view/{job.request_id}", "content_type": "video/mp4", "file_name": "Wan22_00001_.mp4", "file_size": len(content)}
        sent = [await self.uploads.file(weight.path) for weight in request.loras]
        prompt = f"{request.prompt} with {[file.read_bytes().hex() for file in sent if file]}" if any(sent) else request.prompt
        return Answer(200, {"video": file, "prompt": prompt, "seed": job.seed})

    def job(self, request_id: str, owner: str) -> Job:
        if request_id not in self.jobs:
            raise NotFound(f"Request {request_id}")
        return self.jobs[request_id]

    def cancel(self, job: Job) -> None:
        self.tasks[job.request_id].cancel()

    def queue_position(self, job: Job) -> int:
        return 0

    def jwks(self) -> dict[str, Any]:
        return {"keys": []}

    def health(self) -> Health:
        missing = ["wan2.2_high.safetensors is missing."] if os.environ.get("FAKE_LACKS_MODELS") else []
        return Health(version=os.environ.get("FAKE_VERSION", pack_version()), missing_models=missing, missing_interpolators=[])

    async def view(self, request: web.Request) -> web.Response:
        return web.Response(body=self.videos[request.match_info["id"]], content_type="video/mp4")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen")
    parser.add_argument("--port", type=int)
    parser.add_argument("--user-directory", type=Path)
    options, _ = parser.parse_known_args()
    settings = Settings.read((options.user_directory / "__wan22" / "api.json").read_text())
    fake, site = Fake(options.user_directory), web.Application()
    app = App(settings, fake)
    for path in answered_paths():
        site.router.add_route("*", path, app.answer)
    site.router.add_get("/view/{id}", fake.view)
    for path, body in (("/system_stats", {"system": {"comfyui_version": "0.3.75"}, "devices": [{"name": "fake"}]}), ("/models/loras", LORAS)):
        site.router.add_get(path, answers(body))
    runner = web.AppRunner(site, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, options.listen, options.port).start()
    print("To see the GUI go to: http://", options.listen, options.port, flush=True)
    await asyncio.Event().wait()


def answers(body: Any) -> Any:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=json.dumps(body), content_type="application/json")
    return answer


if __name__ == "__main__":
    asyncio.run(main())
