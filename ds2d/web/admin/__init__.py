"""The admin API: one table of routes, one check for all of them, every write through the config's one door."""
