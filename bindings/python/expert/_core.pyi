version: str

Use = tuple[Expert | None, bytes | None, float]

class Expert:
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def kinds(self) -> str: ...
    @property
    def manifest(self) -> str: ...
    @property
    def warnings(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...

class Request:
    prompt: bytes | None
    messages: bytes | None
    tools: bytes | None
    template_variables: bytes | None
    schema: bytes | None
    body: bytes | None
    caller: bytes | None
    cache_salt: bytes | None
    experts: list[Use] | None
    stop: list[bytes]
    logit_bias_tokens: list[int]
    logit_bias_values: list[float]
    raw: bool
    plain_text: bool
    ignore_eos: bool
    temperature: float
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    top_k: int
    max_tokens: int
    logprobs: int
    priority: int
    seed: int
    deadline_ms: float

class Stream:
    def next(self, timeout_ms: int) -> tuple[str, list[int], str | None] | None: ...
    def wait(self, timeout_ms: int) -> str: ...
    def done(self) -> bool: ...
    def cancel(self) -> None: ...

class Engine:
    def __init__(
        self,
        base_model: bytes | None,
        device: bytes | None,
        weights: bytes | None,
        kv: bytes | None,
        rope_scaling: bytes | None,
        home: bytes | None,
        context_size: int,
        memory_limit: int,
        threads: int,
        max_queue: int,
        max_batch: int,
        max_experts: int,
        use_weight_cache: bool,
    ) -> None: ...
    def close(self, drain: bool) -> None: ...
    def load(self, source: bytes) -> Expert: ...
    def unload(self, expert: Expert) -> None: ...
    def submit(self, request: Request) -> Stream: ...
    def route(self, request: Request) -> str: ...
    def tokenize(self, text: bytes, special_in_text: bool, add_special: bool) -> list[int]: ...
    def detokenize(self, ids: list[int], skip_special: bool) -> str: ...
    def apply_chat_template(
        self, messages: bytes, tools: bytes | None, variables: bytes | None, add_generation_prompt: bool
    ) -> str: ...
    def logits(self, ids: list[int], experts: list[Use], out: object) -> None: ...
    def embed(self, text: bytes, pooling: bytes, normalize: bool, experts: list[Use], out: object) -> None: ...
    def vocab_size(self) -> int: ...
    def hidden_size(self) -> int: ...
    def info(self) -> str: ...
    def stats(self) -> str: ...
    def experts(self) -> str: ...
