"""Land-cover maps, buildings and roads from large satellite and aerial images."""

__version__ = "0.1.0"
