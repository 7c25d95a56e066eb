"""Writes the small tokenizer and text that TorchTitan's wheel leaves out, where its configurations look."""

import json
import random
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

folder = Path(sys.argv[1]) / "tests" / "assets"
draw = random.Random(0)
words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 8))) for _ in range(1500)]
vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *dict.fromkeys(words)])}
tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
pictures = ["image_pad", "video_pad", "vision_start", "vision_end", "endoftext"]
tokenizer.add_special_tokens([f"<|{name}|>" for name in pictures])
(folder / "tokenizer").mkdir(parents=True, exist_ok=True)
tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
special = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "tokenizer_class": "PreTrainedTokenizerFast",
}
(folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(special))
(folder / "c4_test").mkdir(exist_ok=True)
lines = [json.dumps({"text": " ".join(draw.choices(words, k=4000))}) for _ in range(200)]
(folder / "c4_test" / "data.json").write_text("\n".join(lines))
