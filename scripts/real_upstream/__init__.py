"""A real vLLM for tests: its environment, its model and how it is started."""
