"""ds2d: a gateway between AI clients and DeepSeek models."""

__version__ = "0.1.0"
