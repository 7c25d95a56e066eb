"""Windtunnel: a virtual accelerator and cluster for PyTorch."""

__version__ = "0.1.0"
