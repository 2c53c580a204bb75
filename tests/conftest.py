"""Fixtures that every test may use; the real model server comes from tests/functional/real_upstream.py."""
