"""Claims about software: frameworks that run, code that moves unchanged."""

from __future__ import annotations

from windtunnel.claims.claim import Answer, Claim, Says
from windtunnel.claims.evidence import stack_runs

GROUP = "The stack"


def _frameworks() -> Answer:
    return Answer(
        runs=stack_runs("stack"),
        why=("a virtual card shows that code asks for nothing it lacks; speed is another matter",),
    )


def _sglang() -> Answer:
    return Answer(
        runs=stack_runs("sglang"),
        would_take="a run of its engine on the card; only its cache and queue policies were compared with ours",
    )


def _migration() -> Answer:
    return Answer(
        runs=stack_runs("migration"),
        why=("what a script is told in place of CUDA is listed after each run; `--strict` refuses instead",),
    )


CLAIMS = (
    Claim(
        name="stack",
        group=GROUP,
        title="PyTorch, Megatron-LM and vLLM",
        says=Says.NO_FIGURE,
        wording="native PyTorch, Megatron-LM, vLLM, SGLang",
        said="mthreads.com and press, 2026",
        command="windtunnel claims stack --rerun",
        evaluate=_frameworks,
    ),
    Claim(
        name="sglang",
        group=GROUP,
        title="SGLang",
        says=Says.NO_FIGURE,
        wording="native PyTorch, Megatron-LM, vLLM, SGLang",
        said="mthreads.com and press, 2026",
        command="windtunnel serve deepseek-v3-671b --on mtt-s5000:32 --scheduler sglang",
        evaluate=_sglang,
    ),
    Claim(
        name="migration",
        group=GROUP,
        title="CUDA code moves at no cost",
        says=Says.NO_FIGURE,
        wording="zero-cost code migration; CUDA ecosystem compatibility",
        said="mthreads.com and press, 2026",
        command="windtunnel claims migration --rerun",
        evaluate=_migration,
    ),
)
