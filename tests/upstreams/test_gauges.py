"""Figures by name from three servers' texts; what is odd is no figure."""

from __future__ import annotations

import pytest

from ds2d.core.load import Load
from ds2d.upstreams.openai.gauges import read_loads, read_metrics, read_slots

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="deepseek-tiny"} 3.0
vllm:num_requests_running{engine="1",model_name="deepseek-tiny"} 2.0
vllm:num_requests_waiting{engine="0",model_name="deepseek-tiny"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="deepseek-tiny",reason="capacity"} 1.0
vllm:engine_sleep_state{engine="0",model_name="deepseek-tiny",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="0",model_name="deepseek-tiny",sleep_state="weights_offloaded"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="deepseek-tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="deepseek-tiny"} 0.5
vllm:prefix_cache_queries_total{engine="0",model_name="odd } name"} 1000.0
vllm:prefix_cache_queries_created{engine="0",model_name="deepseek-tiny"} 1.7e+09
vllm:prefix_cache_hits_total{engine="0",model_name="deepseek-tiny"} 640.0
vllm:prompt_tokens_total{engine="0",model_name="deepseek-tiny"} 1.2e+06
vllm:generation_tokens_total{engine="0",model_name="deepseek-tiny"} 512.0
"""

# Names, labels and when each figure is written: python/sglang/srt/observability/metrics_collector.py and
# managers/scheduler_components/metrics_reporter.py of SGLang's main branch in 2026, and
# https://docs.sglang.io/references/production_metrics.html
SGLANG = b"""sglang:num_running_reqs{engine_type="unified",model_name="m"} 7.0
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 3.0
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="4"} 4.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 2.0
sglang:token_usage{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 0.28
sglang:cache_hit_rate{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 0.3
sglang:prompt_tokens_total{is_streaming="true",model_name="m"} 800.0
sglang:prompt_tokens_total{is_streaming="false",model_name="m"} 100.0
sglang:cached_tokens_total{cache_source="device",model_name="m"} 250.0
sglang:cached_tokens_total{cache_source="host",model_name="m"} 50.0
sglang:generation_tokens_total{is_streaming="true",model_name="m"} 75.0
"""

# tools/server/README.md of llama.cpp's master in 2026, "GET /metrics", without `kv_cache_usage_ratio` now. That an answer's
# tokens are counted when it ends, and each llama_decode() when it is done, is in tools/server/server-context.cpp.
LLAMA = b"""# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
llamacpp:requests_deferred 4
llamacpp:tokens_predicted_total 3469
llamacpp:prompt_tokens_total 6886
llamacpp:n_decode_total 3512
llamacpp:n_busy_slots_per_decode 1
"""


@pytest.mark.parametrize(
    ("text", "load"),
    [
        (VLLM, Load(5, 1, 0.5, generated=512, prompted=1200000, queries=1000, hits=640, steps=512)),
        (SGLANG, Load(7, 2, 0.28, generated=75, prompted=900, queries=900, hits=300)),
        (LLAMA, Load(1, 4, generated=3469, prompted=6886, steps=3512)),
    ],
    ids=["vllm", "sglang", "llamacpp"],
)
def test_what_each_server_says(text: bytes, load: Load) -> None:
    assert read_metrics(text) == load
    assert read_metrics(text.replace(b"\n", b"\r\n")) == load


def test_the_tokens_of_sglangs_running_answers_are_those_that_count() -> None:
    realtime = b"""sglang:realtime_tokens_total{mode="prefill_compute",model_name="m",pp_rank="0",tp_rank="0"} 600.0
sglang:realtime_tokens_total{mode="decode",model_name="m",pp_rank="0",tp_rank="0"} 90.0
"""
    assert read_metrics(SGLANG + realtime) == Load(7, 2, 0.28, generated=90, prompted=900, queries=900, hits=300, steps=690)


def test_sglangs_requests_count_once_though_each_rank_has_them() -> None:
    every = b"""sglang:num_running_reqs{pp_rank="0",tp_rank="0"} 4.0
sglang:num_running_reqs{pp_rank="0",tp_rank="1"} 4.0
sglang:num_running_reqs{pp_rank="1",tp_rank="0"} 3.0
"""
    assert read_metrics(every) == Load(4)


def test_sglangs_requests_count_once_though_each_priority_has_its_own() -> None:
    each = b"""sglang:num_running_reqs{pp_rank="0",priority="",tp_rank="0"} 14.0
sglang:num_running_reqs{pp_rank="0",priority="-1",tp_rank="0"} 4.0
sglang:num_running_reqs{pp_rank="0",priority="None",tp_rank="0"} 10.0
sglang:num_queue_reqs{pp_rank="0",priority="",tp_rank="0"} 2.0
sglang:num_queue_reqs{pp_rank="0",priority="0",tp_rank="0"} 2.0
"""
    assert read_metrics(each) == Load(14, 2)


def test_an_engine_that_sleeps_is_told_by_its_own_gauge() -> None:
    asleep = VLLM.replace(b'sleep_state="awake"} 1.0', b'sleep_state="awake"} 0.0')
    found = read_metrics(asleep)
    assert found is not None
    assert found.asleep


def test_older_names_of_vllm_are_known() -> None:
    old = b"vllm:num_requests_running 1\nvllm:gpu_cache_usage_perc 0.1\nvllm:gpu_prefix_cache_hits_total 5\n"
    assert read_metrics(old) == Load(1, cache_use=0.1, hits=5)


@pytest.mark.parametrize("value", [b"NaN", b"-1", b"+Inf", b"1e300", b"many", b""])
def test_an_odd_figure_is_none(value: bytes) -> None:
    assert read_metrics(b"vllm:num_requests_running " + value + b"\n") is None


@pytest.mark.parametrize("text", [b"", b"<html>", b"other_requests_running 3\n", b"\xff\xfe", b"x" * 100_000])
def test_a_text_of_another_server_says_nothing(text: bytes) -> None:
    assert read_metrics(text) is None


# python/sglang/srt/managers/load_snapshot.py (`_CORE_KEYS`) and entrypoints/v1_loads.py
def test_sglang_without_metrics_tells_its_ranks() -> None:
    ranks = b'{"loads":[{"num_running_reqs":3,"num_waiting_reqs":2,"token_usage":0.2},{"num_running_reqs":7,"token_usage":0.95}]}'
    assert read_loads(ranks) == Load(10, 2, 0.95)


# tools/server/README.md, "GET /slots"
def test_llama_server_without_metrics_tells_its_slots() -> None:
    assert read_slots(b'[{"id":0,"is_processing":true},{"id":1,"is_processing":false}]') == Load(1)


@pytest.mark.parametrize("body", [b"", b"[]x", b"{}", b'{"loads":7}', b'{"loads":[1]}', b'[{"id":0}]', b"null"])
def test_json_that_is_no_load_says_nothing(body: bytes) -> None:
    assert read_loads(body) is None
    assert read_slots(body) is None
