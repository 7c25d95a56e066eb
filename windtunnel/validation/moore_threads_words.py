"""Rows of S5000 tables that say in words what was run: the words as numbers. What words do not say stays unknown.

``TP4, exact ISL 4096, OSL 1024, batch 16, full CUDA-graph-style capture, after PR`` is a row of serving;
``PP16 CP2, seq 8192, GBS 64`` one of training. Nothing here looks at measured columns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_COUNT = r"(\d[\d,]*(?:\.\d+)?)\s?(k\b)?"
_PROMPT = (
    rf"\bISL:?\s*{_COUNT}",
    rf"{_COUNT}(?:-token)?\s+(?:input|prompt)",
    rf"\binput\s*(?:of|=)?\s*{_COUNT}",
)
_OUTPUT = (
    rf"\bOSL:?\s*{_COUNT}",
    rf"{_COUNT}(?:-token)?\s+(?:output|generated)",
    rf"\boutput\s*(?:of|=)?\s*{_COUNT}",
)
_PAIR = rf"{_COUNT}\s*(?:in|input)?\s*/\s*{_COUNT}\s*(?:out|output)"
_SEQUENCES = (
    r"\bbatch(?: size)?\s*(?:of|=)?\s*(\d+)",
    r"\bbs\s*=?\s*(\d+)",
    r"(?:max[- ])?concurrency\s*(?:of|=)?\s*(\d+)",
    r"(\d+)\s+concurrent",
    r"(\d+)\s+(?:clients|streams)\b",
)
_SINGLE = r"single (?:request|stream|user)"
_DEGREES = {"tensor": "TP", "pipeline": "PP", "data": "DP", "expert": "EP", "context": "CP"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the words of one row state; 0 and empty: not said.

    Attributes:
        prompt, output: tokens of a request. sequences: clients at once, or sequences in a batch.
        sequence, global_batch, micro_batch, layers: of training.
        drafted: tokens drafted a step. yielded: tokens that a step brings on average.
        graphs: None: not said. model: words that name the model. earlier: the state before a change.
    """

    model: str
    precision: str = ""
    tensor: int = 0
    pipeline: int = 0
    data: int = 0
    expert: int = 0
    context: int = 0
    prompt: int = 0
    output: int = 0
    sequences: int = 0
    sequence: int = 0
    global_batch: int = 0
    micro_batch: int = 0
    layers: int = 0
    drafted: int = 0
    yielded: float = 0.0
    graphs: bool | None = None
    earlier: bool = False


def said(workload: str, configuration: str) -> Said:
    """Read the two texts of a row."""
    both = f"{workload}; {configuration}"
    pair = re.search(_PAIR, both, re.IGNORECASE)
    prompt, output = _tokens(_PROMPT, both), _tokens(_OUTPUT, both)
    if pair and not (prompt and output):
        prompt, output = _count(pair[1], pair[2]), _count(pair[3], pair[4])
    degrees = {name: _whole(rf"\b{short}\s?(\d+)", both) for name, short in _DEGREES.items()}
    drafts = re.search(r"(\d+)\s+(?:draft|speculative)", both) or re.search(r"\bMTP\s*(?:=\s*)?(\d+)", both)
    accepted = re.search(r"(\d+(?:\.\d+)?)\s+tokens per step", both)
    return Said(
        model=re.split(r",|\(|;| BF16| FP8| FP16", workload)[0].strip(),
        precision=_precision(both),
        **degrees,
        prompt=prompt,
        output=output,
        sequences=_first_whole(_SEQUENCES, both) or int(bool(re.search(_SINGLE, both, re.IGNORECASE))),
        sequence=_tokens((rf"\bseq(?:uence)?(?: length)?\s*=?\s*{_COUNT}",), both),
        global_batch=_whole(r"\b(?:GBS|global batch(?: size)?)\s*=?\s*(\d+)", both),
        micro_batch=_whole(r"\b(?:MBS|micro[- ]batch(?: size)?)\s*=?\s*(\d+)", both),
        layers=_whole(r"(\d+)[- ]layers?\b", both),
        drafted=int(drafts[1]) if drafts else 0,
        yielded=float(accepted[1]) if accepted else 0.0,
        graphs=_graphs(both),
        earlier=bool(re.search(r"\bbefore\b", both, re.IGNORECASE)),
    )


def cards_of(device: str) -> tuple[str, int]:
    """``"mthreads S5000 8x"`` → the card's own words and how many; 0 where the words give no number."""
    found = re.fullmatch(r"(.*?)\s+(\d+)x", device.strip())
    return (found[1], int(found[2])) if found else (device, 0)


def _precision(text: str) -> str:
    found = re.search(r"\b(Q\d_\w+|MXFP4|NVFP4|FP8|INT8|INT4|W8A8|W4A16|BF16|FP16)\b", text, re.IGNORECASE)
    return found[1].upper() if found else ""


def _graphs(text: str) -> bool | None:
    if re.search(r"\beager\b", text, re.IGNORECASE):
        return False
    return True if re.search(r"graph", text, re.IGNORECASE) else None


def _tokens(patterns: tuple[str, ...], text: str) -> int:
    for pattern in patterns:
        found = re.search(pattern, text, re.IGNORECASE)
        if found:
            return _count(found[1], found[2])
    return 0


def _count(number: str, thousands: str | None) -> int:
    return round(float(number.replace(",", "")) * (1000 if thousands else 1))


def _whole(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _first_whole(patterns: tuple[str, ...], text: str) -> int:
    for pattern in patterns:
        found = re.search(pattern, text, re.IGNORECASE)
        if found:
            return int(found[1])
    return 0
