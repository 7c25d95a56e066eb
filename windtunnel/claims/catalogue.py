"""All claims, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from windtunnel.claims import (
    agent_claims,
    card_claims,
    comparison_claims,
    deepseek_claims,
    fp8_claims,
    model_claims,
    scaling_claims,
    science_claims,
    serving_claims,
    stack_claims,
    training_claims,
)
from windtunnel.claims.claim import Claim
from windtunnel.claims.verdict import Finding, judge
from windtunnel.errors import WindtunnelError
from windtunnel.specs.table import did_you_mean

CLAIMS: tuple[Claim, ...] = (
    *card_claims.CLAIMS,
    *comparison_claims.CLAIMS,
    *fp8_claims.CLAIMS,
    *stack_claims.CLAIMS,
    *training_claims.CLAIMS,
    *scaling_claims.CLAIMS,
    *deepseek_claims.CLAIMS,
    *serving_claims.CLAIMS,
    *model_claims.CLAIMS,
    *agent_claims.CLAIMS,
    *science_claims.CLAIMS,
)


def named(names: Sequence[str]) -> tuple[Claim, ...]:
    """The claims called ``names``, or all of them.

    Raises:
        WindtunnelError: E801, there is no such claim.
    """
    known = {claim.name: claim for claim in CLAIMS}
    for name in names:
        if name not in known:
            raise WindtunnelError(
                "E801",
                f"no claim is called `{name}`",
                values={"claims": ", ".join(known)},
                hint=f"{did_you_mean(name, list(known))}windtunnel claims",
            )
    return tuple(known[name] for name in names) if names else CLAIMS


def check(
    claims: Sequence[Claim], progress: Callable[[str], None] = lambda state: None
) -> tuple[Finding, ...]:
    """Evaluate and judge."""
    found = []
    for number, claim in enumerate(claims, 1):
        progress(f"{number} of {len(claims)}: {claim.name}")
        found.append(judge(claim, claim.evaluate()))
    return tuple(found)
