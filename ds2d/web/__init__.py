"""The way in: routes, handlers, and the bounds on what clients send."""
