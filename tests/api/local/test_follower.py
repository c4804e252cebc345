"""What a job says of its prompt, a line for each tenth of a bar, and what becomes of its video."""

import asyncio
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

NO_NODES: dict[str, Any] = {"definitions": {"subgraphs": [{"nodes": [], "links": [], "inputs": []}]}}


@pytest.mark.parametrize("most", [10, 27, 40, 81])
def test_each_tenth_of_a_bar_is_a_line_as_soon_as_it_is_reached(pack: ModuleType, most: int) -> None:
    def of(name: str) -> Any:
        return importlib.import_module(f"{pack.__name__}.nodes.api.{name}")

    job = of("jobs.job").Job("", 1)
    follower = of("local.follower").Follower(job, None, of("blueprint").Blueprint(NO_NODES), "")
    for value in range(most + 1):
        for _ in range(2):  # it is looked at more often than it moves
            follower._say_progress(of("local.prompt_queue").Bar("7", value, most))
    lines = [int(line["message"].split(": ")[1].split(" of ")[0]) for line in job.logs]
    assert lines == [0, *(-(-most * tenth // 10) for tenth in range(1, 11))]


def test_the_video_of_a_forgotten_job_goes_with_it(pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("folder_paths.get_output_directory", lambda: str(tmp_path))
    monkeypatch.setattr("folder_paths.get_system_user_directory", lambda name: str(tmp_path / name))
    service, jobs, settings = (importlib.import_module(f"{pack.__name__}.nodes.api.{name}") for name in ("local.service", "jobs.job", "settings"))
    for name in ("old", "new"):
        (tmp_path / f"{name}.mp4").touch()

    async def remember(delete: bool) -> None:
        jobs_of = service.LocalService(settings.Settings(kept_jobs=1, delete_videos=delete))
        for finished, name in enumerate(("old", "new"), 1):
            job = jobs.Job("", 1, finished=float(finished), answer=jobs.Answer(200, {}), video=f"{name}.mp4")
            jobs_of.store.add(job)
        jobs_of.store.forget_the_oldest()

    asyncio.run(remember(delete=False))
    assert (tmp_path / "old.mp4").exists()
    asyncio.run(remember(delete=True))
    assert not (tmp_path / "old.mp4").exists() and (tmp_path / "new.mp4").exists()
