"""Digits-VQA: questions about pictures of two digits, for a small Qwen3-VL."""
