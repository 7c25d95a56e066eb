"""How the answer of `windtunnel fit` looks: a table of parts, a verdict, a hint; or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from windtunnel import units
from windtunnel.cli import output
from windtunnel.errors import WindtunnelError
from windtunnel.memory.overhead import held_outside
from windtunnel.recipes.fit.question import FitAnswer, FitQuestion, Mode
from windtunnel.recipes.fit.search import largest_batch, more_cards, smaller
from windtunnel.report.text_table import Shorten, TextColumn, bar, render
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_catalogue import model_names, shipped_model

COLUMNS = (
    TextColumn("Memory of one card"),
    TextColumn("GiB", right=True),
    TextColumn("of usable", right=True),
    TextColumn("", rank=1),
)

MODEL_COLUMNS = (
    TextColumn("Model"),
    TextColumn("B parameters", right=True),
    TextColumn("active", right=True),
    TextColumn("type", rank=1),
    TextColumn("also called", rank=2, shorten=Shorten.TAIL),
)


def lines(answer: FitAnswer, word: str, width: int) -> list[str]:
    """The answer for people."""
    question = answer.question
    usable = answer.usable
    rows = [_row(name, nbytes, usable) for name, nbytes in answer.parts.rows()]
    rows.append(_row("total", answer.total.value, usable))
    body = render(COLUMNS, rows, width)
    notes = [f"not counted: {note}" for note in _notes(question)]
    said = [_headline(question), *body, "", *_verdict(answer), *notes]
    wrapped = [
        part
        for line in said
        for part in (output.wrapped(line, width) if line.strip() == line != "" else [line])
    ]
    return [*wrapped, *_hints(answer, word), ""]


def as_json(answers: Sequence[FitAnswer], word: str) -> dict[str, object]:
    """The JSON object: one answer at top level, several under ``runs``."""
    fits = all(answer.fits for answer in answers)
    single = len(answers) == 1
    data = _answer_json(answers[0], word) if single else {"runs": [_answer_json(a, word) for a in answers]}
    return output.success("fit", {"fits": fits, **data}) | ({} if fits else {"status": "no"})


def print_models(*, json: bool) -> int:
    """The shipped models with their parameters; those whose facts do not determine them are left out."""
    models = []
    for name in model_names():
        with suppress(WindtunnelError):
            models.append(shipped_model(name))
    if json:
        output.print_json(output.success("fit", {"models": [_model_json(model) for model in models]}))
        return 0
    rows = [
        (m.name, _billions(m.parameters), _billions(m.active_parameters), m.family, ", ".join(m.aliases))
        for m in models
    ]
    output.print_lines(render(MODEL_COLUMNS, rows, output.width()))
    return 0


def _model_json(model: ModelSpec) -> dict[str, object]:
    return {
        "name": model.name,
        "aliases": list(model.aliases),
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "source": model.source,
    }


def command(question: FitQuestion, word: str) -> str:
    """The command line that asks this question."""
    words = [f"windtunnel fit {word} --on {question.chip.name}:{question.cards} --mode {question.mode}"]
    length = "--context" if question.mode is Mode.INFER else "--sequence"
    words.append(f"--precision {question.precision} --batch {question.batch} {length} {question.sequence}")
    for flag, value in (("tp", question.tensor), ("pp", question.pipeline), ("ep", question.expert)):
        words += [f"--{flag} {value}"] if value > 1 or flag == "tp" else []
    if question.mode is Mode.INFER:
        words += [f"--kv-precision {question.cache_precision}"] if question.cache_precision != "bf16" else []
        words += [f"--prefill-tokens {question.prefill_tokens}"] if question.prefill_tokens != 8192 else []
    else:
        words += [f"--cp {question.context_parallel}"] if question.context_parallel > 1 else []
        words += [] if question.fused else ["--eager"]
        words += [f"--{question.sharding} --recompute {question.recompute} --optimizer {question.optimizer}"]
    if question.mode is Mode.LORA:
        words += [
            f"--lora-rank {question.adapters.rank}",
            *(["--lora-all"] if question.adapters.all_products else []),
        ]
    return " ".join(words)


def _headline(question: FitQuestion) -> str:
    model = question.model
    what = f"{model.title or model.name}, {units.significant(model.parameters / 1e9)} B parameters"
    spread = f"{question.cards} × {question.chip.name}"
    degrees = f"tensor {question.tensor}, pipeline {question.pipeline}, expert {question.expert}"
    work = f"batch {question.batch} × {question.sequence:,} tokens, {question.precision}"
    if question.mode is not Mode.INFER:
        work += f", {question.sharding}, recompute {question.recompute}, {question.optimizer}"
    return f"{question.mode} {what} on {spread} ({degrees}): {work}"


def _billions(count: int) -> str:
    return units.significant(count / 1e9)


def _notes(question: FitQuestion) -> list[str]:
    """What the figures leave out."""
    notes = []
    if question.model.vision is not None:
        notes.append("activations of the vision tower")
    if question.model.prediction_layers:
        notes.append("layers that predict further tokens (MTP)")
    return notes


def _row(name: str, nbytes: float, usable: int) -> tuple[str, str, str, str]:
    part = nbytes / usable
    return name, units.significant(nbytes / units.GIB), units.percent(part), bar(part)


def _verdict(answer: FitAnswer) -> list[str]:
    total, usable = answer.total, answer.usable
    verdict = "fits" if answer.fits else "does not fit"
    if answer.tight:
        verdict += ", but it is tight" if answer.fits else ", though it is close"
    outside = sum(item.nbytes for item in held_outside(answer.question.chip))
    between = f"{units.significant(total.low / units.GIB)} – {units.gib(total.high)}"
    return [
        f"{verdict}: {units.gib(total.value)} ({between}) of {units.gib(usable)} usable",
        f"usable: {units.gib(answer.question.chip.memory_bytes.value)} less {units.gib(outside)} for the "
        "driver's context (assumed)",
    ]


def _hints(answer: FitAnswer, word: str) -> list[str]:
    question = answer.question
    if answer.fits:
        most = largest_batch(question)
        return [f"largest batch that surely fits: {most:,}"] if most else []
    spread = more_cards(question)
    label = "another layout" if spread is not None and spread.cards == question.cards else "more cards"
    found = [("same cards", smaller(question)), (label, spread)]
    hints = [f"hint ({kind}): {command(change, word)}" for kind, change in found if change is not None]
    return hints or ["hint: no layout up to 16,384 cards of this chip was found; try a lower precision"]


def _answer_json(answer: FitAnswer, word: str) -> dict[str, object]:
    question, parts = answer.question, answer.parts
    data: dict[str, object] = {
        "model": question.model.name,
        "parameters": question.model.parameters,
        "active_parameters": question.model.active_parameters,
        "chip": question.chip.name,
        "cards": question.cards,
        "mode": str(question.mode),
        "layout": {
            "tensor": question.tensor,
            "pipeline": question.pipeline,
            "expert": question.expert,
            "context": question.context_parallel,
            "sharding": str(question.sharding) if question.mode is not Mode.INFER else "",
            "recompute": str(question.recompute) if question.mode is not Mode.INFER else "",
        },
        "batch": question.batch,
        "sequence": question.sequence,
        "precision": question.precision,
        "fits": answer.fits,
        "tight": answer.tight,
        "total_bytes": answer.total.to_dict(),
        "usable_bytes": answer.usable,
        "memory_bytes": int(question.chip.memory_bytes.value),
        "not_counted": _notes(question),
        "parts_bytes": {name.lower().replace(" ", "_"): nbytes for name, nbytes in parts.rows()},
    }
    if answer.fits:
        return data | {"largest_batch": largest_batch(question)}
    changes = [change for change in (smaller(question), more_cards(question)) if change is not None]
    return data | {"hints": [command(change, word) for change in changes]}
