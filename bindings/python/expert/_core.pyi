from typing import List, Optional, Tuple

version: str

Use = Tuple[Optional[Expert], Optional[bytes], float]

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
    prompt: Optional[bytes]
    messages: Optional[bytes]
    tools: Optional[bytes]
    template_variables: Optional[bytes]
    schema: Optional[bytes]
    body: Optional[bytes]
    caller: Optional[bytes]
    cache_salt: Optional[bytes]
    experts: Optional[List[Use]]
    stop: List[bytes]
    logit_bias_tokens: List[int]
    logit_bias_values: List[float]
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
    def next(self, timeout_ms: int) -> Optional[Tuple[str, List[int], Optional[str]]]: ...
    def wait(self, timeout_ms: int) -> str: ...
    def done(self) -> bool: ...
    def cancel(self) -> None: ...

class Engine:
    def __init__(
        self,
        base_model: Optional[bytes],
        device: Optional[bytes],
        weights: Optional[bytes],
        kv: Optional[bytes],
        rope_scaling: Optional[bytes],
        home: Optional[bytes],
        context_size: int,
        memory_limit: int,
        threads: int,
        max_queue: int,
        max_batch: int,
        use_weight_cache: bool,
    ) -> None: ...
    def close(self, drain: bool) -> None: ...
    def load(self, source: bytes) -> Expert: ...
    def unload(self, expert: Expert) -> None: ...
    def submit(self, request: Request) -> Stream: ...
    def route(self, request: Request) -> str: ...
    def tokenize(self, text: bytes, special_in_text: bool, add_special: bool) -> List[int]: ...
    def detokenize(self, ids: List[int], skip_special: bool) -> str: ...
    def apply_chat_template(
        self, messages: bytes, tools: Optional[bytes], variables: Optional[bytes], add_generation_prompt: bool
    ) -> str: ...
    def logits(self, ids: List[int], experts: List[Use], out: object) -> None: ...
    def embed(self, text: bytes, pooling: bytes, normalize: bool, experts: List[Use], out: object) -> None: ...
    def vocab_size(self) -> int: ...
    def hidden_size(self) -> int: ...
    def info(self) -> str: ...
    def stats(self) -> str: ...
    def experts(self) -> str: ...
