"""One small base language model stays resident, many experts bend it per request.

import expert

engine = expert.Engine()
result = engine.infer("Find all users older than 25", schema="users(id,name,age)")
print(result.output)
"""

from ._core import version as __version__
from .engine import Engine, Expert, Handle, Stream
from .errors import (
    CancelledError,
    ClosedError,
    ExpertError,
    GrammarError,
    IncompatibleError,
    InferenceError,
    InvalidRequestError,
    LoadError,
    ManifestError,
    OutOfMemoryError,
    SignatureError,
    UnsupportedError,
)
from .library import bench, generate_key, home, library_info, models, packages, set_log_callback, trust
from .results import Chunk, ExpertUsed, Plan, Result, RoutedExpert, Timings, TokenLogprob, TokenLogprobs, Usage

__all__ = [
    "CancelledError",
    "Chunk",
    "ClosedError",
    "Engine",
    "Expert",
    "ExpertError",
    "ExpertUsed",
    "GrammarError",
    "Handle",
    "IncompatibleError",
    "InferenceError",
    "InvalidRequestError",
    "LoadError",
    "ManifestError",
    "OutOfMemoryError",
    "Plan",
    "Result",
    "RoutedExpert",
    "SignatureError",
    "Stream",
    "Timings",
    "TokenLogprob",
    "TokenLogprobs",
    "UnsupportedError",
    "Usage",
    "__version__",
    "bench",
    "generate_key",
    "home",
    "library_info",
    "models",
    "packages",
    "set_log_callback",
    "trust",
]
