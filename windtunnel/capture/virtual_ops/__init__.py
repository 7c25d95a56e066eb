"""Kernels that PyTorch does not have and real deployments import, as operators of the card.

Each has a schema, a shape function, a reference on the CPU (values mode) and a gradient; its cost follows
from its name (``program/kernels.py``). ``packages/`` offers them under the names that people import.
"""
