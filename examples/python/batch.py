"""Three requests with three different experts run together, in one batch."""

import expert

requests = [
    {"prompt": "Find all users", "experts": ["sql"], "max_tokens": 16},
    {"prompt": "List the files here", "experts": ["shell"], "max_tokens": 16},
    {"prompt": "Hello there", "experts": ["json"], "max_tokens": 16},
]
with expert.Engine() as engine:
    for request, result in zip(requests, engine.infer_batch(requests)):
        print(request["prompt"], "->", result.output)
