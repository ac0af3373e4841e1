"""Engines, experts, streams and handles."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn, Union

from . import _core, _request
from ._progress import Progress, listener
from .errors import CancelledError, InvalidRequestError, OutOfMemoryError
from .results import Chunk, Plan, Result

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    import numpy
    import numpy.typing
    from typing_extensions import Self, Unpack

    from ._request import RequestOptions

    Floats = numpy.typing.NDArray[numpy.float32]

Path = Union[str, "PathLike[str]"]
_POLL_MS = 100  # how long Ctrl-C may go unnoticed


def _finished(result: Result) -> Result:
    if result.finish_reason == "cancelled":
        raise CancelledError("the request was cancelled", partial=result)
    return result


class _NotPickled:
    """Handles are memory of this process."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied: it is memory of this process; "
            "send what it was made from (a path, a prompt) and make it there again"
        )


@functools.lru_cache(maxsize=1)
def _waiters() -> ThreadPoolExecutor:
    """Threads on which asyncio waits; the loop's own few would be a limit on concurrent requests."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(256, thread_name_prefix="expert")


class Handle(_NotPickled):
    """One running request. Dropping it cancels the request. From Engine.submit()."""

    def __init__(self, engine: Engine, stream: _core.Stream) -> None:
        self._engine = engine  # stays open while it works for us
        self._stream = stream

    def result(self, timeout: float | None = None) -> Result:
        """The answer. Raises TimeoutError after `timeout` seconds, and CancelledError (with `.partial`) when the
        request was cancelled."""
        deadline = None if timeout is None else time.monotonic() + max(0.0, _request.number("timeout", timeout))
        while True:
            left = _POLL_MS if deadline is None else min(_POLL_MS, max(0.0, deadline - time.monotonic()) * 1000)
            try:
                return _finished(self._stream.wait(int(left)))
            except TimeoutError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"the request did not finish within {timeout} s") from None

    def done(self) -> bool:
        """Whether the request has ended, without waiting."""
        return self._stream.done()

    def cancel(self) -> None:
        """The request ends soon, with what it has. Again or too late is harmless."""
        self._stream.cancel()


class Stream(_NotPickled, Iterator[Chunk]):
    """The chunks of one answer. The last one has `.result`; so has the stream afterwards. A cancelled stream ends with
    `finish_reason` "cancelled". From Engine.stream()."""

    def __init__(self, engine: Engine, stream: _core.Stream) -> None:
        self._engine = engine  # stays open while it works for us
        self._stream = stream
        self.result: Result | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        try:
            while True:
                try:
                    given = self._stream.next(_POLL_MS)
                    break
                except TimeoutError:
                    continue
        except KeyboardInterrupt:
            self.cancel()
            raise
        if given is None:
            raise StopIteration
        text, tokens, self.result = given
        return Chunk(text, tokens, self.result)

    def cancel(self) -> None:
        """The stream ends soon, with what it has. Again or too late is harmless."""
        self._stream.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.cancel()


class Expert(_NotPickled):
    """A loaded expert. It means the bytes that were loaded, also when the file changes."""

    def __init__(self, engine: Engine, core: _core.Expert) -> None:
        self._engine = engine
        self._core = core

    @classmethod
    def load(cls, source: Path, base_model: Path | None = None, **options: Any) -> Expert:
        """Loads an expert into an engine that calls with equal arguments share."""
        return _shared_engine(base_model, **options).load_expert(source)

    @property
    def name(self) -> str:
        """ "expert-sql"; of a directory without a manifest its last segment."""
        return self._core.name

    @property
    def version(self) -> str:
        """ "0.0.0" without a manifest."""
        return self._core.version

    @property
    def kinds(self) -> list[str]:
        """["lora"]"""
        kinds: list[str] = json.loads(self._core.kinds)
        return kinds

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return self._core.size_bytes

    @property
    def manifest(self) -> dict[str, Any] | None:
        """Its manifest.json, or None."""
        manifest: dict[str, Any] | None = json.loads(self._core.manifest)
        return manifest

    @property
    def warnings(self) -> list[str]:
        """What is doubtful about it, such as a match with the base that nothing proves."""
        warnings: list[str] = json.loads(self._core.warnings)
        return warnings

    @property
    def unloaded(self) -> bool:
        """True from unload() on."""
        return self._core.unloaded

    @property
    def engine(self) -> Engine:
        """Where it is loaded."""
        return self._engine

    def generate(self, prompt: str, **options: Unpack[RequestOptions]) -> str:
        """The output of Engine.infer() with this expert alone."""
        options["experts"] = [self]
        return self._engine.infer(prompt, **options).output

    def unload(self) -> None:
        """Requests that run keep it, later uses raise. Again is harmless."""
        self._engine._core.unload(self._core)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.unload()

    def __repr__(self) -> str:
        return f"<expert.Expert {self.name} {self.version}>"


class Engine(_NotPickled):
    """One resident base model and its loaded experts. Usable from many threads and from asyncio; a context manager.

    base_model: a directory or a registered name; None: the configured default, else the bundled model.
    device: "auto" (CUDA where its plug-in finds a device, else CPU), "cpu", "reference", "cuda", "cuda:1", …. kv: "auto", "f32", "bf16", "int8".
    weights: "auto" (as the files hold them: "bf16" for BF16 files, else "f32"), "f32", "bf16", "int8", "int4" (embedding
    and head in INT8), "int4-all".
    context_size: tokens, None: the model's own. threads: None: every processor. memory_limit: bytes.
    max_experts: of one request; one more is refused.
    home: where experts are installed, None: $EXPERT_HOME, else ~/.expert. rope_scaling: as in config.json.
    max_queue: requests that wait or run; one more is an OutOfMemoryError. max_batch: requests that run at once.
    prefix_cache_bytes: of the KV cache, for prefixes that no request uses now; None: all that is free, 0: none is kept.
    expert_cache_bytes: of host memory, for experts that requests name; None: a quarter of the free memory.
    head_screen: keep a second, smaller copy of a large head, with which greedy and top_k requests read less of it; their
    answers are the same without, but for a chance of about 1e-13 per token.
    progress: a callable that hears 0 … 1 while the model loads, or True for a tqdm bar.
    """

    def __init__(
        self,
        base_model: Path | None = None,
        device: str = "auto",
        weights: str = "auto",
        kv: str = "auto",
        context_size: int | None = None,
        threads: int | None = None,
        memory_limit: int | None = None,
        home: Path | None = None,
        *,
        rope_scaling: Mapping[str, Any] | None = None,
        max_queue: int = 256,
        max_batch: int = 16,
        max_experts: int = 10,
        prefix_cache_bytes: int | None = None,
        expert_cache_bytes: int | None = None,
        use_weight_cache: bool = True,
        head_screen: bool = True,
        progress: Progress = None,
    ) -> None:
        integer = _request.integer
        options: dict[str, Any] = dict(
            base_model=None if base_model is None else _request.path_bytes("base_model", base_model),
            device=_request.c_text_bytes("device", device),
            weights=_request.c_text_bytes("weights", weights),
            kv=_request.c_text_bytes("kv", kv),
            rope_scaling=None if rope_scaling is None else _request.json_bytes("rope_scaling", rope_scaling, Mapping),
            home=None if home is None else _request.path_bytes("home", home),
            context_size=0 if context_size is None else integer("context_size", context_size, 1, 2**62),
            memory_limit=0 if memory_limit is None else integer("memory_limit", memory_limit, 1, 2**62),
            threads=0 if threads is None else integer("threads", threads, 1),
            max_queue=integer("max_queue", max_queue),
            max_batch=integer("max_batch", max_batch),
            max_experts=integer("max_experts", max_experts, 1),
            prefix_cache_bytes=2**64 - 1
            if prefix_cache_bytes is None
            else integer("prefix_cache_bytes", prefix_cache_bytes, 0, 2**62),
            expert_cache_bytes=0
            if expert_cache_bytes is None
            else integer("expert_cache_bytes", expert_cache_bytes, 1, 2**62),
            use_weight_cache=bool(use_weight_cache),
            head_screen=bool(head_screen),
        )
        with listener(progress, "loading") as heard:
            self._core = _core.Engine(**options, progress=heard)
        self._infer = _core.infer_function(self._core)

    # -- experts ------------------------------------------------------------------------------------------------------

    def load_expert(self, source: Path) -> Expert:
        """A .expert file, a directory, or the name of an installed or bundled expert."""
        return Expert(self, self._core.load(_request.path_bytes("source", source)))

    def find_expert(self, name: str) -> Expert:
        """The loaded expert that requests mean by `name`: of several the latest."""
        return Expert(self, self._core.find(_request.path_bytes("name", name)))

    @property
    def experts(self) -> list[dict[str, Any]]:
        """Name, version, kinds, size_bytes and warnings of each loaded expert."""
        experts: list[dict[str, Any]] = json.loads(self._core.experts())
        return experts

    # -- requests -----------------------------------------------------------------------------------------------------

    def infer(self, prompt: str | None = None, **options: Unpack[RequestOptions]) -> Result:
        """Answers one prompt, or `messages=[{"role": …, "content": …}, …]`.

        experts: "auto" (the default: the router chooses), or a list of Expert, name, path or (one of them, weight); []
        is the base alone. schema, body: text beside the prompt. Generation: max_tokens, temperature, top_p, top_k,
        min_p, repetition_penalty, presence_penalty, frequency_penalty, seed, stop, logit_bias, logprobs, ignore_eos.
        Prompt: raw, special_in_text, tools, template_variables. Queue: priority, deadline_ms, caller, cache_salt.
        """
        return self._infer(prompt, options)

    def stream(self, prompt: str | None = None, **options: Unpack[RequestOptions]) -> Stream:
        """Like infer(), piece by piece."""
        return Stream(self, self._core.submit(_request.build(prompt, **options)))

    def submit(self, prompt: str | None = None, **options: Unpack[RequestOptions]) -> Handle:
        """Like infer(), without waiting."""
        return Handle(self, self._core.submit(_request.build(prompt, **options)))

    async def ainfer(self, prompt: str | None = None, **options: Unpack[RequestOptions]) -> Result:
        """infer() for asyncio; cancelling the task cancels the request."""
        import asyncio  # half of the time that importing this package would take

        handle = self.submit(prompt, **options)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(_waiters(), handle.result)
        except asyncio.CancelledError:
            handle.cancel()
            raise

    async def astream(self, prompt: str | None = None, **options: Unpack[RequestOptions]) -> AsyncIterator[Chunk]:
        """stream() for asyncio."""
        import asyncio

        stream = self.stream(prompt, **options)
        loop = asyncio.get_running_loop()
        try:
            while True:
                chunk = await loop.run_in_executor(_waiters(), functools.partial(next, stream, None))
                if chunk is None:
                    return
                yield chunk
        finally:
            stream.cancel()

    def infer_batch(self, requests: Iterable[Mapping[str, Any]], *, return_exceptions: bool = False) -> list[Any]:
        """Many requests at once, each a dict of infer()'s keywords; results in their order. After all have ended the
        first error is raised, or with return_exceptions errors stand in their places."""
        outcomes: list[Any] = []
        for request in requests:
            if not isinstance(request, Mapping):
                raise TypeError(f"a request of a batch is a dict, not {type(request).__name__}")
            outcomes.append(self._submit_or_error(dict(request), outcomes))
        outcomes = [_result_or_error(outcome) if isinstance(outcome, Handle) else outcome for outcome in outcomes]
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if failed and not return_exceptions:
            raise failed[0]
        return outcomes

    def _submit_or_error(self, request: dict[str, Any], outcomes: list[Any]) -> Any:
        """A handle. When the queue is full, earlier requests of the batch are waited for first."""
        while True:
            try:
                return self.submit(**request)
            except OutOfMemoryError as error:
                running = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Handle)]
                if not running:
                    return error
                outcomes[running[0]] = _result_or_error(outcomes[running[0]])
            except Exception as error:
                return error

    def route(self, prompt: str | None = None, **options: Unpack[RequestOptions]) -> Plan:
        """What the router would do with this request."""
        return Plan.from_json(self._core.route(_request.build(prompt, **options)))

    # -- text and evaluation ------------------------------------------------------------------------------------------

    def tokenize(self, text: str, *, add_special: bool = False, special_in_text: bool = True) -> list[int]:
        """Token ids. add_special: also what the tokenizer's post-processor adds (BOS). special_in_text=False encodes
        the strings of special tokens as plain text."""
        return self._core.tokenize(_request.text_bytes("text", text), bool(special_in_text), bool(add_special))

    def detokenize(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return self._core.detokenize(_request.token_ids(ids), bool(skip_special))

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt that the model's own template makes of these messages."""
        return self._core.apply_chat_template(
            _request.json_bytes("messages", messages, Sequence),
            None if tools is None else _request.json_bytes("tools", tools, Sequence),
            _request.json_bytes("variables", variables, Mapping) if variables else None,
            bool(add_generation_prompt),
        )

    def logits(self, ids: Sequence[int], *, experts: Sequence[Any] = ()) -> Floats:
        """numpy.float32 [len(ids), vocab_size]: the logits after each token, of the base or with experts."""
        import numpy

        tokens = _request.token_ids(ids)
        if not tokens:
            raise InvalidRequestError("ids is empty")
        out = numpy.empty((len(tokens), self.vocab_size), dtype=numpy.float32)
        self._core.logits(tokens, _request.uses(experts), out)
        return out

    def embed(self, text: str, *, pooling: str = "last", normalize: bool = True, experts: Sequence[Any] = ()) -> Floats:
        """numpy.float32 [hidden_size]: the pooled final states; pooling is "last" or "mean"."""
        import numpy

        out = numpy.empty(self.hidden_size, dtype=numpy.float32)
        pooled = _request.c_text_bytes("pooling", pooling)
        self._core.embed(_request.text_bytes("text", text), pooled, bool(normalize), _request.uses(experts), out)
        return out

    @property
    def vocab_size(self) -> int:
        """Columns of logits()."""
        return self._core.vocab_size()

    @property
    def hidden_size(self) -> int:
        """Numbers in an embed()."""
        return self._core.hidden_size()

    @property
    def context_size(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self._core.context_size()

    @property
    def closed(self) -> bool:
        """True from close() on, and in a child of fork()."""
        return self._core.closed()

    def info(self) -> dict[str, Any]:
        """Model, architecture, weights, kv, isa, threads, context_size, warnings."""
        info: dict[str, Any] = json.loads(self._core.info())
        return info

    def stats(self) -> dict[str, Any]:
        """Counters, memory, KV blocks."""
        stats: dict[str, Any] = json.loads(self._core.stats())
        return stats

    def metrics(self) -> str:
        """The counters and histograms of stats() in Prometheus' text format."""
        return self._core.metrics()

    def close(self, drain: bool = False) -> None:
        """Ends running requests with CancelledError, or with drain=True waits for them. Later calls raise; twice is
        harmless."""
        self._core.close(bool(drain))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _result_or_error(handle: Handle) -> Any:
    try:
        return handle.result()
    except Exception as error:
        return error


_shared: dict[Any, Engine] = {}
_shared_lock = threading.Lock()


def _shared_engine(base_model: Path | None, **options: Any) -> Engine:
    key = (base_model, tuple(sorted(options.items())))
    with _shared_lock:
        if key not in _shared:
            _shared[key] = Engine(base_model, **options)
        return _shared[key]
