"""What every test shares: how hypothesis runs, and the plugin that brings a real model server."""

from hypothesis import settings

pytest_plugins = ["tests.functional.real_upstream"]

# A deadline measures the machine, not the code; a failure prints what reproduces it.
settings.register_profile("ds2d", deadline=None, print_blob=True)
settings.load_profile("ds2d")
