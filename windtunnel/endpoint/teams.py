"""How teams of agents talk: the conventions of AutoGen, Agent Framework and CrewAI that a model must follow.

Each function reads one convention off the conversation, and answers None (or False) where it is not in play.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from windtunnel.endpoint.conversation import Conversation
from windtunnel.endpoint.instance import Schema, instance
from windtunnel.endpoint.text import words

TURNS_BEFORE_END, TEXTS_BEFORE_END = 6, 2
"""A conversation ends after so many turns of all, or so many texts of the agent that may end it."""
LEDGER_ROUNDS = 4
HAND_OFF = ("transfer_to_", "handoff_to_")
_PARTICIPANTS = re.compile(r"select the next (?:role|speaker) from \[([^\]]*)\]", re.IGNORECASE)
_SPEAKERS = re.compile(r"select from:\s*([^)\n]+)\)", re.IGNORECASE)
_COWORKERS = re.compile(r"following coworkers:\s*([^\n]+)", re.IGNORECASE)
_LAST_WORD = re.compile(r"\b(TERMINATE|APPROVED?|TASK_COMPLETE|DONE)\b")
_NAMED_TOOLS = re.compile(r"only one name of \[([^\]]+)\]")
_CODE = re.compile(r"```(?:python|sh|bash)|(?:python|code) (?:code )?blocks?\b", re.IGNORECASE)
SATISFIED, SPEAKER = "is_request_satisfied", "next_speaker"


def structure(talk: Conversation, schema: Schema | None, length: int) -> str | None:
    """An instance of the schema that was asked for, as JSON."""
    if schema is None:
        return None
    return json.dumps(
        _filled(instance(schema, talk.topic, talk.draw), schema, talk, length), ensure_ascii=False
    )


def _filled(value: object, schema: Schema, talk: Conversation, length: int) -> object:
    """One text of about the wanted length in place of the longest field of a structured report."""
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, Mapping):
        return value
    texts = [name for name, part in value.items() if isinstance(part, str) and part.endswith(talk.topic)]
    long = [
        name
        for name in texts
        if re.search(r"summary|report|plan|content|text|answer", name) and _free(properties.get(name))
    ]
    for name in long[:1]:
        value[name] = words(max(8, length), talk.seed)
    return value


def _free(schema: object) -> bool:
    """Whether any text will do."""
    bound = ("maxLength", "pattern", "enum", "const", "format")
    return isinstance(schema, Mapping) and not any(name in schema for name in bound)


def ledger(talk: Conversation, schema: Schema | None, length: int) -> str | None:
    """A progress ledger (MagenticOne): who is next with what, and satisfied after some rounds."""
    asked = SATISFIED in json.dumps(schema) if schema is not None else SATISFIED in talk.last
    if not asked:
        return None
    found = _SPEAKERS.search(talk.whole)
    names = [name.strip(" '\"") for name in found.group(1).split(",")] if found else []
    turn = talk.count("assistant")
    reason = words(max(6, min(40, length // 4)), talk.seed)
    entries: dict[str, object] = {
        SATISFIED: turn >= LEDGER_ROUNDS,
        "is_in_loop": False,
        "is_progress_being_made": True,
        SPEAKER: names[turn % len(names)] if names else "",
        "instruction_or_question": words(max(8, min(60, length // 3)), talk.seed + "?"),
    }
    said = {name: {"reason": reason, "answer": value} for name, value in entries.items()}
    return json.dumps(said if schema is None else _laid_over(instance(schema, talk.topic), said))


def _laid_over(value: object, said: Mapping[str, Mapping[str, object]]) -> object:
    """What the schema wants, with the ledger's answers wherever it has a place of their type."""
    if not isinstance(value, dict):
        return value
    for name, entry in said.items():
        place = value.get(name)
        if isinstance(place, dict) and type(place.get("answer")) is type(entry["answer"]):
            place["answer"] = entry["answer"]
            if "reason" in place:
                place["reason"] = entry["reason"]
    return value


def next_speaker(talk: Conversation) -> str | None:
    """One participant's name where a selector asks for it: whoever spoke least so far."""
    found = _PARTICIPANTS.search(talk.whole)
    if not found:
        return None
    names = [name.strip(" '\"") for name in found.group(1).split(",") if name.strip(" '\"")]
    spoken = [len(re.findall(rf"^{re.escape(name)}:", talk.whole, re.MULTILINE)) for name in names]
    return names[spoken.index(min(spoken))] if names else None


def hands_off(name: str) -> bool:
    """Whether a tool passes the conversation on to another agent."""
    return name.startswith(HAND_OFF)


def hand_off(talk: Conversation, names: Sequence[str]) -> str | None:
    """The hand-off whose receiver had the floor least; none once all had it."""
    if not names:
        return None
    made = [name for name, _ in talk.calls]

    def had(name: str) -> int:
        receiver = name.removeprefix("transfer_to_").removeprefix("handoff_to_")
        return made.count(name) + len(re.findall(rf"ransferred to {re.escape(receiver)}\b", talk.whole))

    name = min(names, key=lambda one: (had(one), names.index(one)))
    return name if not had(name) else None


def delegates(function: Mapping[str, object]) -> bool:
    """Whether a tool gives work to a coworker (CrewAI's manager)."""
    return _COWORKERS.search(str(function.get("description"))) is not None


def coworkers(function: Mapping[str, object]) -> list[str]:
    """Whom a tool can give work to."""
    found = _COWORKERS.search(str(function.get("description")))
    names = [name.strip(" '\"[]") for name in found.group(1).split(",")] if found else []
    return [name for name in names if name]


def coworker(talk: Conversation, function: Mapping[str, object]) -> str | None:
    """The first coworker who was given nothing yet."""
    given = " ".join(arguments for _, arguments in talk.calls)
    free = [n for n in coworkers(function) if json.dumps(n, ensure_ascii=False) not in given]
    return free[0] if free else None


def written_call(talk: Conversation) -> str | None:
    """A tool call in words (ReAct), where tools are described in the prompt and none was used yet."""
    found = _NAMED_TOOLS.search(talk.whole)
    if not found or any("Observation:" in text for text in talk.texts[1:]):
        return None
    name = found.group(1).split(",")[0].strip(" '\"")
    fields = re.search(r"Tool Arguments:\s*(\{.*?\})\s*(?:\n|$)", talk.whole)
    named = re.findall(r"['\"](\w+)['\"]\s*:\s*\{", fields.group(1)) if fields else []
    skipped = ("properties", "required", "type", "title", "description")
    given = {field: talk.topic for field in named if field not in skipped}
    arguments = json.dumps(given or {"query": talk.topic}, ensure_ascii=False)
    return f"Thought: I should look this up.\nAction: {name}\nAction Input: {arguments}"


def final(talk: Conversation) -> bool:
    """Whether the final answer must be marked as such."""
    return "Final Answer:" in talk.whole


def wants_code(talk: Conversation) -> bool:
    """Whether the agent writes programs, and its last one is not the thing to speak of."""
    return bool(_CODE.search(talk.system)) and not talk.own_texts % 2


def program(talk: Conversation) -> str:
    """A small program that runs anywhere: it sums up the figures that the task names."""
    figures = re.findall(r"\b\d+(?:\.\d+)?\b", talk.whole[-4000:])[:8] or ["1", "2", "3"]
    listed = ", ".join(str(float(figure)) for figure in figures)
    lines = [
        f"figures = [{listed}]",
        "mean = sum(figures) / len(figures)",
        'print(f"{len(figures)} figures, mean {mean:.3f}, largest {max(figures):g}")',
    ]
    return "```python\n" + "\n".join(lines) + "\n```"


def last_word(talk: Conversation) -> str | None:
    """The word that ends the conversation, where the agent may say it and enough was said."""
    word = _LAST_WORD.search(talk.system)
    enough = talk.count("assistant", "user") >= TURNS_BEFORE_END or talk.own_texts >= TEXTS_BEFORE_END
    return word.group(1) if word and enough else None
