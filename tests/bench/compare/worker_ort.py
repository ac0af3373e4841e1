"""ONNX Runtime GenAI behind compare.py.   worker_ort.py MODEL_DIR THREADS"""

import json
import sys
import time

import onnxruntime_genai as og

directory, threads = sys.argv[1:3]
config = og.Config(directory)
session = {"intra_op_num_threads": int(threads)}
config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
model = og.Model(config)


def generator():
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=1024, min_length=1000, do_sample=False)
    return og.Generator(model, parameters)


print(json.dumps({"engine": f"onnxruntime-genai {og.__version__}", "most_experts": 0}), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    run = generator()
    if command["do"] == "prefill":
        start = time.perf_counter()
        run.append_tokens(command["ids"][: command["tokens"]])
    else:
        run.append_tokens(command["ids"][:16])
        run.generate_next_token()
        start = time.perf_counter()
        for _ in range(command["tokens"]):
            run.generate_next_token()
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
    del run
