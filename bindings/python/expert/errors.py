"""What can go wrong. Every error carries `hint`: what can be done about it, or an empty string."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .results import Result


class ExpertError(Exception):
    """The root of all errors of this package."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint


class LoadError(ExpertError):
    """A file that cannot be used: missing, truncated, malformed."""


class ManifestError(LoadError):
    """A manifest.json that breaks its rules."""


class SignatureError(LoadError):
    """Unsigned, an unknown publisher, or altered bytes."""


class IncompatibleError(LoadError):
    """Well formed, but not for this base model."""


class UnsupportedError(LoadError):
    """Known by name, not built (yet)."""


class InferenceError(ExpertError):
    """A request that failed."""


class InvalidRequestError(InferenceError, ValueError):
    """The arguments of a request."""


class OutOfMemoryError(InferenceError):
    """A limit of the engine or of the machine; also a full queue."""


class GrammarError(InferenceError):
    """A grammar that cannot be used."""


class ClosedError(InferenceError):
    """The engine was closed, or the expert unloaded."""


class CancelledError(InferenceError):
    """The request was cancelled; `partial` holds the answer until then."""

    def __init__(self, message: str, hint: str = "", partial: Result | None = None) -> None:
        super().__init__(message, hint)
        self.partial = partial


_BY_STATUS = {
    "invalid_request": InvalidRequestError,
    "load": LoadError,
    "manifest": ManifestError,
    "signature": SignatureError,
    "incompatible": IncompatibleError,
    "out_of_memory": OutOfMemoryError,
    "grammar": GrammarError,
    "cancelled": CancelledError,
    "unsupported": UnsupportedError,
    "inference": InferenceError,
    "closed": ClosedError,
}


def from_status(status: str, message: str, hint: str) -> Exception:
    """The error of a status of the C interface. `timeout` is Python's own TimeoutError."""
    if status == "timeout":
        return TimeoutError(message)
    return _BY_STATUS.get(status, ExpertError)(message, hint)
