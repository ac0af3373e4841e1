"""What a request gives back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple


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


@dataclass(frozen=True)
class TokenLogprobs:
    """The chosen token of one position and the best ones there."""

    token: int
    logprob: float
    top: list[TokenLogprob]


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_virtual_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class Timings:
    """Milliseconds; tokens_per_second counts the decode alone."""

    queue_ms: float
    prefill_ms: float
    first_token_ms: float
    decode_ms: float
    total_ms: float
    tokens_per_second: float


@dataclass(frozen=True)
class Result:
    text: str
    output: str  # text without a leading think block and outer blank space
    tokens: list[int]  # those of a cut stop string included, without the end token
    experts_used: list[ExpertUsed]
    finish_reason: str  # "stop", "length", "timeout", "cancelled"
    usage: Usage
    timings: Timings
    plan: dict[str, Any]
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    trace: Any = None  # when the request asked for it

    @property
    def latency_ms(self) -> float:
        """From submit to the end."""
        return self.timings.total_ms

    @classmethod
    def from_json(cls, document: str) -> Result:
        raw = json.loads(document)
        return cls(
            text=raw["text"],
            output=raw["output"],
            tokens=raw["tokens"],
            experts_used=[ExpertUsed(**expert) for expert in raw["experts_used"]],
            finish_reason=raw["finish_reason"],
            usage=Usage(**raw["usage"]),
            timings=Timings(**raw["timings"]),
            plan=raw["plan"],
            logprobs=[_position(position) for position in raw.get("logprobs", [])],
            trace=raw.get("trace"),
        )


def _position(raw: dict[str, Any]) -> TokenLogprobs:
    return TokenLogprobs(raw["token"], raw["logprob"], [TokenLogprob(**token) for token in raw["top"]])


@dataclass(frozen=True)
class Chunk:
    """A piece of a stream. The last one carries the whole result."""

    text: str
    tokens: list[int]
    result: Result | None = None


@dataclass(frozen=True)
class Plan:
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
