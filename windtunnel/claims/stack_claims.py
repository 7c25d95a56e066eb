"""Claims about software: frameworks that run, code that moves unchanged."""

from __future__ import annotations

from windtunnel.claims.claim import Answer, Claim, Says, Steady
from windtunnel.claims.evidence import stack_runs

GROUP = "The stack"
RUNS = "that it runs is what is shown"
WHY = "no figure was published; what runs does so whatever is assumed of speeds. Another version may not: each is named"


def _frameworks() -> Answer:
    return Answer(
        runs=stack_runs("stack"),
        steady=(Steady(of=RUNS, why=WHY),),
        why=("a virtual card shows that code asks for nothing it lacks; speed is another matter",),
    )


def _sglang() -> Answer:
    return Answer(
        runs=stack_runs("sglang"),
        steady=(Steady(of=RUNS, why=WHY),),
        would_take="its compiled kernels (sgl-kernel) for this card: they are NVIDIA binaries, and its "
        "layers on a card that "
        "answers as CUDA load them at import. Orders of queues alone are not the framework",
        why=(
            "SGLang 0.5.23 (PyTorch 2.13.0 where it asks for 2.14.1): its scheduler, radix cache and Llama "
            "class import "
            "beside the virtual card (2026-11-27)",
            "its SchedulePolicy over its RadixCache orders 32 of 32 recorded queues as `--scheduler sglang` does "
            "(`tests/engines/ask.py sglang_order`)",
            "building its LlamaForCausalLM on the card, with its native attention and random weights, stops where "
            "sgl_kernel looks for a library of its own for this compute capability; `--strict` refuses the "
            "CUDA names by "
            "which it looks for cards, torchada 0.1.103 (the maker's adapter) installed or not",
        ),
    )


def _migration() -> Answer:
    return Answer(
        runs=stack_runs("migration"),
        steady=(Steady(of=RUNS, why=WHY),),
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
        assumed=(RUNS,),
        evaluate=_frameworks,
    ),
    Claim(
        name="sglang",
        group=GROUP,
        title="SGLang",
        says=Says.NO_FIGURE,
        wording="native PyTorch, Megatron-LM, vLLM, SGLang",
        said="mthreads.com and press, 2026",
        command="windtunnel serve deepseek-v3-671b --on mtt-s5000:32 --precision fp8-block --scheduler sglang "
        "--concurrency 64 --requests 128",
        assumed=(RUNS,),
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
        assumed=(RUNS,),
        evaluate=_migration,
    ),
)
