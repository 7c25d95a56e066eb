"""Claims about how training grows with the cluster, and how much of a month of it is training."""

from __future__ import annotations

import math

from windtunnel.claims.arithmetic import kernel_lines
from windtunnel.claims.claim import Answer, Claim, Says, Setting, Steady, Variation
from windtunnel.claims.prices import S5000, card, collective, plan
from windtunnel.claims.region import Region, Turn, solve, table
from windtunnel.claims.training_claims import GROUP, PRESS, layout_words
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate, Source
from windtunnel.network.collective import Collective
from windtunnel.planner.space import Space
from windtunnel.recipes.layout import Precision, Recompute, Sharding
from windtunnel.results.plan_result import PlanRow
from windtunnel.timeline.goodput import Reliability, best_interval_s, simulate
from windtunnel.timeline.long_run import CARD_HOURS_PER_FAILURE, RESTART_S

CARDS = 10_240
MODEL, SMALL_MODEL = "llama3-70b", "llama3-8b"
SEQUENCE = 4096
BEST = Space()
SAME = {
    MODEL: Space(tensor=8, pipeline=1, sharding=Sharding.FSDP),
    SMALL_MODEL: Space(tensor=1, pipeline=1, sharding=Sharding.FSDP),
}
"""One layout at every size, so that only the exchange differs."""
SHARED = 0.5
"""Correlation of errors of kernels on one chip that are not the same kernels: that of ``estimate.total``."""
HISTORIES = 40
STOP_S = 5.0
"""A checkpoint's standstill: a card's share of the state over PCIe, several times over (assumed)."""
GROWS = "the batch grows with the cards"
NIC = "a network card of 400 Gb/s"


def efficiency(
    model: str,
    sizes: tuple[int, int],
    batches: tuple[int, int],
    space: Space,
    *changed: str,
    sequence: int = SEQUENCE,
) -> Estimate | None:
    """Tokens/s/card on the larger cluster over the smaller, in percent; None where nothing fits or multiplies up.

    Only what differs between the sizes contributes to the width. With c and x the shares of the step that are
    computing and exposed communication on the small and the large cluster, w their relative widths, and r the
    correlation of the computing's errors (1 where both run the same kernels, else ``SHARED``):

        width² = (c_s² + c_l² − 2 r c_s c_l) w_c² + (x_s² + x_l² − 2 · SHARED · x_s x_l) w_x²
    """
    try:
        rows = [
            plan(model, S5000, n, batch, sequence, Precision.BF16, space, changed).best
            for n, batch in zip(sizes, batches)
        ]
    except WindtunnelError:
        return None
    small, large = rows
    if small is None or large is None:
        return None
    value = 100 * large.tokens_per_s_per_gpu.value / small.tokens_per_s_per_gpu.value
    computing, network = _computing_width(large), _network_width(sizes[1])
    r = 1.0 if _kernels(small) == _kernels(large) else SHARED
    c, x = (_shares(small), _shares(large)), (1 - _shares(small), 1 - _shares(large))
    width = math.sqrt(
        max(0.0, c[0] ** 2 + c[1] ** 2 - 2 * r * c[0] * c[1]) * computing**2
        + max(0.0, x[0] ** 2 + x[1] ** 2 - 2 * SHARED * x[0] * x[1]) * network**2
    )
    return Estimate(value, value / (1 + width), value * (1 + width), large.tokens_per_s_per_gpu.shares)


def _shares(row: PlanRow) -> float:
    """Share of the step that is not exposed communication."""
    return 1 - row.parts.exposed_comm_s / row.step_time_s.value


def _computing_width(row: PlanRow) -> float:
    step = row.step_time_s
    return math.sqrt(step.high / step.value * step.value / step.low) - 1


def _network_width(cards: int) -> float:
    why = collective(Collective.ALL_GATHER, float(1 << 30), card(), cards)
    return math.sqrt(why.high_s / why.low_s) - 1


def _kernels(row: PlanRow) -> tuple[object, ...]:
    """What decides which kernels a rank runs, whatever the number of ranks."""
    return (
        row.tensor,
        row.pipeline,
        row.chunks,
        row.context,
        row.expert,
        row.micro_batch,
        row.recompute,
        row.sharding,
    )


def _setting(
    label: str,
    model: str,
    sizes: tuple[int, int],
    batches: tuple[int, int],
    space: Space = BEST,
    sequence: int = SEQUENCE,
) -> Setting | None:
    if (found := efficiency(model, sizes, batches, space, sequence=sequence)) is None:
        return None
    weak = " --weak" if batches[1] > batches[0] else ""
    layout = "" if space is BEST else f" --tp {space.tensor} --pp {space.pipeline}"
    layout += " --fsdp" if space.sharding else ""
    layout += f" --micro-batch {space.micro_batch} --recompute {space.recompute}" if space.micro_batch else ""
    command = (
        f"windtunnel plan {model} --on {S5000} --scale {sizes[0]},{sizes[1]}{weak} --global-batch {batches[0]}"
        f" --sequence {sequence}{layout}"
    )
    return Setting(label=label, prediction=found, bound=100.0, command=command)


def _region(base: int, sizes: tuple[int, ...], batches: tuple[tuple[str, str, float, bool], ...]) -> Region:
    def cell(row: tuple[str, float, bool], cards: int) -> Estimate | None:
        model, a_card, grows = row
        last = int(a_card * cards) if grows else int(a_card * base)
        return efficiency(model, (base, cards), (int(a_card * base), last), SAME[model])

    return table(
        f"% of the speed of {base:,} cards; 70B as TP8, 8B as TP1, parameters sharded over the rest",
        "cards",
        tuple((label, (model, a_card, grows)) for label, model, a_card, grows in batches),
        tuple((f"{n:,}", n) for n in sizes),
        cell,
    )


def _turns(sizes: tuple[int, int], batch: int, figure: float) -> tuple[Turn, ...]:
    def network(value: float) -> float | None:
        grown = batch * sizes[1] // sizes[0]
        found = efficiency(MODEL, sizes, (batch, grown), SAME[MODEL], f"nic_bytes_per_s={value * 1e9}")
        return None if found is None else found.value

    return (
        solve(
            "network card, TP8 on both sizes",
            "GB/s",
            50.0,
            better=200.0,
            worse=5.0,
            figure=figure,
            predict=network,
        ),
    )


def _scaled(
    sizes: tuple[int, int], batch: int, figure: float, region: Region, others: tuple[Setting | None, ...]
) -> Answer:
    grown = batch * sizes[1] // sizes[0]
    same = SAME[MODEL]
    settings = (
        _setting(
            f"Llama-3-70B, batch grows {batch:,} → {grown:,}, best layout at each size",
            MODEL,
            sizes,
            (batch, grown),
        ),
        _setting(
            f"Llama-3-70B, batch grows {batch:,} → {grown:,}, TP8 at both", MODEL, sizes, (batch, grown), same
        ),
        _setting(
            f"Llama-3-70B, fixed batch {sizes[1]:,}, TP8 at both", MODEL, sizes, (sizes[1], sizes[1]), same
        ),
        _setting(
            f"Llama-3-8B, batch grows {batch:,} → {grown:,}, TP1 at both",
            SMALL_MODEL,
            sizes,
            (batch, grown),
            SAME[SMALL_MODEL],
        ),
        *others,
    )
    varied = (
        (
            GROWS,
            f"fixed, one sequence a card at {sizes[1]:,}",
            efficiency(MODEL, sizes, (sizes[1], sizes[1]), same),
        ),
        (
            "a few sequences for each card",
            "four times the batch",
            efficiency(MODEL, sizes, (4 * batch, 4 * grown), same),
        ),
        (NIC, "200 Gb/s", efficiency(MODEL, sizes, (batch, grown), same, "nic_bytes_per_s=25e9")),
        ("Llama-3-70B", "Llama-3-8B", efficiency(SMALL_MODEL, sizes, (batch, grown), SAME[SMALL_MODEL])),
        ("one layout at both sizes", "the best at each", efficiency(MODEL, sizes, (batch, grown), BEST)),
    )
    rows = [
        plan(MODEL, S5000, n, b, SEQUENCE, Precision.BF16, same).best for n, b in zip(sizes, (batch, grown))
    ]
    return Answer(
        settings=tuple(setting for setting in settings if setting is not None),
        variations=tuple(
            Variation(of=of, becomes=becomes, prediction=found)
            for of, becomes, found in varied
            if found is not None
        ),
        regions=(region,),
        turns=_turns(sizes, batch, figure),
        would_take="a batch that grows with the cards, or exchange that stays hidden behind compute at a fixed one",
        why=(
            "efficiency = tokens/s/card over that of the smaller cluster",
            *(
                f"{n:,} cards, {layout_words(row)}: {row.tokens_per_s_per_gpu.value:,.0f} tokens/s/card; step "
                f"{row.step_time_s.value:.2f} s, of which exchange not hidden {row.parts.exposed_comm_s:.2f} s"
                for n, row in zip(sizes, rows)
                if row is not None
            ),
            "width: what both sizes compute alike cancels; left are the exchange, and kernels of other "
            "shapes where the "
            "layouts differ",
            *kernel_lines(MODEL, sizes[1], grown, SEQUENCE, same, S5000),
        ),
    )


def _to_1024() -> Answer:
    batches = (
        ("70B, 1 a card, grows", MODEL, 1.0, True),
        ("70B, fixed 1,024", MODEL, 16.0, False),
        ("70B, fixed 256", MODEL, 4.0, False),
        ("8B, 1 a card, grows", SMALL_MODEL, 1.0, True),
        ("8B, fixed 1,024", SMALL_MODEL, 16.0, False),
    )
    robobrain = Space(tensor=2, pipeline=2, recompute=Recompute.NONE, micro_batch=1)
    sizes = (64, 1024)
    others = (
        _setting(
            "RoboBrain's published job: 8B, TP2 PP2, fixed batch of 1,024 × 16,384",
            "qwen3-vl-8b",
            sizes,
            (1024, 1024),
            robobrain,
            16_384,
        ),
    )
    return _scaled(sizes, 256, 90.0, _region(64, (128, 256, 512, 1024), batches), others)


def _to_10240() -> Answer:
    batches = (
        ("70B, 1 a card, grows", MODEL, 1.0, True),
        ("70B, 4 a card, grows", MODEL, 4.0, True),
        ("70B, fixed 10,240", MODEL, 10.0, False),
        ("8B, 1 a card, grows", SMALL_MODEL, 1.0, True),
    )
    return _scaled((1024, CARDS), 1024, 95.0, _region(1024, (2048, 5120, CARDS), batches), ())


def _goodput(cards: int, card_hours: float, restart_s: float, stop_s: float = STOP_S) -> Estimate:
    every_s = max(best_interval_s(stop_s, card_hours * 3600 / cards), 60.0)
    reliability = Reliability(
        card_hours_per_failure=card_hours,
        restart_s=restart_s,
        checkpoint_s=stop_s,
        checkpoint_interval_s=every_s,
        straggler_sigma=0.0,
    )
    runs = sorted(
        simulate(30 * 86_400.0, cards, reliability, seed=n).effective_fraction * 100 for n in range(HISTORIES)
    )
    mean = sum(runs) / len(runs)
    low, high = runs[len(runs) // 10], runs[-1 - len(runs) // 10]
    return Estimate(mean, min(low, mean), max(high, mean), ((Source.ASSUMED, 1.0),))


def _effective_time() -> Answer:
    settings = tuple(
        Setting(
            label=f"{cards:,} cards, 30 days, failures as Llama 3's run had them, back in 15 min",
            prediction=_goodput(cards, CARD_HOURS_PER_FAILURE, RESTART_S),
            bound=100.0,
            command=f"windtunnel run --on mtt-s5000:{cards} --days 30 examples/train_gpt.py --steps 2",
        )
        for cards in (1024, CARDS)
    )

    def region(hours: float, minutes: float) -> Estimate:
        return _goodput(CARDS, hours, minutes * 60)

    rate, back = "failures as on published H100 clusters", "back 15 minutes after a failure"
    hours = CARD_HOURS_PER_FAILURE
    return Answer(
        settings=settings,
        variations=(
            Variation(
                of=rate,
                becomes="three times as often, 10,240 cards",
                prediction=_goodput(CARDS, hours / 3, RESTART_S),
            ),
            Variation(
                of=rate,
                becomes="three times as often, 1,024 cards",
                prediction=_goodput(1024, hours / 3, RESTART_S),
            ),
            Variation(
                of=back, becomes="an hour, 10,240 cards", prediction=_goodput(CARDS, hours, 4 * RESTART_S)
            ),
            Variation(
                of=back, becomes="an hour, 1,024 cards", prediction=_goodput(1024, hours, 4 * RESTART_S)
            ),
            Variation(
                of="a checkpoint stops training for 5 s",
                becomes="a minute, 10,240 cards",
                prediction=_goodput(CARDS, hours, RESTART_S, 60.0),
            ),
        ),
        steady=(
            Steady(
                of="no stragglers",
                why="time lost to slow ranks is in the step, as a lower MFU; effective time is "
                "counted in steps done",
            ),
        ),
        regions=(
            table(
                f"% of 30 days that train, {CARDS:,} cards",
                "minutes until training is back",
                tuple(
                    (f"a failure every {n:,.0f} card hours", n)
                    for n in (hours * 3, hours, hours / 2, hours / 4)
                ),
                tuple((f"{n:g} min", n) for n in (5.0, 15.0, 30.0, 60.0)),
                region,
            ),
        ),
        turns=(
            solve(
                f"card hours for each failure, {CARDS:,} cards",
                "h",
                hours,
                better=hours * 100,
                worse=hours / 100,
                figure=90.0,
                predict=lambda value: _goodput(CARDS, value, RESTART_S).value,
            ),
            solve(
                f"time to be back, {CARDS:,} cards",
                "min",
                RESTART_S / 60,
                better=0.1,
                worse=600.0,
                figure=90.0,
                predict=lambda value: _goodput(CARDS, hours, value * 60).value,
            ),
        ),
        would_take="failures no more frequent than on published H100 clusters, and a restart within minutes",
        why=(
            f"419 interruptions in 54 days on 16,384 H100 (arXiv 2407.21783): {hours:,.0f} card hours each",
            "fault found and diagnosed in less than 10 minutes and caught up from the last checkpoint within 15, over "
            "90 % effective (MegaScale, arXiv 2402.15627, section 6.3): taken as 15 minutes beside the work lost",
            f"a checkpoint stops training for {STOP_S:g} s (assumed); Young's interval between checkpoints",
        ),
    )


SCALING = (GROWS, "a few sequences for each card", NIC, "Llama-3-70B", "one layout at both sizes")
CLAIMS = (
    Claim(
        name="scaling-1024",
        group=GROUP,
        title="More than 90 % from 64 to 1,024 cards",
        says=Says.AT_LEAST,
        figure=90.0,
        unit="%",
        wording="from 64 to 1,024 cards above 90 %, training speed scaling nearly synchronously with computing power",
        said=PRESS,
        workload="neither model, batch nor weak or strong is stated",
        assumed=SCALING,
        command=f"windtunnel plan llama3-70b --on {S5000} --scale 64,1024 --weak --global-batch 256",
        evaluate=_to_1024,
    ),
    Claim(
        name="scaling-10240",
        group=GROUP,
        title="95 % linear scaling",
        says=Says.AT_LEAST,
        figure=95.0,
        unit="%",
        wording="linear scaling efficiency 95 %",
        said=PRESS,
        workload="the ten-thousand-card cluster; base not stated (1,024 cards taken)",
        assumed=SCALING,
        command=f"windtunnel plan llama3-70b --on {S5000} --scale 1024,10240 --weak --global-batch 1024",
        evaluate=_to_10240,
    ),
    Claim(
        name="effective-time",
        group=GROUP,
        title="Effective training time above 90 %",
        says=Says.AT_LEAST,
        figure=90.0,
        unit="%",
        wording="effective training time above 90 %",
        said="21jingji and jianzhiguan, 2025",
        workload="neither failures nor restart times are stated",
        assumed=(
            "failures as on published H100 clusters",
            "back 15 minutes after a failure",
            "a checkpoint stops training for 5 s",
            "no stragglers",
        ),
        command="windtunnel run --on mtt-s5000:1024 --days 30 examples/train_gpt.py --steps 2",
        evaluate=_effective_time,
    ),
)
