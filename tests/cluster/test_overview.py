"""The owner's view of a cluster: it agrees with what happened, tells no secret, and is shown to whoever may ask for videos."""

import asyncio
import base64
import html.parser
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from gateways import until
from scripted import LORA, VIDEO, gateway

from cluster.attempts import Begun, Ended, LogLine, WorkerLost
from cluster.gateway.line import WaitingLine
from cluster.gateway.pace import BOUNDS, FIVE_MINUTES, HOUR, SLICE, Pace
from cluster.gateway.pages.door import check_caller, check_origin
from cluster.gateway.pages.overview import overview
from cluster.gateway.pages.routes import PAGE
from cluster.settings import ClusterSettings
from nodes.api.errors import ApiError, ContentPolicyViolation, InternalError
from nodes.api.jobs.job import Answer

KEY, OTHER = "k" * 20, "o" * 20
SECRET = "secretsecret"
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}")


def test_what_is_seen_is_what_happened(tmp_path: Path) -> None:
    async def run() -> None:
        async with gateway(tmp_path, workers=1) as cluster:
            first = cluster.pool.seats["worker_1"].worker
            assert first is not None
            for _ in range(3):
                await cluster.submit("a lighthouse")
            await cluster.submit("a storm", low=True)
            await until(lambda: first.job is not None)
            before = await cluster.see()
            assert before["queue"]["jobs"] == 3 and before["queue"]["by_priority"] == {"0": 2, "-1": 1}
            assert before["queue"]["oldest_seconds"] >= 0
            cluster.pool.make_video("worker_1")
            await until(lambda: cluster.service.answers.total() == 1)
            cluster.pool.tell("worker_1", Begun(), Ended(Answer.of(InternalError("it failed"))))
            await until(lambda: cluster.service.answers.total() == 2)
            cluster.pool.tell("worker_1", Begun(), WorkerLost("gone"))
            await until(lambda: cluster.service.lost == 1 and len(cluster.service.line) == 2)
            after = await cluster.see()
            assert after["made"] == after["last_5_minutes"]["jobs"] == after["last_hour"]["jobs"] == 1
            assert after["failures"] == {"500": 1} and after["workers_lost"] == 1
            assert (after["handed_out"], after["warm"]) == (3, 2)
            assert after["videos"]["count"] == 1 and after["videos"]["bytes"] == len(VIDEO)
            assert after["queue"]["jobs"] == 2, "the job of the lost worker waits again"

    asyncio.run(run())


def test_a_worker_is_seen_in_each_of_its_states(tmp_path: Path) -> None:
    async def run() -> None:
        async with gateway(tmp_path, workers=1) as cluster:
            seat, service = cluster.pool.seats["worker_1"], cluster.service
            worker = seat.worker
            assert worker is not None

            def view() -> Any:
                return overview(service, cluster.pool.seats.values()).workers[0]

            assert (view().state, view().loras, view().job, view().host) == ("free", None, None, "host of worker_1")
            request_id = await cluster.submit("x", [{"path": LORA, "scale": 0.5, "transformer": "low"}])
            cluster.pool.tell("worker_1", Begun(), LogLine("Sampler: 3 of 12"))
            await until(lambda: view().doing != "")
            assert (view().state, view().loras, view().job) == ("busy", (f"{LORA} x 0.5, low",), request_id[:8])
            assert (view().doing, view().fraction, view().attempt) == ("Sampler: 3 of 12", 0.25, 1)
            worker.leaving = True
            assert view().state == "leaving"
            cluster.pool.tell("worker_1", WorkerLost("gone"))
            await until(lambda: service.lost == 1)
            assert (view().state, view().says, view().job) == ("starting", "was lost", None)
            seat.worker, seat.state = None, "starts: loads"
            assert (view().state, view().says, view().seconds) == ("starting", "starts: loads", None)
            seat.failed, seat.state = True, "A model is missing."
            assert (view().state, view().says, view().host) == ("failed", "A model is missing.", "host of worker_1")

    asyncio.run(run())


@pytest.mark.parametrize("private", [False, True])
def test_nothing_that_is_seen_opens_a_video_or_tells_a_prompt(tmp_path: Path, private: bool) -> None:
    async def run() -> None:
        async with gateway(tmp_path, workers=1, downloads={"enabled": True, "allowed_hosts": ["huggingface.co", "host.example"]}) as cluster:
            loras = [{"path": f"https://host.example/{SECRET}/style.safetensors?token={SECRET}#{SECRET}"}, {"path": LORA}]
            cluster.pool.tell("worker_1", Begun(), LogLine(f"Expanded: {SECRET}"), Ended(Answer.of(ContentPolicyViolation(SECRET, SECRET))),
                              Begun(), LogLine("Sampler: 1 of 2"), LogLine(f"{SECRET} {'3 of 4 ' * 40}"))
            await cluster.submit(SECRET, loras, private=private)
            job = cluster.service.store.jobs[await cluster.submit(SECRET, loras, private=private)]
            await cluster.submit(SECRET, loras, private=private)
            await until(lambda: len(job.logs) == 2)
            second = await cluster.see()
            assert second["failures"] == {"422": 1} and second["queue"]["jobs"] == 1
            for text in (json.dumps(second), await cluster.metrics()):
                assert SECRET not in text and not ID.search(text)
            (worker,) = second["workers"]
            assert len(worker["job"]) == 8
            shown = [*map(str, worker["loras"])]
            assert shown == ["private"] if private else shown[0] == "host.example/.../style.safetensors x 1, high"

    asyncio.run(run())


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{key}".encode()).decode()


LOCAL, FAR = "127.0.0.1", "192.0.2.7"
RIGHT = [f"Key {KEY}", f"Bearer {KEY}", f"key {KEY}", basic(KEY)]
WRONG = ["", KEY, f"Key {OTHER}", basic(OTHER), "Basic", "Basic %%%", "Basic " + base64.b64encode(KEY.encode()).decode(), f"Digest {KEY}"]
DOORS = [
    *(((), LOCAL, header, {}, None) for header in ["", *RIGHT, *WRONG]),
    *(((), FAR, header, {}, 401) for header in ["", *RIGHT]),
    *(((), LOCAL, "", more, 401)
      for more in ({"Host": "evil.example"}, {"X-Forwarded-For": FAR}, {"Origin": "https://evil.example"}, {"Origin": "null"})),
    *(((KEY,), remote, header, {}, None) for remote in (LOCAL, FAR) for header in RIGHT),
    *(((KEY,), remote, header, {}, 401) for remote in (LOCAL, FAR) for header in WRONG),
    ((KEY,), FAR, RIGHT[0], {"Host": "gpu.example", "Via": "nginx"}, None),
]


@pytest.mark.parametrize("keys, remote, header, more, status", DOORS)
def test_the_door(keys: tuple[str, ...], remote: str, header: str, more: dict[str, str], status: int | None) -> None:
    settings = ClusterSettings(keys=keys)
    headers = {"Host": "localhost:8189", **({"Authorization": header} if header else {}), **more}
    assert _status(check_caller, settings, remote, headers) == status


ORIGINS = [
    ({}, None), ({"Origin": "http://gpu.example:8189"}, None), ({"Origin": "https://public.example"}, None),
    ({"Origin": "http://gpu.example:8189", "Sec-Fetch-Site": "same-origin"}, None), ({"Sec-Fetch-Site": "none"}, None),
    ({"Origin": "http://gpu.example:9000"}, 403), ({"Origin": "https://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Origin": ""}, 403),
    ({"Origin": "http://[bad"}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403),
]


@pytest.mark.parametrize("more, status", ORIGINS)
def test_pages_of_others_restart_nothing(more: dict[str, str], status: int | None) -> None:
    settings = ClusterSettings(keys=(KEY,), public_url="https://public.example/wan")
    assert _status(check_origin, settings, {"Host": "gpu.example:8189", **more}) == status


def _status(check: Any, *arguments: Any) -> int | None:
    try:
        check(*arguments)
    except ApiError as error:
        return error.status
    return None


def test_all_pages_have_the_same_door(tmp_path: Path) -> None:
    async def run() -> None:
        async with gateway(tmp_path, keys=[KEY]) as cluster:
            for method, path in (("GET", "/cluster"), ("GET", "/cluster/"), ("GET", "/metrics"), ("POST", "/cluster/restart")):
                for header, statuses in ((None, {401}), (basic(OTHER), {401}), (basic(KEY), {200, 202}), (f"Key {KEY}", {200, 202})):
                    headers = {"Authorization": header} if header else {}
                    async with cluster.client.request(method, path, headers=headers) as reply:
                        assert reply.status in statuses, (method, path, header)
                        assert ("WWW-Authenticate" in reply.headers) == (reply.status == 401)
                        if reply.status == 401:
                            assert (await reply.json())["error_type"] == "unauthorized"
            assert cluster.pool.restarts == 1

    asyncio.run(run())


def test_one_restart_at_a_time(tmp_path: Path) -> None:
    async def run() -> None:
        async with gateway(tmp_path, workers=1) as cluster:
            async def restart(**headers: str) -> int:
                async with cluster.client.post("/cluster/restart", headers=headers) as reply:
                    return reply.status

            assert (await cluster.see())["restart_seconds"] is None
            assert await restart(Origin="http://localhost:1") == 403 and cluster.pool.restarts == 0
            assert [await restart(), await restart(), await restart()] == [202, 200, 200]
            assert (await cluster.see())["restart_seconds"] is not None and cluster.pool.restarts == 1
            cluster.pool.restarted.set()
            while (await cluster.see())["restart_seconds"] is not None:
                await asyncio.sleep(0.01)
            assert await restart() == 202 and cluster.pool.restarts == 2

    asyncio.run(run())


@pytest.mark.parametrize("accept, kind", [("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"), ("application/json", "application/json"),
                                          ("*/*", "application/json")])
def test_browsers_get_the_page_and_programs_json(tmp_path: Path, accept: str, kind: str) -> None:
    async def run() -> None:
        async with gateway(tmp_path) as cluster, cluster.client.get("/cluster", headers={"Accept": accept}) as reply:
            assert reply.status == 200 and reply.content_type == kind
            assert reply.headers["Vary"] == "Accept" and reply.headers["Cache-Control"] == "no-store"

    asyncio.run(run())


class Addresses(html.parser.HTMLParser):
    """Whatever a browser would fetch for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "poster", "background")]


def test_the_page_needs_nothing_but_the_gateway_and_writes_text_only() -> None:
    text, addresses = PAGE.read_text(encoding="utf-8"), Addresses()
    text.encode("cp1252")
    addresses.feed(text)
    assert addresses.all == ["data:,"]
    assert not re.search(r"https?:|//[\w.]+\.\w|@import|url\(", re.sub(r"// \w+$", "", text, flags=re.M))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setAttribute\(.on", text)


def test_the_page_asks_for_nothing_that_the_json_has_not(tmp_path: Path) -> None:
    async def run() -> None:
        async with gateway(tmp_path, workers=1) as cluster:
            seen = await cluster.see()
            text = PAGE.read_text(encoding="utf-8")
            parts = {"seen": seen, "worker": seen["workers"][0], "queue": seen["queue"], "hour": seen["last_hour"]}
            for name, part in parts.items():
                asked = set(re.findall(rf"(?<![\w.]){name}\.(\w+)", text))
                assert asked and asked <= set(part), name

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(20))
def test_the_line_counts_each_priority(seed: int) -> None:
    dice, line, waiting = random.Random(seed), WaitingLine(), dict[str, tuple[int, float]]()
    for number in range(200):
        if waiting and dice.random() < 0.4:
            gone = dice.choice(sorted(waiting))
            line.leave(gone)
            del waiting[gone]
        else:
            waiting[str(number)] = dice.choice((-1, 0, 1)), dice.uniform(0, 100)
            line.join(str(number), *waiting[str(number)])
        priorities = sorted({priority for priority, _ in waiting.values()}, reverse=True)
        arrivals = [[arrival for each, arrival in waiting.values() if each == priority] for priority in priorities]
        assert line.by_priority() == [(priority, len(each), min(each)) for priority, each in zip(priorities, arrivals, strict=True)]


@pytest.mark.parametrize("seed", range(10))
def test_the_pace_is_that_of_the_jobs_to_a_slice_and_takes_no_more_room(seed: int) -> None:
    dice, now, jobs = random.Random(seed), [1000.0], list[tuple[float, float]]()
    pace = Pace(lambda: now[0])
    for _ in range(3000):
        now[0] += dice.expovariate(0.3)
        jobs.append((now[0], dice.choice((*BOUNDS, dice.uniform(0, 5000)))))
        pace.add(jobs[-1][1])
    for window in (FIVE_MINUTES, HOUR):
        seconds = [seconds for end, seconds in jobs if end // SLICE > now[0] // SLICE - window // SLICE]
        lately = pace.lately(window)
        assert lately.jobs == len(seconds)
        assert lately.mean_seconds == pytest.approx(sum(seconds) / len(seconds), abs=1e-3)
    assert [sum(pace.buckets[:index + 1]) for index in range(len(BOUNDS))] == [sum(s <= bound for _, s in jobs) for bound in BOUNDS]
    assert sum(pace.buckets) == len(jobs) and pace.seconds == pytest.approx(sum(seconds for _, seconds in jobs))
    assert len(pace._slices) <= HOUR // SLICE
    now[0] += 2 * HOUR
    assert pace.lately(HOUR).jobs == 0 and pace.lately(HOUR).mean_seconds is None


def test_a_look_does_not_look_through_the_jobs(tmp_path: Path) -> None:
    class Closed(dict[str, Any]):
        """Jobs that can be had by their id only."""

        def _refused(self, *_: object) -> Any:
            raise AssertionError("all jobs were looked at")

        __iter__ = keys = values = items = _refused

    async def run() -> None:
        async with gateway(tmp_path, workers=1) as cluster:
            for _ in range(5):
                await cluster.submit("x")
            cluster.service.store.jobs = Closed(cluster.service.store.jobs)
            assert (await cluster.see())["queue"]["jobs"] >= 4
            assert "wan22_queue_jobs" in await cluster.metrics()

    asyncio.run(run())
