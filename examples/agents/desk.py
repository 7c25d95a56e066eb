"""What all teams share: the task, the documents that its tools find things in, and how long the tools take.

The task is one that an operations desk has every week: decide whether a customer's assistant can move to new cards,
from incident reports, price lists and measurements, with the arithmetic shown.
"""

from __future__ import annotations

import argparse
import ast
import operator
import random
import re
import shutil
import tempfile
from dataclasses import dataclass

TASK = (
    "Customer {customer} runs a support assistant with {seats} seats and {daily} conversations a day. Decide whether "
    "it can move to {cards} new accelerators next month. Look up the incidents of the last quarter, the price list and "
    "the measurements, work out load and cost per conversation, name the three largest risks with their owners, and "
    "write a decision memo of one page that a director can sign."
)
CUSTOMERS = ("Aldgate Bank", "Brightwater Energy", "Castellan Rail", "Dunmore Health", "Eastfold Retail")
FOLDERS: list[str] = []
DOCUMENTS = {
    "incidents": (
        "Incident 41, 3 October. The evening peak filled the request queue of the assistant and the front end answered "
        "busy for eleven minutes. Cause: a retry loop in the mobile client sent every question three times. The client "
        "now waits between tries, and the queue refuses early with a time to come back. Owner: client team. "
        "Incident 44, 19 October. After a model update answers grew by a third and the cache of running conversations "
        "no longer fitted; conversations were recomputed and the time to the first word doubled. The output limit was "
        "lowered from 900 to 600 tokens. Owner: model team. "
        "Incident 47, 8 November. One of eight cards lost its link and the replica ran at half speed for forty minutes "
        "before the watchdog moved its traffic. The watchdog now compares replicas with each other. Owner: platform."
    ),
    "prices": (
        "Price list, valid from 1 November. Card hour, reserved for a year: 1.60. Card hour, reserved for a month: "
        "2.10. Card hour on demand: 3.20. Storage per terabyte and month: 18. Traffic inside the region is free; "
        "traffic to the customer costs 0.04 per gigabyte. A support contract adds nine per cent and covers replacement "
        "within four hours. Discounts: five per cent above 64 cards, twelve per cent above 256 cards. Prices are per "
        "card, power and cooling included; a node has eight cards and is rented whole."
    ),
    "measurements": (
        "Load test of 12 November on eight cards. Conversations have 6.2 turns on average; a turn reads 2,900 tokens, "
        "of which 71 per cent were read in the turn before, and writes 210. At 40 turns in flight the first word came "
        "after 0.9 seconds and words followed at 24 a second; at 120 in flight after 2.3 seconds and 15 a second; at "
        "200 in flight the queue grew without end. The busiest hour carries 14 per cent of a day's conversations. "
        "Memory of the cache was 62 per cent full at 120 turns in flight."
    ),
    "agreement": (
        "Service agreement. The first word within three seconds for 95 per cent of turns, measured monthly. At least "
        "twelve words a second for 95 per cent of turns. Availability 99.8 per cent. A change of hardware needs a "
        "rehearsal with recorded traffic, a way back within thirty minutes, and the signature of the director of "
        "operations. Personal data stays in the region. Missed months are credited with eight per cent of the fee."
    ),
    "runbook": (
        "Runbook for a change of cards. One: replay a recorded day at one and a half times its load. Two: compare "
        "answers of both stacks on the regression set; differences above two per cent stop the change. Three: move "
        "five per cent of traffic for a day, then a quarter, then all. Four: keep the old stack warm for two weeks. "
        "The on-call engineer owns the way back; the model team owns the regression set; finance checks the first bill."
    ),
}


@dataclass(frozen=True)
class Tools:
    """What the agents' tools do. Their times are drawn (median 0.6 s) and shortened by ``speed``."""

    speed: float
    seed: int

    def wait_s(self, what: str) -> float:
        """How long this use of a tool takes."""
        return random.Random(f"{self.seed} {what}").lognormvariate(-0.5, 0.5) / self.speed

    def search(self, query: str) -> str:
        """The two documents that share most words with the query."""
        asked = set(re.findall(r"\w+", query.lower()))

        def fit(name: str) -> tuple[int, str]:
            return -len(asked & set(re.findall(r"\w+", DOCUMENTS[name].lower()))), name

        return "\n\n".join(f"[{name}] {DOCUMENTS[name]}" for name in sorted(DOCUMENTS, key=fit)[:2])

    def calculate(self, expression: str) -> str:
        """The value of an arithmetic expression, or what is wrong with it."""
        try:
            return f"{_value(ast.parse(expression, mode='eval').body):g}"
        except (SyntaxError, ValueError, ZeroDivisionError, KeyError) as error:
            return f"cannot work out {expression!r}: {error}"


def scratch(name: str) -> str:
    """A folder of this program's own, gone after ``clean``."""
    FOLDERS.append(tempfile.mkdtemp(prefix=f"desk-{name}-"))
    return FOLDERS[-1]


def clean() -> None:
    """Remove all folders that were made."""
    while FOLDERS:
        shutil.rmtree(FOLDERS.pop(), ignore_errors=True)


_OPERATIONS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.BinOp):
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("only numbers and + - * /")


def task(number: int) -> str:
    """The ``number``-th team's task."""
    draw = random.Random(number)
    return TASK.format(
        customer=CUSTOMERS[number % len(CUSTOMERS)],
        seats=draw.randrange(200, 4000, 50),
        daily=draw.randrange(2000, 60000, 500),
        cards=draw.choice((8, 16, 24, 32)),
    )


def options(scenarios: list[str]) -> argparse.Namespace:
    """The command line that both frameworks' programs share."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "scenarios", nargs="*", default=scenarios, help=f"of {', '.join(scenarios)}; default: all"
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1", help="of the endpoint")
    parser.add_argument("--model", default="qwen3.5-397b-a17b")
    parser.add_argument("--teams", type=int, default=1, help="of each scenario, at the same time")
    parser.add_argument("--speed", type=float, default=1.0, help="of the endpoint, so that tools keep step")
    parser.add_argument("--first", type=int, default=0, help="number of the first team's task")
    found = parser.parse_args()
    unknown = set(found.scenarios) - set(scenarios)
    if unknown:
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}; there are {', '.join(scenarios)}")
    return found
