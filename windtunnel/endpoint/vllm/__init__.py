"""The real vLLM on virtual cards: a platform and an executor of ours, everything else is vLLM's.

vLLM finds ``register`` through its entry point group ``vllm.platform_plugins``. It answers only where
``WINDTUNNEL_ON`` names a chip: an environment with real cards is left alone.
"""

from __future__ import annotations

from windtunnel.endpoint.vllm.settings import asked_for


def register() -> str | None:
    """The platform's class for vLLM; None where no virtual card is asked for."""
    if not asked_for():
        return None
    from windtunnel.endpoint.vllm.stand_ins import install

    install()
    return "windtunnel.endpoint.vllm.platform.VirtualPlatform"
