"""What two versions of the daemon share while both run: stored responses, background work, slots, rates, breakers; and what is
left when one of them is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.functional.processes import KEY, ROOT, Process, daemons, ds2d, serving
from tests.functional.scripted import Scene, Wait, chunk, refuse, scripted_upstream, sse, usage

RESPONSES = "/v1/responses"
QUESTION = {"model": "deepseek-chat", "input": "x"}
CHAT = "/v1/chat/completions"
ASK = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}


def half(*waits: Wait) -> Scene:
    """An answer that stops in the middle until the test says so; after every piece, with more than one wait."""
    first, *rest = sse(chunk({"role": "assistant", "content": "one "}), chunk({"content": "two"}), chunk({}, "stop"), usage())
    return Scene([first, waits[0], rest[0], *waits[1:], *rest[1:]])


def config_for(base_url: str, **sections: Any) -> dict[str, Any]:
    """One upstream that is polled fast."""
    return {"upstreams": [{"name": "gpu", "kind": "openai", "base_url": base_url, "poll_seconds": 1}], **sections}


class Daemons:
    """The processes that serve one port, and a client that connects anew for every request."""

    def __init__(self, process: Process, folder: Path, http: aiohttp.ClientSession) -> None:
        self.process = process
        self.folder = folder
        self.http = http
        self.url = f"http://127.0.0.1:{process.port}"

    async def ask(self, path: str, body: Any = None, method: str = "") -> tuple[int, Any]:
        """One request: status, and parsed JSON or text."""
        async with self.http.request(method or ("POST" if body else "GET"), self.url + path, json=body) as reply:
            text = await reply.text()
            with contextlib.suppress(ValueError):
                return reply.status, json.loads(text)
            return reply.status, text

    @contextlib.asynccontextmanager
    async def stream(self, path: str, body: Any = None) -> AsyncIterator[aiohttp.StreamReader]:
        """A stream, once its first bytes could be read."""
        async with self.http.request("POST" if body else "GET", self.url + path, json=body) as reply:
            assert reply.status == 200
            yield reply.content

    async def upgrade(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`ds2d upgrade`, to its end."""
        return await asyncio.to_thread(ds2d, ROOT, "upgrade", "--state", str(self.folder / "state"), *words)

    def pids(self) -> list[int]:
        """Oldest first."""
        return sorted(daemons(self.folder), key=lambda pid: Path(f"/proc/{pid}/stat").read_text().split()[21].zfill(20))


@contextlib.asynccontextmanager
async def daemons_in(folder: Path, config: dict[str, Any]) -> AsyncIterator[Daemons]:
    """A daemon as a process, ready."""
    manager = serving(folder, config={"keys": [KEY]} | config)
    process = await asyncio.to_thread(manager.__enter__)
    try:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), headers=headers) as http:
            line = Daemons(process, folder, http)
            await until(lambda: process.ask("/readyz")[0] == 200)
            yield line
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - it is no event of this loop
            await asyncio.sleep(0.02)


async def test_chains_and_background_work_go_on_over_two_upgrades(tmp_path: Path) -> None:
    first, later, second, third = Wait(), Wait(), Wait(), Wait()
    async with scripted_upstream() as upstream, daemons_in(tmp_path, config_for(upstream.base_url)) as line:
        _, begun = await line.ask(RESPONSES, QUESTION)
        upstream.scenes += [half(first, later), half(second), half(third)]
        _, run = await line.ask(RESPONSES, {**QUESTION, "background": True})
        await first.reached.wait()
        _, doomed = await line.ask(RESPONSES, {**QUESTION, "background": True})
        await second.reached.wait()
        path = f"{RESPONSES}/{run['id']}"
        async with (
            line.stream(RESPONSES, {**QUESTION, "stream": True}) as stream,
            line.stream(path + "?stream=true") as old_follower,
        ):
            await third.reached.wait()
            assert (await line.upgrade()).returncode == 0
            chained = {**QUESTION, "previous_response_id": begun["id"]}
            assert (await line.ask(RESPONSES, chained))[0] == 200  # what was stored before
            assert [message["role"] for message in upstream.seen[-1].body["messages"]] == ["user", "assistant", "user"]
            status, now = await line.ask(path)
            assert (status, now["status"]) == (200, "in_progress")
            assert now["output"][0]["content"][0]["text"] == "one "
            async with line.stream(path + "?stream=true&starting_after=1") as follower:
                await follower.readuntil(b'"delta":"one "')
                assert (await line.upgrade()).returncode == 0
                assert len(line.pids()) == 3
                status, now = await line.ask(path)
                assert (status, now["status"]) == (200, "in_progress")
                status, gone = await line.ask(f"{RESPONSES}/{doomed['id']}/cancel", method="POST")
                assert (status, gone["status"]) == (200, "cancelled")
                await upstream.seen[2].closed.wait()
                first.until.set()
                await later.reached.wait()
                while (await line.ask(path))[1]["output"][0]["content"][0]["text"] != "one two":  # noqa: ASYNC110 - it comes by way of three processes
                    await asyncio.sleep(0.01)
                later.until.set()
                assert (await follower.read()).endswith(b"data: [DONE]\n\n")  # through the one in the middle
            assert (await old_follower.read()).endswith(b"data: [DONE]\n\n")
            third.until.set()
            events = (await stream.read()).decode()
        last = json.loads(events.split("event: response.completed\ndata: ")[1].split("\n")[0])["response"]
        assert (await line.ask(RESPONSES, {**QUESTION, "previous_response_id": last["id"]}))[0] == 200  # what ended in the oldest
        assert [message["content"] for message in upstream.seen[-1].body["messages"]] == ["x", "one two", "x"]
        status, done = await line.ask(path)
        assert (status, done["status"]) == (200, "completed")
        assert done["output"][0]["content"][0]["text"] == "one two"
        await until(lambda: len(daemons(tmp_path)) == 1)
        assert (await line.ask(path))[1] == done
        assert "not understand" not in line.process.said()


async def test_a_connection_that_the_old_process_holds_finds_what_the_new_one_has(tmp_path: Path) -> None:
    """Clients keep connections open: the next request on such a one is still the old process's."""
    held = Wait()
    async with scripted_upstream() as upstream, daemons_in(tmp_path, config_for(upstream.base_url)) as line:
        kept = [aiohttp.ClientSession(headers=line.http.headers) for _ in range(6)]
        for one in kept:
            async with one.get(line.url + "/healthz") as reply:
                await reply.read()
        _, gone = await line.ask(RESPONSES, QUESTION)
        upstream.scenes.append(half(held))
        async with line.stream(CHAT, {**ASK, "stream": True}) as stream:  # keeps the old process alive
            await held.reached.wait()
            assert (await line.upgrade()).returncode == 0
            _, made = await line.ask(RESPONSES, QUESTION)
            _, other = await line.ask(RESPONSES, QUESTION)
            assert (await line.ask(f"{RESPONSES}/{gone['id']}", method="DELETE"))[0] == 200
            path = f"{RESPONSES}/{made['id']}"
            asked = [
                (kept[0].get(line.url + path), 200),
                (kept[1].get(line.url + path + "/input_items"), 200),
                (kept[2].post(line.url + RESPONSES, json={**QUESTION, "previous_response_id": made["id"]}), 200),
                (kept[3].delete(line.url + f"{RESPONSES}/{other['id']}"), 200),
                (kept[4].get(line.url + f"{RESPONSES}/resp_{'0' * 32}"), 404),
                (kept[5].get(line.url + f"{RESPONSES}/{gone['id']}"), 404),  # of which the old one has a copy
            ]
            answers = []
            for request, status in asked:
                async with request as reply:
                    answers.append(await reply.json())
                    assert (reply.status, reply.headers["Connection"]) == (status, "close"), answers[-1]
            assert answers[0] == made
            assert (await line.ask(f"{RESPONSES}/{answers[2]['id']}"))[0] == 200  # what the old one made is in the new one
            assert (await line.ask(f"{RESPONSES}/{other['id']}"))[0] == 404
            for one in kept:
                await one.close()
            held.until.set()
            assert (await stream.read()).endswith(b"data: [DONE]\n\n")
        assert "not understand" not in line.process.said()


async def test_a_connection_that_the_old_process_holds_follows_what_the_new_one_works_on(tmp_path: Path) -> None:
    """It was a 404, as if there were no such response."""
    first, second = Wait(), Wait()
    async with (
        scripted_upstream() as upstream,
        daemons_in(tmp_path, config_for(upstream.base_url)) as line,
        aiohttp.ClientSession() as kept,
    ):
        async with kept.get(line.url + "/healthz") as reply:
            await reply.read()
        assert (await line.upgrade()).returncode == 0
        upstream.scenes.append(half(first, second))
        _, run = await line.ask(RESPONSES, {**QUESTION, "background": True})
        await first.reached.wait()
        path = f"{RESPONSES}/{run['id']}?stream=true&starting_after="
        async with kept.get(line.url + path + "1", headers=line.http.headers) as reply:
            assert (reply.status, reply.headers["Connection"]) == (200, "close")
            told = await reply.content.readuntil(b'"delta":"one "')
            first.until.set()
            second.until.set()
            told += await reply.content.read()
        _, whole = await line.ask(path + "1")
        assert told.decode() == whole
        assert whole.endswith("data: [DONE]\n\n")
        assert "not understand" not in line.process.said()


async def test_slots_rates_and_breakers_hold_over_both_and_the_dead_hold_nothing(tmp_path: Path) -> None:
    held, work = Wait(), Wait()
    runtime = {"account_max_inflight": 2, "queue_timeout_seconds": 60, "breaker": {"failures": 1, "open_seconds": 600}}
    accounts = [{"name": "good", "upstream": "gpu", "token": "t"}, {"name": "bad", "upstream": "other", "token": "t"}]
    async with scripted_upstream() as upstream, scripted_upstream("broken") as other:
        config = config_for(upstream.base_url, runtime=runtime, accounts=accounts)
        config["upstreams"].append({"name": "other", "kind": "openai", "base_url": other.base_url, "poll_seconds": 60})
        config["keys"] = [{"key": KEY, "rpm": 8}]
        async with daemons_in(tmp_path, config) as line:
            other.scenes.append(refuse(401, {"error": {"message": "no"}}))
            assert (await line.ask(CHAT, {**ASK, "model": "broken"}))[0] == 503  # 1: its account is put aside
            upstream.scenes += [half(held), half(work)]
            async with line.stream(CHAT, {**ASK, "stream": True}) as stream:  # 2
                _, run = await line.ask(RESPONSES, {**QUESTION, "background": True})  # 3
                await work.reached.wait()
                waits = asyncio.create_task(line.ask(CHAT, ASK))  # 4: waits in the older one
                await until(lambda: _waiting(line.process) == 1)
                assert (await line.upgrade()).returncode == 0
                also = asyncio.create_task(line.ask(CHAT, ASK))  # 5: waits in the newer one
                refused = len(other.seen)
                assert (await line.ask(CHAT, {**ASK, "model": "broken"}))[0] == 503  # 6
                assert len(other.seen) == refused  # nobody asked it again
                assert not waits.done()
                assert not also.done()
                held.until.set()
                assert (await stream.read()).endswith(b"data: [DONE]\n\n")
            assert (await waits)[0] == 200  # it was first
            assert (await also)[0] == 200
            assert (await line.ask(CHAT, ASK))[0] == 200  # 7
            assert (await line.ask(CHAT, ASK))[0] == 200  # 8
            assert (await line.ask(CHAT, ASK))[0] == 429
            old, _ = line.pids()
            os.kill(old, signal.SIGKILL)  # while its background work holds a slot
            status, failed = await line.ask(f"{RESPONSES}/{run['id']}")
            while failed["status"] == "in_progress":
                status, failed = await line.ask(f"{RESPONSES}/{run['id']}")
            assert (status, failed["status"], failed["error"]["code"]) == (200, "failed", "server_error")
            work.until.set()
            await until(lambda: _running(line.process) == 0)


def _waiting(process: Process) -> int:
    return _gauge(process, "ds2d_queue_waiting")


def _running(process: Process) -> int:
    return _gauge(process, "ds2d_inflight")


def _gauge(process: Process, name: str) -> int:
    lines = process.ask("/metrics")[1].splitlines()
    return next(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def new_version(folder: Path, code: str) -> None:
    """Install another version beside the running one: Python looks in the working folder first."""
    (folder / "ds2d").mkdir(exist_ok=True)
    real = ROOT / "ds2d"
    (folder / "ds2d" / "__init__.py").write_text(f'__version__ = "9.9"\n__path__ = [{str(real)!r}]\n{code}\n')


DIES = {
    "at its first line": "raise SystemError('no such luck')",
    "when it has taken over": "import os, ds2d.generations.predecessor as p\np.Predecessor.serving = lambda self: os._exit(3)",
    "when it should lead": "import os, ds2d.generations as g\ng.install = lambda *_: os._exit(3)",
}


async def test_a_new_version_that_dies_on_the_way_leaves_everything_as_it_was(tmp_path: Path) -> None:
    held = Wait()
    async with scripted_upstream() as upstream, daemons_in(tmp_path, config_for(upstream.base_url)) as line:
        _, kept = await line.ask(RESPONSES, QUESTION)
        upstream.scenes.append(half(held))
        async with line.stream(CHAT, {**ASK, "stream": True}) as stream:
            await held.reached.wait()
            for when, code in DIES.items():
                new_version(tmp_path, code)
                done = await line.upgrade()
                assert done.returncode == 1, when
                assert "nothing has changed" in done.stderr
                assert ("no such luck" in done.stderr) == ("no such luck" in code)
                assert (await line.ask(CHAT, ASK))[0] == 200, when
                assert (await line.ask(f"{RESPONSES}/{kept['id']}"))[1] == kept
                await until(lambda: daemons(tmp_path) == [line.process.popen.pid])
                assert [file.name for file in (tmp_path / "state").glob("control*")] == ["control.sock"]
            new_version(tmp_path, "")
            done = await line.upgrade("--drain-seconds", "0.2")
            assert "version 9.9 serves" in done.stdout
            assert (await line.ask("/version"))[1] == {"version": "9.9"}
            assert '"code":"shutting_down"' in (await stream.read()).decode()
        assert (await line.ask(f"{RESPONSES}/{kept['id']}"))[1] == kept
        await until(lambda: len(daemons(tmp_path)) == 1)


async def test_the_way_back_counts_the_oldest_again(tmp_path: Path) -> None:
    """Three processes: the newest dies on its way up, when the oldest has gone over to it already."""
    held = Wait()
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, runtime={"account_max_inflight": 1, "queue_timeout_seconds": 60})
        config["accounts"] = [{"name": "a", "upstream": "gpu", "token": "t"}]
        async with daemons_in(tmp_path, config) as line:
            upstream.scenes.append(half(held))
            async with line.stream(CHAT, {**ASK, "stream": True}) as stream:
                await held.reached.wait()
                assert (await line.upgrade()).returncode == 0
                waits = asyncio.create_task(line.ask(CHAT, ASK))
                await until(lambda: _waiting(line.process) == 1)
                for code in (DIES["when it should lead"], DIES["when it has taken over"]):
                    new_version(tmp_path, code)
                    assert (await line.upgrade()).returncode == 1
                    await until(lambda: _running(line.process) == 1 and _waiting(line.process) == 1)
                    assert json.loads(line.process.ask("/readyz?verbose")[1])["older_processes"] == 1
                    assert not waits.done()
                held.until.set()
                assert (await stream.read()).endswith(b"data: [DONE]\n\n")
            assert (await waits)[0] == 200
            await until(lambda: len(daemons(tmp_path)) == 1 and _running(line.process) == 0)


async def test_the_newest_is_told_to_stop_and_tells_the_older_ones(tmp_path: Path) -> None:
    """Once: what runs is finished, and the newest waits for it. Twice: what runs is ended, everywhere."""
    first, second = Wait(), Wait()
    async with scripted_upstream() as upstream, daemons_in(tmp_path, config_for(upstream.base_url)) as line:
        upstream.scenes += [half(first), half(second)]
        async with line.stream(CHAT, {**ASK, "stream": True}) as stream, line.stream(CHAT, {**ASK, "stream": True}) as late:
            await second.reached.wait()
            assert (await line.upgrade()).returncode == 0
            _, newest = line.pids()
            os.kill(newest, signal.SIGTERM)
            await until(lambda: line.process.said().count("draining") == 1)
            first.until.set()
            assert (await stream.read()).endswith(b"data: [DONE]\n\n")
            assert len(line.pids()) == 2
            os.kill(newest, signal.SIGTERM)
            assert b'"code":"shutting_down"' in await late.read()
            await until(lambda: daemons(tmp_path) == [])
            assert await asyncio.to_thread(line.process.popen.wait, 20) == 0


async def test_a_daemon_that_is_told_to_stop_gives_up_its_upgrade(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, daemons_in(tmp_path, config_for(upstream.base_url)) as line:
        new_version(tmp_path, "import time\ntime.sleep(600)")
        upgrade = asyncio.create_task(line.upgrade())
        await until(lambda: len(daemons(tmp_path)) == 2)
        assert "under way" in (await line.upgrade()).stderr
        assert await asyncio.to_thread(line.process.end) == 0
        done = await upgrade
        assert (done.returncode, "told to end" in done.stderr) == (1, True)
        await until(lambda: daemons(tmp_path) == [])


async def test_an_old_version_outlives_a_new_one_and_joins_the_next(tmp_path: Path) -> None:
    """By hand nothing starts a killed daemon again; whoever is started next counts what the old one still holds."""
    held = Wait()
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, runtime={"account_max_inflight": 1, "queue_timeout_seconds": 30})
        config["accounts"] = [{"name": "a", "upstream": "gpu", "token": "t"}]
        async with daemons_in(tmp_path, config) as line:
            upstream.scenes.append(half(held))
            async with line.stream(CHAT, {**ASK, "stream": True}) as stream:
                await held.reached.wait()
                assert (await line.upgrade()).returncode == 0
                old, new = line.pids()
                os.kill(new, signal.SIGKILL)
                await until(lambda: line.pids() == [old])
                with serving(tmp_path, port=line.process.port) as third:
                    await until(lambda: third.ask("/readyz")[0] == 200)
                    await until(lambda: _running(third) == 1)
                    waits = asyncio.create_task(line.ask(CHAT, ASK))
                    await until(lambda: _waiting(third) == 1)
                    held.until.set()
                    assert (await stream.read()).endswith(b"data: [DONE]\n\n")
                    assert (await waits)[0] == 200
                    assert await asyncio.to_thread(third.end) == 0
