"""How a model writes its calls: what vLLM's ``--tool-call-parser`` of each family reads (0.33's parsers).

One dialect a parser; where vLLM is started with another parser than these, calls are written as ``hermes`` reads
them, and that parser will take them for text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from windtunnel.endpoint.policy import Answer, ToolCall

DEFAULT = "hermes"
DEEPSEEK = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
)
KIMI = (
    "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_end|>",
    "<|tool_call_argument_begin|>",
)  # fmt: skip
LLAMA = ("<|python_tag|>",)
MARKS = (*DEEPSEEK, *KIMI, *LLAMA)
"""Tokens that parsers look for in the vocabulary, each one token in the model's own."""


def written(answer: Answer, parser: str) -> str:
    """The answer as a model writes it whose calls that parser reads."""
    if not answer.calls:
        return answer.text
    calls = DIALECTS.get(parser, DIALECTS[DEFAULT])(answer.calls)
    return "\n".join([answer.text, calls]) if answer.text else calls


def _hermes(calls: Sequence[ToolCall]) -> str:
    bodies = (_named(call, "arguments") for call in calls)
    return "\n".join(f"<tool_call>\n{body}\n</tool_call>" for body in bodies)


def _qwen3_coder(calls: Sequence[ToolCall]) -> str:
    return "\n".join(
        f"<tool_call>\n<function={call.name}>\n{_parameters(call)}</function>\n</tool_call>" for call in calls
    )


def _parameters(call: ToolCall) -> str:
    """Texts as they are, all else as JSON: the parser asks the schema which it was."""
    said = ""
    for name, value in json.loads(call.arguments).items():
        said += f"<parameter={name}>\n{value if isinstance(value, str) else _dumped(value)}\n</parameter>\n"
    return said


def _llama3_json(calls: Sequence[ToolCall]) -> str:
    return "; ".join(_named(call, "parameters") for call in calls)


def _deepseek_v3(calls: Sequence[ToolCall]) -> str:
    begin, end, call_begin, call_end, separator = DEEPSEEK
    bodies = (
        f"{call_begin}function{separator}{call.name}\n```json\n{_dumped(json.loads(call.arguments))}\n```{call_end}"
        for call in calls
    )
    return begin + "\n".join(bodies) + end


def _deepseek_v31(calls: Sequence[ToolCall]) -> str:
    begin, end, call_begin, call_end, separator = DEEPSEEK
    bodies = (
        f"{call_begin}{call.name}{separator}{_dumped(json.loads(call.arguments))}{call_end}" for call in calls
    )
    return begin + "".join(bodies) + end


def _kimi_k2(calls: Sequence[ToolCall]) -> str:
    begin, end, call_begin, call_end, arguments = KIMI
    bodies = (
        f"{call_begin}functions.{call.name}:{number}{arguments}{_dumped(json.loads(call.arguments))}{call_end}"
        for number, call in enumerate(calls)
    )
    return begin + "".join(bodies) + end


def _named(call: ToolCall, arguments: str) -> str:
    return _dumped({"name": call.name, arguments: json.loads(call.arguments)})


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


DIALECTS: dict[str, Callable[[Sequence[ToolCall]], str]] = {
    "hermes": _hermes,
    "qwen3_coder": _qwen3_coder,
    "qwen3_xml": _qwen3_coder,
    "llama3_json": _llama3_json,
    "llama4_json": _llama3_json,
    "deepseek_v3": _deepseek_v3,
    "deepseek_v31": _deepseek_v31,
    "kimi_k2": _kimi_k2,
}
