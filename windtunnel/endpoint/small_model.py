"""The process behind ``speaker``: a transformers model on the virtual card, with data (values mode).

Lines of JSON: what to load as the argument, then a request a line on stdin and an answer a line on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

CARD = "cuda"


class SmallModel:
    """A causal language model of ``folder`` on the card."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # they would stand among our own lines
        # neither asks a hub: the folder has it all, or it is an error
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
        self._model = model.to(CARD).eval()
        self._torch = torch
        self._most = int(getattr(model.config.get_text_config(), "max_position_embeddings", 2048))
        self.parameters = sum(parameter.numel() for parameter in model.parameters())

    def say(self, messages: Sequence[Mapping[str, Any]], tokens: int, chat: bool, draw: int) -> str:
        """Generate as the folder's generation configuration says; the same request and draw, the same answer."""
        tokens = max(1, min(tokens, self._most // 2))
        ids = self._tokenizer(self._prompt(messages, chat), return_tensors="pt")["input_ids"]
        ids = ids[:, -(self._most - tokens) :]
        self._torch.manual_seed(zlib.crc32(ids.numpy().tobytes()) ^ (draw & ~(-1 << 63)))
        on_card = ids.to(CARD)
        with self._torch.no_grad():
            out = self._model.generate(
                on_card, attention_mask=self._torch.ones_like(on_card), max_new_tokens=tokens
            )
        new = out[0].cpu()[ids.shape[1] :]
        text: str = self._tokenizer.decode(new, skip_special_tokens=True)
        return text

    def _prompt(self, messages: Sequence[Mapping[str, Any]], chat: bool) -> str:
        if chat and self._tokenizer.chat_template:
            text: str = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
            return text
        return "\n".join(str(message.get("content") or "") for message in messages)


def main(told: Mapping[str, Any]) -> int:
    """Load, say so, answer until stdin ends."""
    from windtunnel.capture.cuda_names import CudaNames
    from windtunnel.capture.session import Session
    from windtunnel.endpoint.vllm import settings, stand_ins
    from windtunnel.specs.targets import parse_target

    if settings.asked_for():  # beside vLLM: transformers imports the same torchvision
        stand_ins.install()
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print is no answer
    chip = parse_target(told["on"], told["overrides"], [Path(one) for one in told["chips"]])[0].chip
    with ExitStack() as stack:
        session = stack.enter_context(Session(chip, "values"))
        stack.enter_context(CudaNames(session))
        session.recorder.paused = True  # only the values are wanted
        session.recorder.ledger.keeps = False
        try:
            model = SmallModel(Path(told["folder"]))
        except Exception as error:  # whatever transformers has against the folder
            print(json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}), file=answers)
            return 2
        print(json.dumps({"ready": f"{model.parameters:,} parameters, {chip.title}"}), file=answers)
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                told_back = {
                    "text": model.say(asked["messages"], asked["tokens"], asked["chat"], asked["draw"])
                }
            except Exception as error:  # one bad request must not end the endpoint
                told_back = {"error": f"{type(error).__name__}: {error}"[:500]}
            print(json.dumps(told_back), file=answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
