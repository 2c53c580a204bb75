"""Trying the admin key: limits by address and in all, one answer for everything wrong, no way round by many tries at once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.sizes import Size
from ds2d.web import admin_key
from ds2d.web.admin_key import AdminKey, Throttle, is_strong
from tests.config.world import parsed

RIGHT = "adm-0123456789abcdef"
SALT = b"0123456789abcdef"


def hash_of(key: str) -> str:
    """As `hash_password` makes it, at a cost that many tries can bear."""
    digest = hashlib.scrypt(key.encode(), salt=SALT, n=16, r=8, p=1, dklen=32)
    return f"scrypt:16:8:1:{base64.b64encode(SALT).decode()}:{base64.b64encode(digest).decode()}"


HASH = hash_of(RIGHT)


class Clock:
    """Monotonic seconds that stand still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def key_of(clock: Clock, *, exposed: bool = False, environ: dict[str, str] | None = None, **admin: Any) -> AdminKey:
    config = parsed({"admin": admin}, environ=environ or {})
    return AdminKey(lambda: config, b"s" * 32, clock, lambda: exposed)


async def outcome(key: AdminKey, given: str, address: str = "10.0.0.1") -> Any:
    """`right`, or the kind of refusal; of a wait its seconds."""
    try:
        await key.check(given, address)
    except GatewayError as error:
        return round(error.retry_after, 3) if error.retry_after else error.kind
    return "right"


def test_five_failures_in_a_minute_make_an_address_wait_twice_as_long_each_time() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(4):
        throttle.admit("10.0.0.1", known=False)
    waits = []
    for _ in range(8):
        throttle.admit("10.0.0.1", known=True)  # the limit in all is another test's
        with pytest.raises(GatewayError) as refused:
            throttle.admit("10.0.0.1", known=True)
        waits.append(refused.value.retry_after)
        throttle.admit("10.0.9.1", known=True)
        throttle.forgive("10.0.9.1")  # nobody else waits for it
        clock.now += waits[-1] or 0
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def may_try(throttle: Throttle, address: str = "10.0.0.1", *, known: bool = False) -> bool | float:
    """Try and fail; True, or the seconds to wait."""
    try:
        throttle.admit(address, known=known)
    except GatewayError as error:
        return error.retry_after or 0.0
    return True


def test_a_failure_is_held_against_an_address_for_a_minute() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    assert [may_try(throttle) for _ in range(4)] == [True] * 4
    clock.now += 60
    assert [may_try(throttle) for _ in range(4)] == [True] * 4, "the first four are forgotten"
    clock.now += 59.9
    assert [may_try(throttle) for _ in range(2)] == [True, 1.0], "the other four are not"


def test_ten_minutes_without_a_failure_begin_anew() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    assert [may_try(throttle) for _ in range(6)] == [True] * 5 + [1.0]
    clock.now += 599.9
    assert [may_try(throttle) for _ in range(2)] == [True, 2.0], "whoever had to wait once has no new five"
    clock.now += 600
    assert [may_try(throttle) for _ in range(6)] == [True] * 5 + [1.0]


def test_a_stranger_waits_until_the_first_of_ten_failures_is_ten_seconds_old() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for number in range(10):
        assert may_try(throttle, f"10.0.1.{number}") is True
        clock.now += 0.5
    assert may_try(throttle, "10.0.2.1") == 5.0
    clock.now += 5
    assert [may_try(throttle, "10.0.2.1"), may_try(throttle, "10.0.2.1")] == [True, 0.5]


def test_a_machine_that_was_just_started_lets_anybody_try() -> None:
    clock = Clock()
    clock.now = 0.0
    assert may_try(Throttle(clock)) is True


def test_of_too_many_addresses_those_unheard_of_for_longest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_key, "MAX_ADDRESSES", 3)
    throttle = Throttle(Clock())
    for _ in range(5):
        may_try(throttle, "10.0.0.1", known=True)
    may_try(throttle, "10.0.0.2", known=True)
    assert may_try(throttle, "10.0.0.1", known=True) == 1.0
    for address in ("10.0.0.3", "10.0.0.4"):
        may_try(throttle, address, known=True)
    assert throttle.sizes() == {"addresses": Size(3, 3)}
    assert may_try(throttle, "10.0.0.1", known=True) == 1.0, "it was heard of after the second"


@pytest.mark.parametrize(
    ("addresses", "many"),
    [
        (["10.0.0.1", "::ffff:10.0.0.1"], 1),
        (["::ffff:10.0.0.1", "::ffff:10.0.0.2"], 2),
        (["2001:db8::1", "2001:db8:0:0:ffff::1"], 1),
        (["2001:db8::1", "2001:db8:0:1::1"], 2),
        (["", "no address"], 2),
        (["x" * 64 + "a", "x" * 64 + "b"], 1),
    ],
)
def test_what_counts_as_one_address(addresses: list[str], many: int) -> None:
    throttle = Throttle(Clock())
    for address in addresses:
        may_try(throttle, address)
    assert throttle.sizes()["addresses"].now == many


async def test_the_right_key_gets_in_once_the_wait_is_over_and_not_before() -> None:
    clock = Clock()
    key = key_of(clock, password_hash=HASH)
    assert await outcome(key, RIGHT) == "right"
    assert [await outcome(key, "wrong") for _ in range(6)] == [ErrorKind.INVALID_KEY] * 5 + [1.0]
    assert await outcome(key, RIGHT) == 1.0, "a right key during the wait would tell that it is right"
    assert await outcome(key, RIGHT, "10.0.0.2") == "right"
    clock.now += 1.0
    assert await outcome(key, RIGHT) == "right"
    assert await outcome(key, "wrong") == ErrorKind.INVALID_KEY, "and nothing is held against it any more"


async def test_ten_failures_in_ten_seconds_stop_all_strangers_but_not_a_key_that_was_right() -> None:
    clock = Clock()
    key = key_of(clock, password_hash=HASH)
    assert await outcome(key, RIGHT, "10.0.0.99") == "right"
    for number in range(10):
        assert await outcome(key, "wrong", f"10.0.1.{number}") == ErrorKind.INVALID_KEY
    assert await outcome(key, "wrong", "10.0.2.1") == 10.0
    assert await outcome(key, RIGHT, "10.0.0.99") == "right"
    clock.now += 10
    assert await outcome(key, "wrong", "10.0.2.1") == ErrorKind.INVALID_KEY


async def test_many_tries_at_once_are_counted_before_they_are_checked() -> None:
    key = key_of(Clock(), password_hash=HASH)
    results = await asyncio.gather(*(outcome(key, f"guess {number}") for number in range(40)))
    assert results.count(ErrorKind.INVALID_KEY) == 5


async def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    key = key_of(Clock(), password_hash=HASH)
    for number in range(5):
        assert await outcome(key, "wrong", f"2001:db8::{number}") == ErrorKind.INVALID_KEY
    assert await outcome(key, "wrong", "2001:db8::abcd") == 1.0
    assert await outcome(key, "wrong", "2001:db8:0:1::1") == ErrorKind.INVALID_KEY


async def test_without_a_key_the_api_is_off_and_says_how_to_set_one() -> None:
    with pytest.raises(GatewayError, match=r"DS2API_ADMIN_KEY.*ds2d init") as refused:
        await key_of(Clock()).check("", "10.0.0.1")
    assert refused.value.status == 403


async def test_the_environments_key_counts_only_while_no_hash_is_set() -> None:
    environ = {"DS2API_ADMIN_KEY": "from the environment"}
    assert await outcome(key_of(Clock(), environ=environ), "from the environment") == "right"
    key = key_of(Clock(), environ=environ, password_hash=HASH)
    assert await outcome(key, "from the environment") == ErrorKind.INVALID_KEY
    assert await outcome(key, RIGHT) == "right"


@pytest.mark.parametrize("weak", ["admin", "aaaaaaaaaaaaaaaaaaaa", "fifteen letters"])
async def test_a_listener_that_others_reach_needs_a_strong_key(weak: str) -> None:
    assert not is_strong(weak)
    assert await outcome(key_of(Clock(), exposed=True, environ={"DS2API_ADMIN_KEY": weak}), weak) == ErrorKind.FORBIDDEN
    stored = hash_of(weak)
    assert await outcome(key_of(Clock(), exposed=True, password_hash=stored), weak) == ErrorKind.FORBIDDEN
    assert await outcome(key_of(Clock(), password_hash=stored), weak) == "right"
    assert await outcome(key_of(Clock(), exposed=True, password_hash=HASH), RIGHT) == "right"


def test_a_strong_key_has_sixteen_characters_six_of_them_different() -> None:
    assert is_strong("abcdef" + "a" * 10)
    assert not is_strong("abcdef" + "a" * 9)
    assert not is_strong("abcde" + "a" * 11)


async def test_behind_a_weak_key_that_others_reach_nothing_can_be_tried() -> None:
    key = key_of(Clock(), exposed=True, environ={"DS2API_ADMIN_KEY": "admin"})
    assert await outcome(key, "wrong") == ErrorKind.FORBIDDEN
    assert key.sizes()["addresses"].now == 0
    key_of(Clock(), exposed=True, environ={"DS2API_ADMIN_KEY": RIGHT}).check_on()
    key_of(Clock(), environ={"DS2API_ADMIN_KEY": "admin"}).check_on()


async def test_a_listener_counts_as_this_hosts_own_unless_told_otherwise() -> None:
    config = parsed({}, environ={"DS2API_ADMIN_KEY": "admin"})
    assert await outcome(AdminKey(lambda: config, b"s" * 32, Clock()), "admin") == "right"


async def test_a_text_that_no_key_can_be_is_wrong_like_any_other() -> None:
    key = key_of(Clock(), environ={"DS2API_ADMIN_KEY": RIGHT})
    assert await outcome(key, "half of a pair: \ud83d") == ErrorKind.INVALID_KEY


async def test_the_reference_systems_hash_is_understood() -> None:
    digest = "sha256:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"  # of "alice"
    assert await outcome(key_of(Clock(), password_hash=digest), "bob") == ErrorKind.INVALID_KEY
    assert await outcome(key_of(Clock(), password_hash=digest), "alice") == "right"
