"""Typed access to the keys of a model configuration."""

from __future__ import annotations

from collections.abc import Mapping

from windtunnel.errors import WindtunnelError

_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("d_model", "n_embd"),
    "num_hidden_layers": ("n_layers", "n_layer"),
    "num_attention_heads": ("n_heads", "n_head"),
    "intermediate_size": ("ffn_hidden_size", "n_inner"),
    "num_experts": ("num_local_experts",),
    "max_position_embeddings": ("n_positions",),
}


class Config:
    """A configuration of one model; sizes are positive whole numbers."""

    def __init__(self, keys: Mapping[str, object], name: str) -> None:
        self._keys = keys
        self._name = name

    def get(self, key: str, default: object = None) -> object:
        """A value under its key or one of the key's other names; None counts as absent."""
        for known in (key, *_OTHER_NAMES.get(key, ())):
            value = self._keys.get(known)
            if value is not None:
                return value
        return default

    def has(self, key: str) -> bool:
        """Whether the key is there and not None."""
        return self.get(key) is not None

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number above 0 (or the default).

        Raises:
            WindtunnelError: E304, missing without default, or not a positive whole number.
        """
        value = self.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < (1 if default is None else 0):
            state = "is missing" if value is None else f"is {value!r}, not a positive whole number"
            raise WindtunnelError(
                "E304",
                f"`{key}` {state} in the model configuration{f' of {self._name}' if self._name else ''}",
                hint=f'add "{key}": <number> to the configuration',
                values={"key": key, "value": value},
            )
        return value

    def flag(self, key: str, default: bool) -> bool:
        """A switch."""
        return bool(self.get(key, default))

    def text(self, key: str, default: str = "") -> str:
        """A word."""
        return str(self.get(key, default))

    def words(self, key: str) -> list[str]:
        """A list of words; empty where absent."""
        value = self.get(key)
        return [str(item) for item in value] if isinstance(value, (list, tuple)) else []

    def numbers(self, key: str) -> list[int]:
        """A list of whole numbers; empty where absent."""
        value = self.get(key)
        return [int(item) for item in value] if isinstance(value, (list, tuple)) else []

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.size("hidden_size")

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return self.size("num_hidden_layers")

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.size("num_attention_heads")

    @property
    def kv_heads(self) -> int:
        """Key-value heads; as many as queries where not said.

        Raises:
            WindtunnelError: E304, the query heads are no multiple of them.
        """
        found = self.size("num_key_value_heads", self.heads)
        if not found or self.heads % found:
            whole = [number for number in range(1, self.heads + 1) if self.heads % number == 0]
            nearest = min(whole, key=lambda number: abs(number - found))
            raise WindtunnelError(
                "E304",
                f"{self.heads} attention heads are no multiple of {found} key-value heads in the model configuration"
                f"{f' of {self._name}' if self._name else ''}",
                hint=f'each key-value head serves as many heads: "num_key_value_heads": {nearest}',
                values={"num_attention_heads": self.heads, "num_key_value_heads": found},
            )
        return found

    @property
    def head_dim(self) -> int:
        """Width of one head; the hidden size shared out where not said."""
        return self.size("head_dim", self.hidden // self.heads)

    def rotary_dims(self, default: float = 1.0) -> int:
        """Numbers of a head that the rotary embedding turns; 0: all. ``default``: the share where it is not said."""
        parameters = self.get("rope_parameters", self.get("rope_scaling"))
        inner = parameters.get("partial_rotary_factor") if isinstance(parameters, Mapping) else None
        share = self.get("partial_rotary_factor", inner if inner is not None else default)
        return int(self.head_dim * share) if isinstance(share, (int, float)) and 0 < share < 1 else 0
