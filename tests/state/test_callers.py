"""Who asks: the first known key, then a direct token, then an open network; and who may not any more."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from ds2d.core.caller import Caller
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import KeySpec, Secret
from ds2d.state.callers import MAX_LENT, Callers, expiry, key_records

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)
SECRET = b"0" * 32


def key(text: str, **fields: Any) -> KeySpec:
    return KeySpec(key=Secret(text), **fields)


def callers(*keys: KeySpec, networks: tuple[str, ...] = (), direct: bool = False, **more: Any) -> Callers:
    made = Callers(SECRET, lambda: NOON, **more)
    made.apply(keys, networks, direct)
    return made


def refusal(ask: Callable[[], Caller]) -> tuple[ErrorKind, str]:
    with pytest.raises(GatewayError) as caught:
        ask()
    return caught.value.kind, caught.value.message


def test_a_key_is_known_by_its_hash_and_named() -> None:
    known = callers(key("sk-a", name="team-a"), key("sk-b"))
    found = known.identify(["sk-a"], None)
    assert (found.id, found.name, found.token) == (hashlib.sha256(b"sk-a").hexdigest(), "team-a", None)
    assert known.identify(["sk-b"], None).name == "key-2"
    assert known.find("sk-c") is None
    assert known.find("\ud800") is None


def test_the_first_known_key_counts_of_several() -> None:
    known = callers(key("sk-a", name="a"), key("sk-b", name="b"))
    assert known.identify(["nobody", "sk-b", "sk-a"], "127.0.0.1").name == "b"


def test_removed_keys_stop_with_the_next_config() -> None:
    known = callers(key("sk-a"))
    known.apply([key("sk-b")], (), False)
    assert known.find("sk-a") is None
    assert known.find("sk-b") is not None


def test_unknown_and_missing_keys_are_told_apart_for_people() -> None:
    known = callers(key("sk-a"))
    assert refusal(lambda: known.identify(["sk-x"], None)) == (ErrorKind.INVALID_KEY, "The API key is not valid.")
    kind, message = refusal(lambda: known.identify([], None))
    assert kind is ErrorKind.INVALID_KEY
    assert "Authorization: Bearer" in message


@pytest.mark.parametrize(
    "fields",
    [
        {"disabled": True},
        {"deleted_at": NOON - timedelta(days=1)},
        {"expires_at": NOON},
        {"created_at": NOON - timedelta(days=7), "active_days": 7},
    ],
)
def test_a_key_out_of_use_is_known_and_refused(fields: dict[str, Any]) -> None:
    known = callers(key("sk-a", **fields), networks=("0.0.0.0/0",))
    assert refusal(lambda: known.identify(["sk-a"], "127.0.0.1"))[0] is ErrorKind.KEY_EXPIRED
    assert known.find("sk-a") is not None


def test_a_key_that_has_a_moment_left_is_good() -> None:
    assert callers(key("sk-a", expires_at=NOON + timedelta(seconds=1))).identify(["sk-a"], None)


def test_days_without_a_beginning_count_from_the_first_use() -> None:
    first: dict[str, datetime] = {}
    known = callers(key("sk-a", active_days=7), first_used=first.get)
    found = known.identify(["sk-a"], None)
    first[found.id] = NOON - timedelta(days=7)
    assert refusal(lambda: known.identify(["sk-a"], None))[0] is ErrorKind.KEY_EXPIRED
    first[found.id] += timedelta(seconds=1)
    assert known.identify(["sk-a"], None) == found


def test_the_earlier_end_counts() -> None:
    spec = key("sk-a", created_at=NOON, active_days=2, expires_at=NOON + timedelta(days=1))
    assert expiry(spec) == NOON + timedelta(days=1)
    assert expiry(key("sk-a", created_at=NOON, active_days=2)) == NOON + timedelta(days=2)
    assert expiry(key("sk-a", active_days=2), NOON) == NOON + timedelta(days=2)
    assert expiry(key("sk-a", active_days=2)) is None
    assert expiry(key("sk-a")) is None


def test_a_direct_token_is_one_credential_alone_and_only_where_an_upstream_takes_it() -> None:
    known = callers(key("sk-a", name="a"), direct=True)
    found = known.identify(["tok"], None)
    assert (found.id, found.name, found.token, found.spec) == (
        "direct:" + hashlib.sha256(b"tok").hexdigest(),
        "direct",
        "tok",
        None,
    )
    assert known.identify(["tok", "tok"], None) == found
    assert refusal(lambda: known.identify(["tok", "other"], None))[0] is ErrorKind.INVALID_KEY
    assert known.identify(["tok", "sk-a"], None).name == "a"
    assert refusal(lambda: callers(key("sk-a")).identify(["tok"], None))[0] is ErrorKind.INVALID_KEY
    assert refusal(lambda: known.identify([], None))[0] is ErrorKind.INVALID_KEY


OPEN = ("127.0.0.0/8", "10.1.2.3/24", "::1/128")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "10.1.2.99", "::1", "::ffff:127.0.0.1"])
def test_an_open_network_needs_no_key(peer: str) -> None:
    found = callers(key("sk-a"), networks=OPEN).identify(["nobody"], peer)
    assert (found.id, found.name, found.spec) == ("anonymous", "anonymous", None)


@pytest.mark.parametrize("peer", ["10.1.3.1", "192.168.0.1", "::2", "no address", "", None])
def test_anybody_else_does(peer: str | None) -> None:
    known = callers(key("sk-a"), networks=OPEN)
    assert not known.is_open(peer)
    assert refusal(lambda: known.identify([], peer))[0] is ErrorKind.INVALID_KEY


def test_a_mapped_network_counts_as_it_is_written() -> None:
    assert callers(networks=("::ffff:10.0.0.0/104",)).is_open("::ffff:10.1.1.1")


def test_the_entry_named_anonymous_limits_those_without_a_key() -> None:
    known = callers(KeySpec(name="anonymous", rpm=3), networks=OPEN)
    found = known.identify([], "127.0.0.1")
    assert (found.id, found.name, found.spec) == ("anonymous", "anonymous", KeySpec(name="anonymous", rpm=3))
    known.apply([KeySpec(name="anonymous", disabled=True)], OPEN, False)
    assert refusal(lambda: known.identify([], "127.0.0.1"))[0] is ErrorKind.KEY_EXPIRED
    known.apply([key("sk-a", name="anonymous")], OPEN, False)
    assert known.identify([], "127.0.0.1").spec is None


def test_a_lent_credential_is_good_once_and_not_without_its_caller() -> None:
    known = callers(key("sk-a", name="a"), key("sk-b", name="b"))
    owner = known.identify(["sk-b"], None)
    lent = known.lend(owner.id)
    assert known.sizes()["lent"] == (1, MAX_LENT)
    assert known.find(lent) == owner
    assert known.find(lent) is None
    assert known.find(known.lend("nobody")) is None


def test_credentials_that_nobody_used_do_not_pile_up() -> None:
    known = callers(key("sk-a"))
    owner = known.identify(["sk-a"], None).id
    lent = [known.lend(owner) for _ in range(MAX_LENT)]
    assert known.sizes()["lent"] == (MAX_LENT, MAX_LENT)
    last = known.lend(owner)
    assert known.sizes()["lent"] == (1, MAX_LENT)
    assert known.find(lent[0]) is None
    assert known.find(last) is not None


def test_the_same_key_is_looked_up_by_another_hash_in_every_process() -> None:
    one, two = callers(key("sk-a")), Callers(b"1" * 32, lambda: NOON)
    two.apply([key("sk-a")], (), False)
    assert set(one._entries).isdisjoint(two._entries)
    assert hashlib.sha256(b"sk-a").digest() not in one._entries


def test_before_any_config_nobody_is_let_in() -> None:
    made = Callers(SECRET, lambda: NOON)
    assert refusal(lambda: made.identify(["tok"], "127.0.0.1"))[0] is ErrorKind.INVALID_KEY
    assert made.is_open("127.0.0.1") is False
    assert made.is_open("no address") is False
    assert made.is_open(None) is False


def test_a_token_that_is_no_text_is_told_apart_all_the_same() -> None:
    known = callers(direct=True)
    assert known.identify(["\ud800"], None).id != known.identify(["\udfff"], None).id


def test_what_the_ledger_keeps_of_keys() -> None:
    spec = key(
        "sk-a",
        name="team-a",
        models=("m-*",),
        max_tokens=1,
        max_prompt_tokens=2,
        max_completion_tokens=3,
        active_days=4,
        created_at=NOON,
        expires_at=NOON + timedelta(days=1),
    )
    digest, stamp = hashlib.sha256(b"sk-a").hexdigest(), NOON.timestamp()
    records = key_records([spec, key("sk-b"), KeySpec(name="anonymous"), KeySpec(name="nobody"), KeySpec()])
    assert [msgspec.structs.astuple(record) for record in records] == [
        (digest, "team-a", '["m-*"]', 1, 2, 3, 4, stamp, stamp + 86400, None),
        (hashlib.sha256(b"sk-b").hexdigest(), "key-2", '["*"]', *[None] * 7),
        ("anonymous", "anonymous", '["*"]', *[None] * 7),
    ]


def test_a_caller_is_found_again_by_its_id_whatever_became_of_its_key() -> None:
    known = callers(key("sk-a", name="a"), KeySpec(name="anonymous", rpm=3))
    owner = known.identify(["sk-a"], None)
    assert known.known(owner.id) is owner
    assert known.known("anonymous").spec == KeySpec(name="anonymous", rpm=3)
    gone = known.known("f" * 64)
    assert (gone.id, gone.name, gone.spec) == ("f" * 64, "", None)
