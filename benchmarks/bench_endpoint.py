"""The native endpoint under load: streamed tokens a second, pace against the model's own, and leaks.

Server and client are two processes, as on a machine with two cores. What the pace should be comes from the same
traffic in virtual time.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.request import Request
from windtunnel.serving.router import Router
from windtunnel.serving.simulate import open_loop
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

MODEL, CHIP, PROMPT = "qwen3-8b", "mtt-s5000", "hello " * 4
TOKENS_PER_S = 10_000


@dataclass(frozen=True)
class Streamed:
    """One stream: when its first and last token came, and how many did."""

    first_s: float
    last_s: float
    tokens: int

    @property
    def tpot_s(self) -> float:
        return (self.last_s - self.first_s) / (self.tokens - 1)


class Server:
    """`windtunnel serve` in a process of its own."""

    def __init__(self, sequences: int, speed: float) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = [
            sys.executable, "-m", "windtunnel", "serve", MODEL, "--on", CHIP, "--port", str(self.port),
            "--speed", str(speed), "--max-num-seqs", str(sequences), "--max-queue", "8192",
        ]  # fmt: skip
        self.process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the server did not start")

    def memory_mib(self) -> float:
        """Resident memory of the server."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def cpu_s(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def files(self) -> int:
        """Its open files and sockets."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self) -> None:
        """Let it end what it is at, then go."""
        self.process.terminate()
        self.process.wait(40)


async def stream(port: int, output: int, leave_after: int = 0) -> Streamed:
    """One streamed completion over a socket of its own; ``leave_after``: hang up after so many events."""
    body = json.dumps(
        {"prompt": PROMPT, "max_tokens": output, "ignore_eos": True, "stream": True}, separators=(",", ":")
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    first = last = 0.0
    events = 0
    while data := await reader.read(1 << 16):
        found = data.count(b"data: {")
        if found:
            last = time.perf_counter() if events + found <= output else last
            first = first or time.perf_counter()
            events += found
        if leave_after and events >= leave_after:
            break
    writer.close()
    if not leave_after and events != output + 1:  # the last event says why it ended
        raise RuntimeError(f"{events} events for {output} tokens")
    return Streamed(first, last, min(events, output))


async def many(port: int, streams: int, output: int, leaving: int = 0) -> list[Streamed]:
    """Streams that all begin now; the first ``leaving`` of them hang up early."""
    return await asyncio.gather(
        *(stream(port, output, 5 if index < leaving else 0) for index in range(streams))
    )


def expected_tpot_s(deployment: Deployment, streams: int, output: int) -> float:
    """Mean TPOT of the same traffic in virtual time."""
    prompt = len(PROMPT) // 4
    requests = [Request(number, 0.0, prompt, output) for number in range(streams)]
    served = open_loop(requests, Router(deployment.start()))
    return statistics.fmean(one.tpot_s or 0.0 for one in served)


def report(name: str, value: float, unit: str, target: float) -> None:
    print(json.dumps({"name": name, "value": value, "unit": unit, "target": target}), flush=True)


def pace(streams: int, output: int) -> None:
    """Ten thousand streamed tokens a second, and how far their pace is from the model's."""
    options = DeploymentOptions(max_num_seqs=streams)
    expected = expected_tpot_s(deploy(shipped_model(MODEL), cluster_of(CHIP), options), streams, output)
    speed = TOKENS_PER_S * expected / streams
    server = Server(streams, speed)
    try:
        asyncio.run(many(server.port, 8, 20))
        began, used, mine = time.perf_counter(), server.cpu_s(), time.process_time()
        done = asyncio.run(many(server.port, streams, output))
        took, used, mine = time.perf_counter() - began, server.cpu_s() - used, time.process_time() - mine
    finally:
        server.stop()
    tpot = statistics.fmean(one.tpot_s for one in done) * speed
    window = max(one.last_s for one in done) - min(one.first_s for one in done)
    report("endpoint: time for 10,000 streamed tokens", TOKENS_PER_S * window / (streams * output), "s", 1.02)
    tokens = streams * output
    report("endpoint: server's processor time for 10,000 tokens", TOKENS_PER_S * used / tokens, "s", 0.9)
    report("endpoint: client's processor time for 10,000 tokens", TOKENS_PER_S * mine / tokens, "s", 0.9)
    report("endpoint: whole run over its streaming", took / window, "x", 1.25)
    report("endpoint: TPOT off the model's", abs(tpot / expected - 1) * 100, "%", 2.0)


def leaks(streams: int, output: int, rounds: int) -> None:
    """Thousands of streams at once, some of which hang up: memory and sockets of the server afterwards."""
    server = Server(streams, 1.0)
    try:
        before, memory = server.files(), []
        for _ in range(rounds):
            asyncio.run(many(server.port, streams, output, leaving=streams // 4))
            time.sleep(1.0)
            memory.append(server.memory_mib())
        left = server.files() - before
        server.stop()
    finally:
        server.process.kill()
    report(
        f"endpoint: memory gained a round of {streams:,} streams", memory[-1] - memory[1], "MiB", 2.0 * rounds
    )
    report("endpoint: sockets left open", left, "sockets", 0)


if __name__ == "__main__":
    pace(streams=256, output=400)
    leaks(streams=2000, output=40, rounds=5)
