"""The daemon put together: owners built, routes wired, started and stopped.

Rule: this package and the command line are the only ones that know everything. `daemon` owns what lives as long as the process,
`listener` the port, `routes` says which handler has what, `toolbox` is what the service needs of the world.
"""

from ds2d.app.daemon import QUIET_SECONDS, Daemon

__all__ = ["QUIET_SECONDS", "Daemon"]
