"""What JSON Schema cannot say of a body, so that schemathesis does not take it for valid: fields that fit one another.

A tool that is called has to be among the tools, prompts times `n` are bounded, at temperature 0 there is one answer,
`min_tokens` are not more than the most tokens, token ids are not repeated as text, a form is whole.
"""

from __future__ import annotations

import re
from typing import Any

import schemathesis

CHOICES_MAX = 1024


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Whether the fields of a body fit one another, as far as they are read at all."""
    body = case.body
    if not isinstance(body, dict):
        return True
    fit = _callable(body) and _choices(body) <= CHOICES_MAX and _sampled(body)
    return fit and _formed(body) and not _ids_repeated(body)


def _formed(body: dict[str, Any]) -> bool:
    """A schema is there where one is asked for; texts drawn by chance are no JSON, and few are regular expressions."""
    text, structured = body.get("text"), body.get("structured_outputs")
    forms = [body.get("response_format"), text.get("format") if isinstance(text, dict) else None]
    for form in forms:
        wants = isinstance(form, dict) and form.get("type") == "json_schema"
        if wants and form.get("json_schema") is None and form.get("schema") is None:
            return False
    if not isinstance(structured, dict):
        return True
    plain = re.fullmatch(r"[\w ]*", str(structured.get("regex") or ""))
    return plain is not None and not isinstance(structured.get("json"), str)


def _sampled(body: dict[str, Any]) -> bool:
    heat, number, least = body.get("temperature"), body.get("n"), body.get("min_tokens")
    several = isinstance(number, (int, float)) and number > 1
    if several and isinstance(heat, (int, float)) and heat < 1e-5:
        return False
    if body.get("max_tokens") == 0 and "prompt" in body and not body.get("echo"):
        return False
    most = body.get("max_completion_tokens") or body.get("max_tokens") or (16 if "prompt" in body else None)
    return not (isinstance(least, (int, float)) and isinstance(most, (int, float)) and least > most)


def _ids_repeated(body: dict[str, Any]) -> bool:
    prompt = body.get("prompt")
    return (
        bool(body.get("echo"))
        and isinstance(prompt, list)
        and not all(isinstance(one, str) for one in prompt)
    )


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
