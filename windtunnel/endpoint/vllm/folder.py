"""A model folder that vLLM can open without any download: configuration, tokenizer, chat template. No weights.

The tokenizer is trained in seconds on texts of the machine's own Python (a byte-level BPE), unless the user brings
one: token counts are then right for plain English, not those of the model's own vocabulary.
"""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from windtunnel.endpoint.vllm.dialects import MARKS
from windtunnel.errors import WindtunnelError
from windtunnel.specs.model_catalogue import is_shipped, shipped_config

VOCABULARY = 16_384
LONGEST = 1 << 18
"""Positions where a configuration does not say: what current models take."""
VISION = "windtunnel_vision_config"
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_5_text": "Qwen3_5ForCausalLM",
    "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM",
}
"""Text classes that vLLM 0.29 to 0.33 have for the model types whose cache is known here (``cache_specs``)."""
# switches of the published configurations that are no sizes and so are not kept with the shipped models
_DEFAULTS: dict[str, dict[str, object]] = {
    "deepseek_v3": {"topk_method": "noaux_tc", "scoring_func": "sigmoid", "n_group": 8, "topk_group": 4},
    "qwen3_5_text": {"mamba_ssm_dtype": "float32"},
    "qwen3_5_moe_text": {"mamba_ssm_dtype": "float32"},
}
TEMPLATE = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content if m.content is string else (m.content | tojson if m.content else '') }}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make(folder: Path, model: str, tokenizer: Path | None = None) -> Path:
    """Write the folder for a shipped model or a config.json; ``tokenizer``: a folder to take it from.

    Raises:
        WindtunnelError: E302, E306: no such model; E661, vLLM's plugin knows no cache for its type.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = configuration(model)
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    if tokenizer is not None:
        for file in sorted(tokenizer.glob("*")):
            if file.name != "config.json" and file.suffix in (".json", ".jinja", ".model", ".txt"):
                (folder / file.name).write_bytes(file.read_bytes())
    elif not _trained(folder / "tokenizer.json"):
        train_tokenizer(folder, int(cast("int", config["vocab_size"])))
    return folder


def configuration(model: str) -> dict[str, object]:
    """The text model's config.json with what vLLM needs beside the sizes. Raises E302, E306, E661."""
    whole = dict(shipped_config(model) if is_shipped(model) else _from_file(Path(model)))
    text = dict(cast("Mapping[str, object]", whole.get("text_config") or whole))
    family = str(text.get("model_type", ""))
    if family in ("qwen3_5", "qwen3_5_moe"):
        family += "_text"
    if family not in ARCHITECTURES:
        raise WindtunnelError(
            "E661",
            f"--engine vllm knows no cache for the model type `{family}`",
            hint="serve it with --engine native; known: " + ", ".join(ARCHITECTURES),
            values={"model": model},
        )
    text |= {
        "model_type": "deepseek_v3" if family == "kimi_k2" else family,
        "architectures": [ARCHITECTURES[family]],
        "torch_dtype": text.get("torch_dtype", "bfloat16"),
        "tie_word_embeddings": whole.get("tie_word_embeddings", text.get("tie_word_embeddings", False)),
    }
    # vLLM is shown the text model; what pictures cost is priced from the tower, whose sizes stay here
    if "vision_config" in whole:
        text[VISION] = whole["vision_config"]
    text.pop("quantization_config", None)  # no kernel is registered for it: the precision is ours to price
    text.setdefault("max_position_embeddings", LONGEST)
    return _DEFAULTS.get(family, {}) | text


def _from_file(path: Path) -> dict[str, object]:
    path = path / "config.json" if path.is_dir() else path
    try:
        content: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WindtunnelError(
            "E306",
            f"the model configuration {path} cannot be read: {error}",
            hint="give a config.json as checkpoints carry it, or the name of a shipped model",
            values={"path": str(path)},
        ) from None
    return content


def _trained(file: Path) -> bool:
    """Whether the tokenizer there is one of ours, with all that parsers look for."""
    if not file.exists():
        return False
    added = json.loads(file.read_text(encoding="utf-8")).get("added_tokens", ())
    return set(MARKS) <= {token["content"] for token in added}


def train_tokenizer(folder: Path, most: int) -> None:
    """A byte-level BPE of at most ``most`` tokens, with our chat template, into ``folder``."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=min(VOCABULARY, most) - len(MARKS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [_ascii(file) for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": TEMPLATE,
        "model_max_length": LONGEST,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")


def _ascii(file: Path) -> str:
    """Its plain letters only, so that every token of the vocabulary is whole in itself."""
    return file.read_text(encoding="utf-8", errors="ignore").encode("ascii", "ignore").decode()
