"""CrewAI crews on the operations desk's task: sequential, hierarchical, asynchronous, with memory, with planning.

    windtunnel serve qwen3.5-397b-a17b --on mtt-s5000:8 --precision fp8 --port 8000 --speed 10
    python examples/agents/crewai_crews.py hierarchical --teams 4 --speed 10

CrewAI's telemetry, tracing and version check are switched off before it is imported.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

os.environ.update(
    OTEL_SDK_DISABLED="true", CREWAI_DISABLE_TELEMETRY="true", CREWAI_DISABLE_TRACKING="true",
    CREWAI_TRACING_ENABLED="false", CREWAI_DISABLE_VERSION_CHECK="true", ANONYMIZED_TELEMETRY="False",
    OPENAI_API_KEY="none",
)  # fmt: skip
import desk

os.environ.setdefault("CREWAI_STORAGE_DIR", desk.scratch("crew"))

from crewai import LLM, Agent, Crew, Process, Task
from crewai.memory.unified_memory import Memory
from crewai.tools import tool

ROLES = {
    "Researcher": (
        "look up incidents, prices, measurements and agreements",
        "You know where every document is kept.",
    ),
    "Analyst": ("work out load, cards and cost per conversation", "You show every step of your arithmetic."),
    "Writer": ("write a decision memo that a director can sign", "You write one page, never two."),
}
STEPS = (
    ("Researcher", "Look up what the decision needs.", "Passages with the documents they come from"),
    ("Analyst", "Work out load and cost per conversation.", "A table of figures with their arithmetic"),
    ("Writer", "Write the decision memo.", "One page with decision, reasons, three risks and their owners"),
)


@dataclass(frozen=True)
class Desk:
    """One crew's surroundings: where its model is and what its tools do."""

    url: str
    model: str
    name: str
    tools: desk.Tools

    def llm(self, agent: str) -> LLM:
        """A model whose calls say which crew and agent they come from."""
        headers = {"x-task": self.name, "x-agent": agent}
        return LLM(
            model=f"openai/{self.model}",
            base_url=self.url,
            api_key="none",
            default_headers=headers,
            timeout=3600,
        )

    def agent(self, role: str, **more: Any) -> Agent:
        """An agent in a role; the researcher can search."""
        goal, story = ROLES[role.rstrip("0123456789 ")]
        tools = [self._search()] if role.startswith("Researcher") else []
        return Agent(
            role=role, goal=goal, backstory=story + " You work at the operations desk of a company that rents "
            "accelerators, and use figures from its documents only.", llm=self.llm(role), tools=tools,
            allow_delegation=False, verbose=False, **more,
        )  # fmt: skip

    def task(self, what: str, expected: str, agent: Agent | None, number: int, **more: Any) -> Task:
        """A step of the desk's task."""
        return Task(description=f"{what} {desk.task(number)}", expected_output=expected, agent=agent, **more)

    def memory(self) -> Memory:
        """A memory of this crew alone, with the endpoint's model and embeddings."""
        embedder: Any = {
            "provider": "openai",
            "config": {"model_name": self.model, "api_key": "none", "api_base": self.url},
        }
        return Memory(llm=self.llm("memory"), embedder=embedder, storage=desk.scratch("memory"))

    def _search(self) -> Any:
        @tool("search_documents")
        def search_documents(query: str) -> str:
            """Search incidents, prices, measurements, agreements and runbooks; returns passages."""
            time.sleep(self.tools.wait_s(query))
            return self.tools.search(query)

        return search_documents


def sequential(at: Desk, number: int, **more: Any) -> Crew:
    """Researcher, analyst, writer, one after another."""
    agents = {role: at.agent(role) for role in ROLES}
    tasks = [at.task(what, expected, agents[role], number) for role, what, expected in STEPS]
    return Crew(agents=list(agents.values()), tasks=tasks, process=Process.sequential, verbose=False, **more)


def hierarchical(at: Desk, number: int) -> Crew:
    """A manager gives out the work."""
    agents = [at.agent(role) for role in ROLES]
    task = at.task("Make the decision.", STEPS[-1][2], None, number)
    return Crew(
        agents=agents,
        tasks=[task],
        process=Process.hierarchical,
        manager_llm=at.llm("manager"),
        verbose=False,
    )


def parallel(at: Desk, number: int) -> Crew:
    """Three researchers at once, then the writer."""
    look = [at.agent(f"Researcher {index}") for index in range(1, 4)]
    topics = ("incidents and risks", "prices and cost", "measurements and load")
    tasks = [
        at.task(f"Look up {topic}.", STEPS[0][2], agent, number, async_execution=True)
        for agent, topic in zip(look, topics, strict=True)
    ]
    writer = at.agent("Writer")
    tasks.append(at.task(STEPS[-1][1], STEPS[-1][2], writer, number, context=list(tasks)))
    return Crew(agents=[*look, writer], tasks=tasks, verbose=False)


def memory(at: Desk, number: int) -> Crew:
    """The sequential crew with a memory of its own."""
    return sequential(at, number, memory=at.memory())


def planning(at: Desk, number: int) -> Crew:
    """The sequential crew with a plan made first."""
    return sequential(at, number, planning=True, planning_llm=at.llm("planner"))


SCENARIOS: dict[str, Callable[[Desk, int], Crew]] = {
    "sequential": sequential, "hierarchical": hierarchical, "async": parallel, "memory": memory,
    "planning": planning,
}  # fmt: skip


def run(scenario: str, number: int, asked: Any) -> bool:
    """One crew does its task; a line says how it went."""
    at = Desk(asked.url, asked.model, f"crewai:{scenario}:{number}", desk.Tools(asked.speed, number))
    began = time.monotonic()
    try:
        result = SCENARIOS[scenario](at, number).kickoff()
    except Exception as error:
        print(f"{at.name:28} failed: {type(error).__name__}: {error}", flush=True)
        return False
    took = (time.monotonic() - began) * asked.speed
    print(f"{at.name:28} {took:8.1f} s  {len(str(result)):5} letters", flush=True)
    return True


def main() -> int:
    """All crews at once, each in a thread; the answer is the exit status."""
    asked = desk.options(list(SCENARIOS))
    os.environ["OPENAI_BASE_URL"] = asked.url  # what parts of CrewAI take that are not told another
    crews = [
        (name, number) for name in asked.scenarios for number in range(asked.first, asked.first + asked.teams)
    ]
    with ThreadPoolExecutor(len(crews)) as pool:
        done = list(pool.map(lambda crew: run(*crew, asked), crews))
    print(f"{sum(done)} of {len(done)} crews finished")
    return 0 if all(done) else 1


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    status = main()
    sys.stdout.flush()
    desk.clean()
    os._exit(status)  # CrewAI's background threads would hold the process for seconds
