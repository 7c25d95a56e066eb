"""AutoGen teams on the operations desk's task: round robin, selector, swarm, MagenticOne, graph flow.

windtunnel serve qwen3.5-397b-a17b --on mtt-s5000:8 --precision fp8 --port 8000 --speed 10
python examples/agents/autogen_teams.py swarm --teams 4 --speed 10
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import desk
from autogen_agentchat.agents import AssistantAgent, CodeExecutorAgent
from autogen_agentchat.conditions import MaxMessageTermination, TextMentionTermination
from autogen_agentchat.teams import (
    DiGraphBuilder,
    GraphFlow,
    MagenticOneGroupChat,
    RoundRobinGroupChat,
    SelectorGroupChat,
    Swarm,
)
from autogen_ext.code_executors.local import LocalCommandLineCodeExecutor
from autogen_ext.models.openai import OpenAIChatCompletionClient

RULES = (
    "You work at the operations desk of a company that rents accelerators. Use figures from the documents only, show "
    "the arithmetic, name the document that each figure comes from, and keep to what your role asks of you. "
)
ROLES = {
    "planner": "You are the planner: split the task into questions and say who should look at which.",
    "researcher": "You are the researcher: look up incidents, prices, measurements and agreements with your tools.",
    "analyst": "You are the analyst: work out load, cards and cost per conversation, with your calculator.",
    "critic": "You are the critic: check every figure and name what is missing. Say APPROVE once nothing is.",
    "writer": "You are the writer: write the decision memo. Say TERMINATE after the final version.",
    "coder": "You are the coder: put the arithmetic into one ```python code block that prints its results.",
}


@dataclass(frozen=True)
class Desk:
    """One team's surroundings: where its model is and what its tools do."""

    url: str
    model: str
    name: str
    tools: desk.Tools

    def client(self, agent: str) -> OpenAIChatCompletionClient:
        """A client whose calls say which team and agent they come from."""
        about: Any = {
            "vision": False, "function_calling": True, "json_output": True, "family": "unknown",
            "structured_output": True, "multiple_system_messages": True,
        }  # fmt: skip
        return OpenAIChatCompletionClient(
            model=self.model, base_url=self.url, api_key="none", model_info=about, timeout=3600,
            default_headers={"x-task": self.name, "x-agent": agent},
        )  # fmt: skip

    def agent(self, role: str, name: str = "", **more: Any) -> AssistantAgent:
        """An agent in a role, with the tools of that role."""
        tools = {"researcher": [self._search()], "analyst": [self._calculate()]}.get(role, [])
        name = name or role
        return AssistantAgent(
            name, model_client=self.client(name), description=ROLES[role], tools=tools or None,
            system_message=RULES + ROLES[role], reflect_on_tool_use=bool(tools) or None, **more,
        )  # fmt: skip

    def _search(self) -> Callable[..., Any]:
        async def search_documents(query: str) -> str:
            """Search incidents, prices, measurements, agreements and runbooks; returns passages."""
            await asyncio.sleep(self.tools.wait_s(query))
            return self.tools.search(query)

        return search_documents

    def _calculate(self) -> Callable[..., Any]:
        async def calculate(expression: str) -> str:
            """Work out an arithmetic expression of numbers and + - * /."""
            await asyncio.sleep(self.tools.wait_s(expression) / 10)
            return self.tools.calculate(expression)

        return calculate


def ends(most: int) -> Any:
    """When a team stops."""
    return (
        TextMentionTermination("TERMINATE") | TextMentionTermination("APPROVE") | MaxMessageTermination(most)
    )


def round_robin(at: Desk) -> Any:
    """Researcher, analyst and writer take turns, and a critic lets the memo pass."""
    return RoundRobinGroupChat(
        [at.agent("researcher"), at.agent("analyst"), at.agent("writer"), at.agent("critic")],
        termination_condition=ends(24),
    )


def selector(at: Desk) -> Any:
    """A model picks who speaks next."""
    team = [at.agent("planner"), at.agent("researcher"), at.agent("analyst"), at.agent("writer")]
    return SelectorGroupChat(team, model_client=at.client("selector"), termination_condition=ends(24))


def swarm(at: Desk) -> Any:
    """Agents pass the task on to each other."""
    return Swarm(
        [
            at.agent("planner", handoffs=["researcher", "analyst"]),
            at.agent("researcher", handoffs=["analyst", "planner"]),
            at.agent("analyst", handoffs=["writer", "researcher"]),
            at.agent("writer", handoffs=["critic"]),
            at.agent("critic", handoffs=["writer"]),
        ],
        termination_condition=ends(40),
    )


def magentic(at: Desk) -> Any:
    """An orchestrator with ledgers of facts, plan and progress."""
    team = [at.agent("researcher"), at.agent("analyst"), at.agent("writer")]
    return MagenticOneGroupChat(team, model_client=at.client("orchestrator"), max_turns=12)


def graph(at: Desk) -> Any:
    """Three researchers side by side, a program that is run, then the memo."""
    plan, write = at.agent("planner"), at.agent("writer")
    look = [at.agent("researcher", f"researcher{index}") for index in range(3)]
    code = at.agent("coder")
    run = CodeExecutorAgent("runner", LocalCommandLineCodeExecutor(work_dir=desk.scratch("code"), timeout=60))
    build = DiGraphBuilder()
    for node in (plan, *look, code, run, write):
        build.add_node(node)
    for one in look:
        build.add_edge(plan, one).add_edge(one, code)
    build.add_edge(code, run).add_edge(run, write)
    return GraphFlow([plan, *look, code, run, write], graph=build.build())


SCENARIOS: dict[str, Callable[[Desk], Any]] = {
    "round_robin": round_robin, "selector": selector, "swarm": swarm, "magentic": magentic, "graph": graph,
}  # fmt: skip


async def run(scenario: str, number: int, asked: Any) -> bool:
    """One team does its task; a line says how it went."""
    at = Desk(asked.url, asked.model, f"autogen:{scenario}:{number}", desk.Tools(asked.speed, number))
    began = time.monotonic()
    try:
        result = await SCENARIOS[scenario](at).run(task=desk.task(number))
    except Exception as error:
        print(f"{at.name:28} failed: {type(error).__name__}: {error}", flush=True)
        return False
    took = (time.monotonic() - began) * asked.speed
    print(f"{at.name:28} {took:8.1f} s  {len(result.messages):3} messages  {result.stop_reason}", flush=True)
    return True


async def main() -> int:
    """All teams at once; the answer is the exit status."""
    asked = desk.options(list(SCENARIOS))
    teams = [
        (name, number) for name in asked.scenarios for number in range(asked.first, asked.first + asked.teams)
    ]
    done = await asyncio.gather(*(run(name, number, asked) for name, number in teams))
    desk.clean()
    print(f"{sum(done)} of {len(done)} teams finished")
    return 0 if all(done) else 1


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.exit(asyncio.run(main()))
