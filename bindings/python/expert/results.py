"""What a request gives back."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, NoReturn

from . import _core

# Plain classes: importing dataclasses would take as long as the rest of this package.


class ExpertUsed(NamedTuple):
    name: str
    version: str
    weight: float


class RoutedExpert(NamedTuple):
    name: str
    weight: float
    score: float
    reason: str


class TokenLogprob(NamedTuple):
    token: int
    logprob: float


class TokenLogprobs(NamedTuple):
    """The chosen token of one position and the best ones there."""

    token: int
    logprob: float
    top: list[TokenLogprob]


class Usage(NamedTuple):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_virtual_tokens: int
    cached_tokens: int


class Timings(NamedTuple):
    """Milliseconds; tokens_per_second counts the decode alone."""

    queue_ms: float
    prefill_ms: float
    first_token_ms: float
    decode_ms: float
    total_ms: float
    tokens_per_second: float


class Result(_core.ResultBase):
    """The answer to one request. Read-only; it can be compared, copied and pickled."""

    __slots__ = ("_rest",)

    text: str
    output: str  # text without a leading think block and outer blank space
    tokens: list[int]  # those of a cut stop string included, without the end token
    experts_used: list[ExpertUsed]
    finish_reason: str  # "stop", "length", "timeout", "cancelled"
    usage: Usage
    timings: Timings
    _rest: dict[str, Any]

    @property
    def latency_ms(self) -> float:
        """From submit to the end."""
        return self.timings.total_ms

    @property
    def plan(self) -> dict[str, Any]:
        """The routing decision and the parameters that were in force."""
        plan: dict[str, Any] = self._parsed()["plan"]
        return plan

    @property
    def logprobs(self) -> list[TokenLogprobs]:
        """One for each token where the request asked for them."""
        parsed = self._parsed()
        if "positions" not in parsed:
            parsed["positions"] = [_position(position) for position in parsed.get("logprobs", [])]
        positions: list[TokenLogprobs] = parsed["positions"]
        return positions

    @property
    def trace(self) -> Any:
        """What happened to the request, when it asked for that."""
        return self._parsed().get("trace")

    def _parsed(self) -> dict[str, Any]:
        # What few callers look at is made from the document when one does.
        try:
            return self._rest
        except AttributeError:
            object.__setattr__(self, "_rest", json.loads(_core.result_json(self)))
            return self._rest

    @classmethod
    def _from_json(cls, document: str) -> Result:
        raw = json.loads(document)
        experts = [ExpertUsed(**expert) for expert in raw["experts_used"]]
        usage, timings = Usage(**raw["usage"]), Timings(**raw["timings"])
        return cls(raw["text"], raw["output"], raw["tokens"], experts, raw["finish_reason"], usage, timings, document)

    def __reduce__(self) -> Any:
        return Result._from_json, (_core.result_json(self),)

    def _shown(self) -> dict[str, Any]:
        names = (
            "text",
            "output",
            "tokens",
            "experts_used",
            "finish_reason",
            "usage",
            "timings",
            "plan",
            "logprobs",
            "trace",
        )
        return {name: getattr(self, name) for name in names}

    def __eq__(self, other: object) -> bool:
        return self._shown() == other._shown() if isinstance(other, Result) else NotImplemented

    def __repr__(self) -> str:
        return f"Result({', '.join(f'{name}={value!r}' for name, value in self._shown().items())})"

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a Result is read-only: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Result is read-only: {name}")


_core.set_types(Result, ExpertUsed, Usage, Timings)


def _position(raw: dict[str, Any]) -> TokenLogprobs:
    return TokenLogprobs(raw["token"], raw["logprob"], [TokenLogprob(**token) for token in raw["top"]])


class Chunk(NamedTuple):
    """A piece of a stream. The last one carries the whole result."""

    text: str
    tokens: list[int]
    result: Result | None = None


class Plan(NamedTuple):
    """What the router decided."""

    experts: list[RoutedExpert]
    parameters: dict[str, Any]
    explanation: str
    confidence: float

    @classmethod
    def from_json(cls, document: str) -> Plan:
        raw = json.loads(document)
        chosen = [RoutedExpert(e["name"], e["weight"], e["score"], e["reason"]) for e in raw["experts"]]
        return cls(chosen, raw["parameters"], raw["explanation"], raw["confidence"])
