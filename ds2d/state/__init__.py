"""What the daemon remembers: accounts and their queue, upstreams, callers, stored answers. One owner each; no sockets."""
