"""The scenario through the Python module. argv: the source folder, the home."""

import json
import sys
from pathlib import Path

import expert

ERRORS = {"InvalidRequestError": "invalid_request", "LoadError": "load"}
FIELDS = ("text", "output", "tokens", "finish_reason")


def request_of(step):
    request = dict(step)
    if "logit_bias" in request:
        request["logit_bias"] = {int(token): value for token, value in request["logit_bias"].items()}
    return request


def outcome_of(result):
    out = {field: getattr(result, field) for field in FIELDS}
    out["experts_used"] = [used._asdict() for used in result.experts_used]
    out["usage"] = result.usage._asdict()
    if result.logprobs:
        out["logprobs"] = [
            {"token": at.token, "logprob": at.logprob, "top": [best._asdict() for best in at.top]} for at in result.logprobs
        ]
    return out


def stream(engine, step):
    running = engine.stream(**request_of(step["request"]))
    text = "".join(chunk.text for chunk in running)
    return {"text": text, "result": outcome_of(running.result)}


def route(engine, step):
    plan = engine.route(**request_of(step["request"]))
    return {
        "experts": [chosen._asdict() for chosen in plan.experts],
        "parameters": plan.parameters,
        "confidence": plan.confidence,
        "explanation": plan.explanation,
    }


CALLS = {
    "infer": lambda engine, step: outcome_of(engine.infer(**request_of(step["request"]))),
    "stream": stream,
    "infer_batch": lambda engine, step: [
        outcome_of(result) for result in engine.infer_batch([request_of(request) for request in step["requests"]])
    ],
    "route": route,
    "tokenize": lambda engine, step: engine.tokenize(step["text"]),
    "detokenize": lambda engine, step: engine.detokenize(step["ids"]),
    "apply_chat_template": lambda engine, step: engine.apply_chat_template(step["messages"]),
    "logits": lambda engine, step: engine.logits(step["ids"], experts=step["experts"]).argmax(axis=1).tolist(),
    "embed": lambda engine, step: [
        int(x + (0.5 if x >= 0 else -0.5))  # as C rounds
        for x in (float(v) * 1e6 for v in engine.embed(step["text"], pooling=step.get("pooling", "last")))
    ],
    "load_expert": lambda engine, step: engine.load_expert(step["source"]).name,
}


def run(engine, step):
    try:
        return CALLS[step["call"]](engine, step)
    except expert.ExpertError as error:
        return {"error": ERRORS.get(type(error).__name__, type(error).__name__)}


root = Path(sys.argv[1])
story = json.loads((root / "tests/scenario/scenario.json").read_text(encoding="utf-8"))
with expert.Engine(root / story["engine"]["base_model"], threads=story["engine"]["threads"], home=sys.argv[2]) as opened:
    print(json.dumps([{"name": step["name"], "outcome": run(opened, step)} for step in story["steps"]]))
