"""The way out: HTTP to upstreams, and what systemd passes to a service."""
