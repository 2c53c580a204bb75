"""What versions say to each other: the same on both sides, and no stumbling over what a newer one adds."""

from __future__ import annotations

import msgspec
import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.generations import messages as m
from ds2d.state.breakers import Cause
from ds2d.state.leases import Want
from ds2d.state.shared_accounts import AccountState, BreakerState, Held
from ds2d.state.shared_quotas import MeterState, Reserved

WANT = Want(("gpu", "other"), "m", pin="a", caller="k", weight=2.0, avoid=frozenset({"x"}), direct=True, prefer="gpu")
SAID: list[m.Message] = [
    m.Answered(number=3, account="a", body=msgspec.Raw(b'{"a":[1]}')),
    m.Answered(number=3, fault=m.Fault(ErrorKind.QUEUE_FULL, "full", 1.5)),
    m.Acquire(number=1, lease=2, want=WANT, patience=1.5),
    m.Report(lease=2),
    m.Switch(
        accounts=[AccountState("account", "a", [BreakerState("m", {Cause.SERVER: 2}, 1.5, 2.5, Cause.SERVER, None)], 3)],
        meters=[MeterState("k", [1, 2], [1, 2], [0, 0], "2026-11", "2026-11-29", None, None, [(1.5, 1.0)], [])],
        held=[Held(1, "a", WANT, probe=True)],
        reserved=[Reserved(1, "k", 2, 3, (1.5, 5.0))],
        inside=[("gpu", "m", True)],
        joiners=2,
    ),
    m.Ready(pid=1, version="9", folder="/x", protocol=1),
]


@pytest.mark.parametrize("said", SAID)
def test_it_is_understood_as_it_was_meant(said: m.Message) -> None:
    assert m.decode(m.encode(said)) == said


def test_a_newer_versions_words_do_no_harm() -> None:
    assert m.decode(b'{"do":"sync","number":4,"added":{"later":1}}') == m.Sync(number=4)
    assert m.decode(b'{"do":"dance"}') is None
    assert m.decode(b"{") is None


def test_an_error_is_the_same_error_on_the_other_side() -> None:
    error = GatewayError(ErrorKind.UPSTREAM_RATE_LIMITED, "slow down (RequestsByMinute)", retry_after=7, param="model")
    again = m.Fault.of(error).error()
    assert (again.kind, again.message, again.retry_after, again.param) == (error.kind, error.message, 7, "model")
