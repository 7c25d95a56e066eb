"""What JSON Schema cannot say of a body, so that schemathesis does not take it for valid: fields that fit one another.

A tool that is called has to be among the tools, and prompts times `n` are bounded (`tests/unit/endpoint` has both).
"""

from __future__ import annotations

from typing import Any

import schemathesis

CHOICES_MAX = 1024


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Whether the fields of a body fit one another, as far as they are read at all."""
    body = case.body
    return not isinstance(body, dict) or (_callable(body) and _choices(body) <= CHOICES_MAX)


def _callable(body: dict[str, Any]) -> bool:
    choice, tools = body.get("tool_choice"), body.get("tools")
    tools = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    names = [
        (tool["function"] if isinstance(tool.get("function"), dict) else tool).get("name") for tool in tools
    ]
    if choice == "required":
        return any(isinstance(name, str) for name in names)
    if not isinstance(choice, dict) or choice.get("type", "function") != "function":
        return True
    wanted = choice.get("function")
    wanted = wanted if isinstance(wanted, dict) else choice  # as /v1/responses writes it
    return wanted.get("name") is not None and wanted["name"] in names


def _choices(body: dict[str, Any]) -> int:
    prompts, number = body.get("prompt"), body.get("n")
    prompts = len(prompts) if isinstance(prompts, list) else 1
    return prompts * (
        int(number) if isinstance(number, (int, float)) and number > 1 else 1
    )  # 49.0 is an integer there
