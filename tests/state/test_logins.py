"""Tokens of accounts that log in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ds2d.core.account import Account
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import AccountSpec, JsonLogin, OAuth2Login, Secret, UpstreamSpec
from ds2d.state.logins import Logins
from ds2d.upstreams.openai import Token
from tests.state.world import settle

SERVER = UpstreamSpec(name="webui", base_url="http://127.0.0.1:3000/api", login=JsonLogin(url="/signin"))


def account(password: str = "secret", name: str = "a") -> Account:
    spec = AccountSpec(email=f"{name}@example.com", upstream="webui", password=Secret(password))
    return Account(f"account:{name}", name, SERVER, spec)


class Server:
    """Answers logins when told to; counts them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.started = 0
        self.life: float | None = None
        self.fault: GatewayError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.logins = Logins(self.drive, clock=lambda: self.now, wall=lambda: 1e9)

    async def drive(self, steps: Any) -> Token:
        steps.close()
        self.started += 1
        number = self.started
        await self.gate.wait()
        if self.fault:
            raise self.fault
        return Token(f"token {number}", self.life)


async def test_a_token_is_fetched_once_and_kept() -> None:
    server = Server()
    assert [await server.logins.token(account()) for _ in range(3)] == ["token 1"] * 3


async def test_one_login_at_a_time_whoever_needs_it_and_each_account_its_own() -> None:
    server = Server()
    server.gate.clear()
    asks = [asyncio.create_task(server.logins.token(account())) for _ in range(10)]
    other = asyncio.create_task(server.logins.token(account(name="b")))
    await settle()
    server.gate.set()
    assert set(await asyncio.gather(*asks)) == {"token 1"}
    assert await other == "token 2"


async def test_a_refusal_is_shared_and_the_next_request_tries_again() -> None:
    server = Server()
    server.gate.clear()
    server.fault = GatewayError(ErrorKind.UPSTREAM_AUTH, "The upstream refused the account's login.")
    asks = [asyncio.create_task(server.logins.token(account())) for _ in range(5)]
    await settle()
    server.gate.set()
    outcomes = await asyncio.gather(*asks, return_exceptions=True)
    assert all(isinstance(outcome, GatewayError) for outcome in outcomes)
    assert server.started == 1
    server.fault = None
    assert await server.logins.token(account()) == "token 2"


async def test_a_login_goes_on_when_the_request_that_began_it_has_gone() -> None:
    server = Server()
    server.gate.clear()
    gone = asyncio.create_task(server.logins.token(account()))
    await settle()
    gone.cancel()
    await settle()
    server.gate.set()
    assert await server.logins.token(account()) == "token 1"


async def test_a_refused_login_that_nobody_waits_for_is_no_loose_end() -> None:
    server = Server()
    server.gate.clear()
    server.fault = GatewayError(ErrorKind.UPSTREAM_AUTH, "No.")
    gone = asyncio.create_task(server.logins.token(account()))
    await settle()
    gone.cancel()
    server.gate.set()
    await settle()
    assert gone.cancelled()


async def test_a_token_is_renewed_before_it_ends_and_nobody_waits_for_that() -> None:
    server = Server()
    server.life = 600
    await server.logins.token(account())
    server.now = 539
    assert await server.logins.token(account()) == "token 1"
    assert server.started == 1
    server.now = 541
    server.gate.clear()
    assert await server.logins.token(account()) == "token 1"  # still good
    await settle()
    server.gate.set()
    await settle()
    assert await server.logins.token(account()) == "token 2"


async def test_a_token_that_has_ended_is_not_used() -> None:
    server = Server()
    server.life = 10
    await server.logins.token(account())
    server.now = 10
    assert await server.logins.token(account()) == "token 2"


async def test_a_refused_token_is_fetched_anew_once_for_all_who_held_it() -> None:
    server = Server()
    token = await server.logins.token(account())
    assert server.logins.refused(account(), token)
    assert server.logins.refused(account(), token)  # somebody else who held it
    assert await server.logins.token(account()) == "token 2"
    assert server.logins.refused(account(), token)  # somebody late: it was replaced already
    assert await server.logins.token(account()) == "token 2"


async def test_the_second_refusal_in_a_row_is_the_accounts_fault_for_all_who_hear_it() -> None:
    server = Server()
    assert server.logins.refused(account(), await server.logins.token(account()))
    second = await server.logins.token(account())
    assert not server.logins.refused(account(), second)
    assert not server.logins.refused(account(), second)
    server.now = 60
    assert server.logins.refused(account(), await server.logins.token(account()))


async def test_another_password_needs_another_login() -> None:
    server = Server()
    await server.logins.token(account())
    assert await server.logins.token(account("changed")) == "token 2"


async def test_a_given_token_is_sent_as_it_is_and_cannot_be_fetched_anew() -> None:
    server = Server()
    spec = AccountSpec(upstream="webui", token=Secret("given"))
    fixed = Account("account:t", "t", SERVER, spec)
    assert await server.logins.token(fixed) == "given"
    assert not server.logins.refused(fixed, "given")
    plain = Account("upstream:gpu", "gpu", UpstreamSpec(name="gpu", base_url="http://127.0.0.1"))
    assert await server.logins.token(plain) is None
    assert not server.logins.refused(plain, None)
    assert server.started == 0


async def test_a_client_of_its_own_logs_in_without_an_account() -> None:
    server = Server()
    login = OAuth2Login(url="/token", grant="client_credentials", client_id="ds2d", client_secret=Secret("s"))
    sso = UpstreamSpec(name="sso", base_url="http://127.0.0.1:8000/v1", login=login)
    assert await server.logins.token(Account("upstream:sso", "sso", sso)) == "token 1"


async def test_tokens_of_accounts_that_went_are_forgotten() -> None:
    server = Server()
    await server.logins.token(account())
    server.logins.retain(["account:b"])
    assert await server.logins.token(account()) == "token 2"


async def test_closing_ends_what_runs() -> None:
    server = Server()
    server.gate.clear()
    ask = asyncio.create_task(server.logins.token(account()))
    await settle()
    await server.logins.close()
    with pytest.raises(asyncio.CancelledError):
        await ask


async def test_no_log_line_holds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.fault = GatewayError(ErrorKind.UPSTREAM_AUTH, "The upstream refused the account's login.")
    with pytest.raises(GatewayError):
        await server.logins.token(account("hunter2"))
    await settle()
    assert "account a" in caplog.text
    assert "hunter2" not in caplog.text
