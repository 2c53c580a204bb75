"""The vocabulary: what every other layer is written in (ARCHITECTURE.md)."""
