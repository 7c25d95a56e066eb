"""What the virtual model says, read by vLLM's own tool parsers, whole and token by token (engines' environment).

Only the parsers are built, with the tokenizer that ``--engine vllm`` trains. Prints the parsers that read everything.
"""

# ruff: noqa: E402  (a stand-in comes before vLLM)
from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.update(
    VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", WINDTUNNEL_ON="mtt-s5000"
)

from windtunnel.endpoint.policy import Answer, ToolCall
from windtunnel.endpoint.vllm import dialects, folder, stand_ins

stand_ins.install()  # importing vLLM must work without a card
from transformers import AutoTokenizer
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.tool_parsers import ToolParserManager

PARAMETERS = {
    "type": "object",
    "properties": {
        "chip": {"type": "string"}, "cards": {"type": "integer"}, "deep": {"type": "object"},
        "all": {"type": "boolean"}, "names": {"type": "array", "items": {"type": "string"}},
    },
}  # fmt: skip
ARGUMENTS = {
    "chip": 'a <b> "c"\nsecond line', "cards": 2, "deep": {"x": [1, None]}, "all": False, "names": ["p", "q"],
}  # fmt: skip
ONE = (ToolCall("price", json.dumps(ARGUMENTS)),)
TWO = (*ONE, ToolCall("search", json.dumps({"chip": "ü"})))
ONE_AND_SILENT = ("llama3_json", "llama4_json")
"""Llama's models write nothing but their call: these parsers stream no second one, and none behind a text."""


def whole(
    name: str, tokenizer: object, said: str, request: ChatCompletionRequest
) -> list[tuple[str, object]]:
    parser = ToolParserManager.get_tool_parser(name)(tokenizer, request.tools)
    found = parser.extract_tool_calls(said, parser.adjust_request(request)).tool_calls
    return [(call.function.name, json.loads(call.function.arguments)) for call in found]


def streamed(
    name: str, tokenizer: object, said: str, request: ChatCompletionRequest
) -> list[tuple[str, object]]:
    parser = ToolParserManager.get_tool_parser(name)(tokenizer, request.tools)
    request = parser.adjust_request(request)
    shown = request.skip_special_tokens is not False
    ids = tokenizer.encode(said, add_special_tokens=False)
    before, told, calls = "", 0, {}
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=shown)
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            continue  # half a letter: an engine waits for the rest
        delta = parser.extract_tool_calls_streaming(
            before, text, text[len(before) :], ids[:told], ids[:end], ids[told:end], request
        )
        before, told = text, end
        for call in (delta.tool_calls if delta else None) or ():
            made = calls.setdefault(call.index, ["", ""])
            made[0] += call.function.name or ""
            made[1] += call.function.arguments or ""
    return [(name, json.loads(arguments)) for name, arguments in calls.values()]


def main() -> None:
    place = Path(tempfile.mkdtemp())
    folder.train_tokenizer(place, 1 << 20)
    tokenizer = AutoTokenizer.from_pretrained(place)
    tools = [
        {"type": "function", "function": {"name": n, "parameters": PARAMETERS}} for n in ("price", "search")
    ]
    for name in dialects.DIALECTS:
        silent = name in ONE_AND_SILENT
        for text, calls in (("", ONE),) if silent else (("", ONE), ("", TWO), ("I look it up.", TWO)):
            request = ChatCompletionRequest(
                model="m", messages=[{"role": "user", "content": "x"}], tools=tools
            )
            said = dialects.written(Answer(text, calls), name)
            wanted = [(call.name, json.loads(call.arguments)) for call in calls]
            assert whole(name, tokenizer, said, request) == wanted, (name, said)
            assert streamed(name, tokenizer, said, request) == wanted, (name, said)
        print("read:", name)


if __name__ == "__main__":
    sys.exit(main())
