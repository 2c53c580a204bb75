"""How a whole part of the tests says that it did not run here: skip with this before the reason (see conftest.py)."""

NOT_TESTED = "NOT TESTED: "
