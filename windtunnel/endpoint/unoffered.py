"""Fields of bodies that ask for what is not offered: refused, as an answer that leaves them out would mislead.

A field that is absent, null, false or empty asks for nothing. What vLLM refuses itself (`suffix`) is refused in its
sense; `best_of` and `functions`, which it lets through unread, are refused too.
"""

from __future__ import annotations

from collections.abc import Mapping

_NO_SAMPLING = "the model is virtual, no token is sampled and none can be made likelier or kept out"
_TOOLS = "the older form of tool calls is not read; send `tools` and `tool_choice`"
_STRUCTURED = "the older form is not read, by vLLM neither; send `structured_outputs` or `response_format`"
_IDS = "the native engine has no tokenizer, so no token ids; `--engine vllm` has"
NOWHERE = {
    "logit_bias": _NO_SAMPLING,
    "allowed_token_ids": _NO_SAMPLING,
    "bad_words": _NO_SAMPLING,
    "logprob_token_ids": "the model is virtual, its tokens have no probabilities",
    "use_beam_search": "the model is virtual, its tokens have no probabilities to search by",
    "prompt_embeds": "prompts are texts or token ids",
    "suffix": "only models that were trained to fill gaps take it, as in vLLM; none is served here",
    "functions": _TOOLS,
    "function_call": _TOOLS,
    "guided_json": _STRUCTURED,
    "guided_regex": _STRUCTURED,
    "guided_choice": _STRUCTURED,
    "guided_grammar": _STRUCTURED,
    "audio": "answers are texts",
}
"""Not offered with either engine, and why."""
NATIVELY = {
    "stop_token_ids": _IDS,
    "return_token_ids": _IDS,
    "truncate_prompt_tokens": _IDS,
    "return_prompt_text": "the native engine has no chat template; `--engine vllm` has",
    "priority": "requests are served in the order they come in; leave it out",
    "kv_transfer_params": "the native endpoint has no engine to fetch from; `--engine vllm --prefill-cards` has",
    "background": "answers are not kept, so that nobody could ask for them later; stream it, or wait for it",
}
"""Not offered by the native engine, which vLLM reads itself."""
GRAMMARS = ("grammar", "structural_tag")


def unoffered(body: object, *, native: bool) -> tuple[str, str] | None:
    """The first field of a body that asks for what is not offered, and why."""
    if not isinstance(body, Mapping):
        return None
    for field, why in {**NOWHERE, **(NATIVELY if native else {})}.items():
        if body.get(field):
            return field, why
    if native and body.get("echo") and "messages" in body:
        return "echo", "the native engine repeats prompts of /v1/completions only"
    if body.get("best_of") not in (None, body.get("n") or 1):
        return (
            "best_of",
            "no answer is better than another here, and vLLM has no `best_of` either; ask for `n`",
        )
    modalities = body.get("modalities")
    if isinstance(modalities, list) and any(kind != "text" for kind in modalities):
        return "modalities", "answers are texts"
    structured = body.get("structured_outputs")
    if isinstance(structured, Mapping):
        for field in GRAMMARS:
            if structured.get(field):
                return f"structured_outputs.{field}", "not followed; `json`, `regex` and `choice` are"
    return None
