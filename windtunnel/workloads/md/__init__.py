"""Molecular dynamics in plain PyTorch, and what a step of it costs on a chip."""
