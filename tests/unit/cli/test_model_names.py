"""What the command line takes for a model: classes of transformers, and files as editors save them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windtunnel.cli.fit_model import find_model

pytest.importorskip("transformers")


@pytest.mark.parametrize("word", ["qwen3", "Qwen3Config", "Qwen3ForCausalLM"])
def test_a_class_is_its_configuration(word: str) -> None:
    assert find_model(word) == find_model("qwen3")
    assert find_model("Qwen3VLForConditionalGeneration").vision is not None


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 2, "num_attention_heads": 28,
        "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064,
    }  # fmt: skip
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "config.json").write_text(json.dumps(config), encoding=encoding)
        assert find_model(str(tmp_path)).hidden == 3584
