"""What a request gives back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
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


class Result:
    """The answer to one request. Read-only; it can be compared, copied and pickled."""

    __slots__ = (
        "_document", "_rest", "experts_used", "finish_reason", "output", "text", "timings", "tokens", "usage"
    )  # fmt: skip

    text: str
    output: str  # text without a leading think block and outer blank space
    tokens: list[int]  # those of a cut stop string included, without the end token
    experts_used: list[ExpertUsed]
    finish_reason: str  # "stop", "length", "timeout", "cancelled"
    usage: Usage
    timings: Timings
    _document: _core.ResultDocument | str
    _rest: dict[str, Any] | None

    def __init__(self, fields: _core.ResultFields, document: _core.ResultDocument | str) -> None:
        text, output, tokens, experts, finish_reason, usage, timings = fields
        put, row = object.__setattr__, tuple.__new__  # _make() would count the fields again, for each request
        put(self, "text", text)
        put(self, "output", output)
        put(self, "tokens", tokens)
        put(self, "experts_used", [row(ExpertUsed, expert) for expert in experts])
        put(self, "finish_reason", finish_reason)
        put(self, "usage", row(Usage, usage))
        put(self, "timings", row(Timings, timings))
        put(self, "_document", document)
        put(self, "_rest", None)

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

    def _json(self) -> str:
        document = self._document
        return document if isinstance(document, str) else document.json()

    def _parsed(self) -> dict[str, Any]:
        # What few callers look at is made from the document when one does.
        if self._rest is not None:
            return self._rest
        rest: dict[str, Any] = json.loads(self._json())
        object.__setattr__(self, "_rest", rest)
        return rest

    @classmethod
    def _from_json(cls, document: str) -> Result:
        raw = json.loads(document)
        experts = [(expert["name"], expert["version"], expert["weight"]) for expert in raw["experts_used"]]
        usage, timings = Usage(**raw["usage"]), Timings(**raw["timings"])
        fields = (raw["text"], raw["output"], raw["tokens"], experts, raw["finish_reason"], usage, timings)
        return cls(fields, document)

    def __reduce__(self) -> Any:
        return Result._from_json, (self._json(),)

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
