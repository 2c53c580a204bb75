"""Spans as a collector receives them: OTLP over HTTP, read with the protocol's own messages."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from ds2d.service import tracing
from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.processes import serving
from tests.functional.scripted import Scene, ScriptedUpstream, Wait, refuse, say, scripted_upstream
from tests.functional.test_queue import until

CHAT = "/v1/chat/completions"
PROMPT = "the-prompt-itself"
ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": PROMPT}]}
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Collector(ThreadingHTTPServer):
    """Keeps what it is sent: spans as dictionaries, and the raw bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.raw = b""
        self.spans: list[dict[str, Any]] = []
        self.resources: list[dict[str, Any]] = []

    @property
    def variables(self) -> dict[str, str]:
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server_port}", "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def take(self, body: bytes) -> None:
        self.raw += body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(_plain(group.resource.attributes))
            for scope in group.scope_spans:
                self.spans += map(_span, scope.spans)


def _span(span: Any) -> dict[str, Any]:
    ids = {"trace": span.trace_id.hex(), "id": span.span_id.hex(), "parent": span.parent_span_id.hex()}
    times = {"begin": span.start_time_unix_nano, "end": span.end_time_unix_nano}
    return {"name": span.name, "kind": span.kind, "failed": span.status.code == 2, **ids, **times, **_plain(span.attributes)}


class _Receive(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces"
        self.server.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        pass


def _plain(attributes: Any) -> dict[str, Any]:
    found = {}
    for one in attributes:
        kind = one.value.WhichOneof("value")
        value = getattr(one.value, kind)
        found[one.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


@contextlib.asynccontextmanager
async def traced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Running, ScriptedUpstream, Collector]]:
    """A daemon that traces; its spans are all there once the `with` is left."""
    with collecting() as collector:
        for name, value in collector.variables.items():
            monkeypatch.setenv(name, value)
        async with scripted_upstream() as upstream, running(folder, config_for(upstream.base_url)) as live:
            yield live, upstream, collector


async def test_a_turn_is_a_span_with_its_parts_in_the_callers_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    async with traced(tmp_path, monkeypatch) as (live, upstream, collector):
        status, _, headers = await live.ask(CHAT, {**ASK, "stream": True}, headers={"traceparent": PARENT, "tracestate": "v=1"})
        assert status == 200
        sent = upstream.seen[0].headers
    parts = {span["name"]: span for span in collector.spans}
    assert set(parts) == {"chat deepseek-chat", "upstream", "first token"}
    turn = parts["chat deepseek-chat"]
    assert {span["trace"] for span in collector.spans} == {TRACE}
    assert turn["parent"] == PARENT.split("-")[2]
    assert {parts[name]["parent"] for name in ("upstream", "first token")} == {turn["id"]}
    assert sent["traceparent"] == f"00-{TRACE}-{turn['id']}-01"
    assert sent["tracestate"] == "v=1"
    assert (turn["kind"], parts["upstream"]["kind"]) == (2, 3)
    assert turn["begin"] <= parts["upstream"]["begin"] <= parts["first token"]["end"] <= parts["upstream"]["end"] <= turn["end"]
    assert parts["upstream"]["ds2d.account"] == "gpu"
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gpu",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "deepseek-chat",
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.response.finish_reasons": ["stop"],
        "ds2d.request_id": headers["x-request-id"],
        "ds2d.dialect": "openai_chat",
        "failed": False,
    }
    assert turn.items() >= expected.items()
    assert collector.resources[0].items() >= {"service.name": "ds2d", "deployment.environment.name": "test"}.items()
    assert not any(secret in collector.raw for secret in (PROMPT.encode(), b"Hello from", KEY.encode()))


async def test_a_retry_a_cut_and_a_refusal_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traced(tmp_path, monkeypatch) as (live, upstream, collector):
        upstream.scenes += [refuse(503, {"error": {"message": "later"}})]
        assert (await live.ask(CHAT, ASK))[0] == 200
        upstream.scenes.append(Scene([*say("Hel", "lo")[:3]]))
        await live.ask(CHAT, {**ASK, "stream": True})
        assert (await live.ask(CHAT, {**ASK, "model": "deepseek-nope"}))[0] == 404
        assert (await live.ask("/v1/models"))[0] == 200
        assert (await live.ask("/v1/messages", {**ASK, "max_tokens": 5}, headers={"traceparent": "nonsense"}))[0] == 200
    turns = [span for span in collector.spans if span["kind"] == 2]
    retried, cut, refused, claude = sorted(turns, key=lambda span: int(span["begin"]))
    attempts = [span for span in collector.spans if span["parent"] == retried["id"]]
    assert [(span["name"], span.get("error.type")) for span in attempts] == [
        ("upstream", "upstream_overloaded"),
        ("upstream", None),
    ]
    assert (retried["failed"], retried["ds2d.attempts"]) == (False, 2)
    assert (cut["failed"], cut["error.type"]) == (True, "upstream_disconnected")
    assert (refused["failed"], refused["error.type"], refused["name"]) == (True, "model_not_found", "chat unknown")
    assert claude["ds2d.dialect"] == "claude"
    assert claude["parent"] == ""
    assert len({span["trace"] for span in turns}) == 4


async def test_a_wait_in_the_queue_is_a_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traced(tmp_path, monkeypatch) as (live, upstream, collector):
        live.change(accounts=[{"name": "a", "token": "tok-a", "max_inflight": 1}])
        held = Wait()
        upstream.scenes.append(Scene([held, *say("Hello")]))
        first = asyncio.create_task(live.ask(CHAT, {**ASK, "stream": True}))
        await held.reached.wait()
        second = asyncio.create_task(live.ask(CHAT, ASK))
        await until(lambda: live.daemon.queue.waiting == 1, 20)
        held.until.set()
        assert [(await one)[0] for one in (first, second)] == [200, 200]
    (wait,) = [span for span in collector.spans if span["name"] == "queue"]
    turn = next(span for span in collector.spans if span["id"] == wait["parent"])
    assert 0 < wait["end"] - wait["begin"] <= turn["end"] - turn["begin"]


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
    ],
)
def test_the_standard_variables_decide(variables: dict[str, str], wanted: bool) -> None:
    assert tracing.is_wanted(variables) is wanted


async def test_a_client_cannot_have_headers_sent_on_where_nobody_traces(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as live:
        assert (await live.ask(CHAT, ASK, headers={"traceparent": PARENT}))[0] == 200
        assert "traceparent" not in upstream.seen[0].headers


def test_a_missing_package_costs_a_line_and_nothing_else(tmp_path: Path) -> None:
    """And without the variables the packages are not looked for at all."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ImportError('not installed')")
    block = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    config = {"keys": [KEY], "upstreams": [{"name": "demo", "kind": "demo"}]}
    with serving(tmp_path, config=config, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", **block) as process:
        assert "pip install ds2d[otel]" in process.said()
        assert process.ask(CHAT, ASK, key=KEY)[0] == 200
    code = "import sys, ds2d.app; print([name for name in sys.modules if 'opentelemetry' in name or 'requests' in name])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_collector_that_is_gone_holds_nobody_up(tmp_path: Path) -> None:
    config = {"keys": [KEY], "upstreams": [{"name": "demo", "kind": "demo"}]}
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with serving(tmp_path, config=config, **variables) as process:
        for _ in range(3):
            assert process.ask(CHAT, ASK, key=KEY)[0] == 200
        assert process.end() == 0
