"""What a client asks for, the same whichever of the three generating endpoints it came through."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec

from windtunnel.endpoint import bodies, forms
from windtunnel.endpoint.bodies import (
    UNSUPPORTED,
    BadBody,
    ChatBody,
    CompletionBody,
    Item,
    ResponseBody,
    Several,
)
from windtunnel.endpoint.images import Image, images_in
from windtunnel.endpoint.instance import Schema
from windtunnel.endpoint.policy import Message
from windtunnel.endpoint.text import LETTERS_PER_TOKEN

COMPLETION_TOKENS = 16
"""Tokens of a completion whose body does not say: OpenAI's default, and vLLM's."""
GREEDY_BELOW = 1e-5
"""Temperatures that vLLM takes for 0 (``_SAMPLING_EPS``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request to generate, understood.

    Attributes:
        model: empty where the client leaves it out.
        prompt: all the text that the model reads, as one string that begins equal where prompts begin equal.
        max_tokens: 0 when the client leaves it to the model. exact: ignore_eos, so exactly max_tokens.
        prompt_tokens: where the prompt came as token ids. chat: the messages are turns, not a text to go on with.
        n: how many answers are wanted. seed: of the first of them, each next one has the next seed, as in vLLM.
        greedy: temperature 0, so the seed says nothing. options: texts one of which is the whole answer.
        min_tokens: a plain text is at least so long. echo: the prompt stands before the answer.
        silent: one token is computed and not said, as vLLM does where a prompt is only to be repeated.
        keeps_stop: the stop word that ended the answer is part of it. salt: prompts with another share no cache.
    """

    model: str
    messages: tuple[Message, ...]
    prompt: str
    tools: tuple[Mapping[str, object], ...] = ()
    tool_choice: object = None
    schema: Schema | None = None
    max_tokens: int = 0
    exact: bool = False
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    prompt_tokens: int = 0
    chat: bool = True
    images: tuple[Image, ...] = ()
    n: int = 1
    seed: int = 0
    greedy: bool = False
    options: tuple[str, ...] = ()
    min_tokens: int = 0
    echo: bool = False
    silent: bool = False
    keeps_stop: bool = False
    continuous_usage: bool = False
    salt: str = ""

    def draw(self, index: int) -> int:
        """What the ``index``-th answer is drawn by; 0: as without a seed."""
        return 0 if self.greedy else self.seed + index


def chat(raw: bytes, *, native: bool = False) -> Asked:
    """A body of /v1/chat/completions; ``native``: for an engine without token ids. Raises BadBody."""
    body = bodies.read(raw, ChatBody, native=native)
    bodies.refuse_logprobs(body)
    messages = cast("list[Message]", msgspec.to_builtins(body.messages))
    tools = cast("list[Mapping[str, object]]", msgspec.to_builtins(body.tools or []))
    check_choice(body.tool_choice, {tool.function.name for tool in body.tools or ()})
    most = body.max_completion_tokens or body.max_tokens or 0
    return Asked(
        model=body.model or "",
        messages=tuple(messages),
        prompt=rendered(tools, messages),
        tools=tuple(tools),
        tool_choice=body.tool_choice,
        max_tokens=most,
        images=images_in(messages),
        **_several(body, most),
    )


def completions(raw: bytes, *, native: bool = False) -> list[Asked]:
    """A body of /v1/completions, prompt by prompt; ``native``: see ``chat``. Raises BadBody."""
    body = bodies.read(raw, CompletionBody, native=native)
    bodies.refuse_logprobs(body)
    prompts = [body.prompt]
    if isinstance(body.prompt, list) and bodies.token_ids(body.prompt) is None:
        prompts = body.prompt
    choices = len(prompts) * (body.n or 1)
    if native and choices > bodies.CHOICES_MAX:
        raise BadBody(
            f"{len(prompts)} prompts of {body.n or 1} choices are {choices}: at most {bodies.CHOICES_MAX} at once",
            "prompt",
        )
    wanted = [_completion(body, prompt, native=native) for prompt in prompts]
    return wanted if body.seed is not None else _apart(wanted)


def _apart(wanted: Sequence[Asked]) -> list[Asked]:
    """The same prompt again is answered by the next seeds, as answers without a seed differ."""
    times: Counter[str] = Counter()
    found = []
    for one in wanted:
        found.append(replace(one, seed=times[one.prompt]))
        times[one.prompt] += one.n
    return found


def _completion(body: CompletionBody, prompt: object, *, native: bool) -> Asked:
    ids = bodies.token_ids(prompt)
    if ids is not None and body.echo and native:
        raise BadBody(
            "echo: the native engine has no tokenizer to turn token ids into a text; send the prompt as text, "
            "or take --engine vllm", "echo", code=UNSUPPORTED,
        )  # fmt: skip
    if ids is not None:
        prompt = "".join(f"{token & 0xFFFF:04x}" for token in ids)
    if not isinstance(prompt, str) or not prompt:
        raise BadBody("prompt must be a text, a list of token ids, or a list of either", "prompt")
    if body.max_tokens == 0 and not body.echo:
        raise BadBody("max_tokens must be at least 1 where the prompt is not repeated (`echo`)", "max_tokens")
    silent = body.max_tokens == 0
    most = 1 if silent else body.max_tokens or COMPLETION_TOKENS
    return Asked(
        model=body.model or "",
        messages=({"role": "user", "content": prompt},),
        prompt=prompt,
        max_tokens=most,
        prompt_tokens=len(ids or ()),
        chat=False,
        echo=bool(body.echo),
        silent=silent,
        **_several(body, most),
    )


def response(raw: bytes, *, native: bool = False) -> Asked:
    """A body of /v1/responses, as the chat it stands for; ``native``: see ``chat``. Raises BadBody."""
    body = bodies.read(raw, ResponseBody, native=native)
    bodies.refuse_logprobs(body)
    if body.previous_response_id:
        raise BadBody(
            f"no response `{body.previous_response_id}` is kept here: send the whole conversation as input",
            "previous_response_id",
            code="response_not_found",
            status=404,
        )
    messages = _items(body.input)
    if body.instructions is not None:
        messages = [{"role": "system", "content": body.instructions}, *messages]
    functions = [tool for tool in body.tools or () if tool.get("type") == "function"]
    tools = [{"type": "function", "function": tool} for tool in functions]
    choice: object = body.tool_choice
    if isinstance(choice, dict) and "name" in choice:
        choice = {"type": "function", "function": {"name": choice["name"]}}
    check_choice(choice, {str(tool.get("name")) for tool in functions})
    most = body.max_output_tokens or 0
    return Asked(
        model=body.model or "",
        messages=tuple(messages),
        prompt=rendered(tools, messages),
        tools=tuple(tools),
        tool_choice=choice,
        schema=forms.schema(body.text.format if body.text else None),
        max_tokens=most,
        exact=bool(most and body.ignore_eos),
        stream=bool(body.stream),
        images=images_in(messages),
        salt=body.cache_salt or "",
    )


def check_choice(choice: object, names: Collection[str]) -> None:
    """Raises BadBody for a call that cannot be made."""
    if choice == "required" and not names:
        raise BadBody("tool_choice: `required` needs tools", "tool_choice")
    if isinstance(choice, Mapping) and choice.get("type", "function") == "function":
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if name not in names:
            raise BadBody(f"tool_choice: no tool is called `{name}`", "tool_choice")


def rendered(tools: Sequence[Mapping[str, object]], messages: Sequence[Message]) -> str:
    """As chat templates put it: tools, then turns."""
    shown: list[Message] = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            parts = [_without_picture(cast("Mapping[str, Any]", part)) for part in content]
            message = {**message, "content": parts}
        shown.append(message)
    return json.dumps([list(tools), shown], ensure_ascii=False, sort_keys=True)


def _without_picture(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A picture's place is taken by as much text as its tokens are, the same for the same picture."""
    (picture,) = images_in([{"content": [part]}]) or (None,)
    if picture is None:
        return part
    mark = hashlib.blake2b(str(part.get("image_url")).encode("utf-8", "surrogatepass")).hexdigest()
    letters = picture.tokens() * LETTERS_PER_TOKEN
    return {"type": "image", "image": (mark * (letters // len(mark) + 1))[:letters]}


def _several(body: Several, most: int) -> dict[str, Any]:
    """What the chat and the completion endpoint read alike; ``most``: tokens of an answer. Raises BadBody."""
    options = body.stream_options or bodies.StreamOptions()
    greedy = body.temperature is not None and body.temperature < GREEDY_BELOW
    if greedy and (body.n or 1) > 1:
        raise BadBody(
            f"n must be 1 where temperature is 0: all {body.n} answers would be the same; raise the temperature",
            "n",
        )
    least = body.min_tokens or 0
    if most and least > most:
        raise BadBody(f"min_tokens {least} is above the most tokens, {most}", "min_tokens")
    return {
        "exact": bool(most) and (bool(body.ignore_eos) or least >= most),
        "min_tokens": least,
        "schema": forms.schema(body.response_format) or forms.structured(body.structured_outputs),
        "options": forms.options(body.structured_outputs),
        "stop": _stop(body.stop),
        "keeps_stop": bool(body.include_stop_str_in_output),
        "stream": bool(body.stream),
        "include_usage": bool(options.include_usage),
        "continuous_usage": bool(options.include_usage and options.continuous_usage_stats),
        "n": body.n or 1,
        "seed": body.seed or 0,
        "greedy": greedy,
        "salt": body.cache_salt or "",
    }


def _stop(given: str | list[str] | None) -> tuple[str, ...]:
    return tuple(filter(None, [given] if isinstance(given, str) else given or ()))


def _items(given: str | list[Item]) -> list[Message]:
    """Messages of a responses input: a text, or a list of messages, calls and their outputs."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[Message] = []
    for item in given:
        if item.type == "function_call":
            function = {"name": item.name or "", "arguments": item.arguments or ""}
            call = {"id": item.call_id or "", "type": "function", "function": function}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif item.type == "function_call_output":
            messages.append({"role": "tool", "content": item.output})
        elif item.type == "message":
            messages.append({"role": item.role, "content": item.content})
    return messages
