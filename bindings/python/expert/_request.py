"""From keyword arguments to the request of the C interface. A wrong type is a TypeError, a wrong value an
InvalidRequestError; what depends on the model is checked by the engine."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from . import _core
from .errors import InvalidRequestError


class RequestOptions(TypedDict, total=False):
    """The keywords of infer(), stream(), submit() and route() beside `prompt`. What is left out comes from the expert's
    manifest, then the model's generation_config.json, then the default named here. None is as good as absent."""

    messages: Any  # instead of prompt: [{"role": …, "content": …}, …]
    tools: Any  # a list for the chat template
    template_variables: Any  # a dict for the chat template
    schema: str | None  # placed by the expert's manifest
    body: str | None  # after the prompt, after a blank line
    experts: Any  # "auto", or a list of Expert, name, path or (one of them, weight); []: the base
    max_tokens: int | None  # >= 1. 512
    temperature: float | None  # >= 0, 0: greedy. 0.7
    top_p: float | None  # (0, 1]. 1
    top_k: int | None  # >= 0, 0: off. 0
    min_p: float | None  # [0, 1). 0
    repetition_penalty: float | None  # > 0. 1
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None  # [0, 2**64 - 2]; random when left out
    stop: str | Sequence[str] | None
    logit_bias: Mapping[int, float] | None
    logprobs: int | None  # report the chosen token and this many best ones
    ignore_eos: bool | None
    trace: bool | None  # result.trace: what happened to the request, step by step
    raw: bool | None  # no chat template
    special_in_text: bool | None  # False: special tokens spelled in the caller's text are ordinary text
    priority: int | None  # 0: normal, higher first
    deadline_ms: float | None  # then finish_reason "timeout"
    caller: str | None  # callers share the machine fairly
    cache_salt: str | None


_INT32 = 2**31 - 1
_UNSET_SEED = 2**64 - 1  # how expert.h spells "random"


def text_bytes(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{name} is not valid Unicode: {error}") from None


def c_text_bytes(name: str, value: Any) -> bytes:
    """Text that C reads up to its first NUL."""
    encoded = text_bytes(name, value)
    if b"\0" in encoded:
        raise InvalidRequestError(f"{name} contains a NUL character")
    return encoded


def path_bytes(name: str, value: Any) -> bytes:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a str or a path, not {type(value).__name__}")
    encoded = os.fsencode(value)
    if b"\0" in encoded:
        raise InvalidRequestError(f"{name} contains a NUL character")
    return encoded


def json_bytes(name: str, value: Any, kind: type) -> bytes:
    if not isinstance(value, kind) or isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a {kind.__name__.lower()}, not {type(value).__name__}")
    plain: Any = value
    plain = dict(plain) if isinstance(plain, Mapping) else list(plain)
    try:
        return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{name} is not JSON: {error}") from None


def integer(name: str, value: Any, least: int = -_INT32, most: int = _INT32) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    whole: int = value.__index__()
    if not least <= whole <= most:
        raise InvalidRequestError(f"{name} is {whole}, outside [{least}, {most}]")
    return whole


def number(name: str, value: Any) -> float:
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    try:
        real = float(value)
    except OverflowError:  # of an int
        real = math.inf
    if not math.isfinite(real):
        raise InvalidRequestError(f"{name} is not a finite number")
    return real


def token_ids(value: Any) -> list[int]:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise TypeError(f"ids must be a sequence of ints, not {type(value).__name__}")
    return [integer("a token id", token) for token in value]


def _use(entry: Any, weight: float = 1.0) -> tuple[_core.Expert | None, bytes | None, float]:
    handle = getattr(entry, "_core", None)
    if isinstance(handle, _core.Expert):
        return handle, None, weight
    if isinstance(entry, (str, os.PathLike)):
        return None, path_bytes("an expert", entry), weight
    if isinstance(entry, Sequence) and len(entry) == 2:
        return _use(entry[0], number("the weight of an expert", entry[1]))
    raise TypeError(f"an expert is an Expert, a name, a path, or (one of them, weight), not {type(entry).__name__}")


def uses(experts: Any) -> list[_core.Use]:
    if isinstance(experts, (str, bytes, Mapping)) or not isinstance(experts, Sequence):
        raise TypeError('experts must be "auto" or a list')
    return [_use(entry) for entry in experts]


def _set_experts(request: _core.Request, name: str, experts: Any) -> None:
    if isinstance(experts, str) and experts == "auto":
        return
    if isinstance(experts, str):
        raise InvalidRequestError(f"experts is {experts!r}", 'use "auto", or a list: ["sql"]')
    request.experts = uses(experts)


def _set_stop(request: _core.Request, name: str, stop: Any) -> None:
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, Sequence) or isinstance(stop, bytes):
        raise TypeError(f"stop must be a str or a list of str, not {type(stop).__name__}")
    request.stop = [c_text_bytes("a stop string", text) for text in stop]


def _set_logit_bias(request: _core.Request, name: str, bias: Any) -> None:
    if not isinstance(bias, Mapping):
        raise TypeError(f"logit_bias must be a dict of token id to number, not {type(bias).__name__}")
    request.logit_bias_tokens = [integer("a token id of logit_bias", token) for token in bias]
    request.logit_bias_values = [number("a value of logit_bias", value) for value in bias.values()]


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {type(value).__name__}")
    return value


def _set_text(request: _core.Request, name: str, value: Any) -> None:
    setattr(request, name, text_bytes(name, value))


def _set_c_text(request: _core.Request, name: str, value: Any) -> None:
    setattr(request, name, c_text_bytes(name, value))


def _set_number(request: _core.Request, name: str, value: Any) -> None:
    setattr(request, name, number(name, value))


def _set_integer(request: _core.Request, name: str, value: Any) -> None:
    setattr(request, name, integer(name, value))


def _set_flag(request: _core.Request, name: str, value: Any) -> None:
    setattr(request, name, _boolean(name, value))


def _set_list(request: _core.Request, name: str, value: Any) -> None:
    setattr(request, name, json_bytes(name, value, Sequence))


def _set_variables(request: _core.Request, name: str, value: Any) -> None:
    setattr(request, name, json_bytes(name, value, Mapping))


def _set_special_in_text(request: _core.Request, name: str, value: Any) -> None:
    request.plain_text = not _boolean(name, value)


def _set_seed(request: _core.Request, name: str, value: Any) -> None:
    request.seed = integer(name, value, 0, _UNSET_SEED - 1)


_SETTERS = {
    "schema": _set_text,
    "body": _set_text,
    "caller": _set_c_text,
    "cache_salt": _set_c_text,
    "messages": _set_list,
    "tools": _set_list,
    "template_variables": _set_variables,
    "temperature": _set_number,
    "top_p": _set_number,
    "min_p": _set_number,
    "repetition_penalty": _set_number,
    "presence_penalty": _set_number,
    "frequency_penalty": _set_number,
    "deadline_ms": _set_number,
    "top_k": _set_integer,
    "max_tokens": _set_integer,
    "logprobs": _set_integer,
    "priority": _set_integer,
    "raw": _set_flag,
    "ignore_eos": _set_flag,
    "trace": _set_flag,
    "special_in_text": _set_special_in_text,
    "seed": _set_seed,
    "experts": _set_experts,
    "stop": _set_stop,
    "logit_bias": _set_logit_bias,
}


def build(prompt: str | None = None, **given: Any) -> _core.Request:
    """The request of these keywords; None is as good as absent."""
    request = _core.Request()
    if prompt is not None:
        request.prompt = text_bytes("prompt", prompt)
    for name, value in given.items():
        setter = _SETTERS.get(name)
        if setter is None:
            raise TypeError(f"unexpected keyword argument {name!r}")
        if value is not None:
            setter(request, name, value)
    return request
