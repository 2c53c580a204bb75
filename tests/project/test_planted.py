"""The watch over secrets in output sees them, and a test that lets one out fails."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.planted import found_in

pytest_plugins = ["pytester"]

SECRET = f"sk-planted-{secrets.token_hex(5)}"
"""Another one each time: no other test of this process has it in a config."""


def test_a_secret_of_a_config_is_known_at_once() -> None:
    from ds2d.core.settings import Secret  # noqa: PLC0415 - as late as a config is read

    assert found_in(f"x {SECRET} y") == []
    Secret(SECRET)
    assert found_in(f"x {SECRET} y") == ["sk-p… (21 characters)"]
    assert found_in("nothing") == []


def test_tests_that_let_a_secret_out_fail(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they print and by any log line, also one that would not be shown."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pytester.makepyfile(
        """
        import logging, sys
        from ds2d.core.settings import Secret

        secret = "sk-planted-" + "abcdefghij"
        Secret(secret)

        def test_printed(): print(secret)
        def test_written(): sys.stderr.write(secret)
        def test_logged(): logging.getLogger("ds2d.x").debug("key %s", secret)
        def test_kept(): print("nothing")
        """
    )
    pytester.makeini("[pytest]\nasyncio_mode=auto\nasyncio_default_fixture_loop_scope=function")
    result = pytester.runpytest_subprocess("-p", "tests.output", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*a planted secret came out*"])
    result.assert_outcomes(passed=1, failed=3)
