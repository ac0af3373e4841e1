"""What the bindings cost beyond the engine: per call, per streamed token, to import. Run on a quiet machine:

    PYTHONPATH=build/release/python tests/bench/overhead.py [build/release]

Per call: wall time of infer() less what the engine itself reports (timings.total_ms), median of many one-token answers.
Per token: a whole stream is left to finish unread, then its queued chunks are read: time divided by chunks.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "release")
PACKAGE = BUILD / "node" / "node_modules" / "@hivellm" / "expert"


def python_costs(home):
    import expert

    request = {"prompt": "Hello", "experts": [], "max_tokens": 1, "temperature": 0, "ignore_eos": True}
    with expert.Engine(ROOT / "models" / "base", threads=1, home=home) as engine:
        calls = []
        for _ in range(400):
            started = time.perf_counter()
            result = engine.infer(**request)
            calls.append(1e6 * (time.perf_counter() - started) - 1e3 * result.latency_ms)
        tokens = []
        for _ in range(5):
            stream = engine.stream(**{**request, "max_tokens": 600})
            next(stream)
            while not stream._stream.done():
                time.sleep(0.01)
            started = time.perf_counter()
            count = sum(1 for _ in stream)
            tokens.append(1e6 * (time.perf_counter() - started) / count)
    return {"call_us": statistics.median(calls), "token_us": statistics.median(tokens)}


NODE = """
const { ExpertEngine } = require(process.argv[1]);
const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
const request = { prompt: 'Hello', experts: [], maxTokens: 1, temperature: 0, ignoreEos: true };
(async () => {
  const engine = await new ExpertEngine({ baseModel: process.argv[2], threads: 1, home: process.argv[3] }).ready();
  const calls = [];
  for (let i = 0; i < 400; ++i) {
    const started = performance.now();
    const { latencyMs } = await engine.infer(request);
    calls.push(1000 * (performance.now() - started - latencyMs));
  }
  const tokens = [];
  for (let i = 0; i < 5; ++i) {
    const handle = engine.stream({ ...request, maxTokens: 600 });
    await handle.next();
    const end = Date.now() + 3000;
    while (Date.now() < end); // the event loop hears nothing while chunks queue up
    const started = performance.now();
    let count = 0;
    for await (const chunk of handle) count += chunk.tokens.length ? 1 : 0;
    tokens.push((1000 * (performance.now() - started)) / count);
  }
  await engine.close();
  console.log(JSON.stringify({ call_us: median(calls), token_us: median(tokens) }));
})();
"""

DRIFT = """
const os = require('node:os');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { ExpertEngine } = require(process.argv[1]);
(async () => {
  const threads = Math.max(1, os.cpus().length - 1);
  const engine = await new ExpertEngine({ baseModel: process.argv[2], threads, home: process.argv[3] }).ready();
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  for (let i = 0; i < 8; ++i) {
    for await (const chunk of engine.stream({ prompt: 'Hello', experts: [], maxTokens: 400, ignoreEos: true })) chunk.text;
  }
  delay.disable();
  await engine.close();
  console.log(JSON.stringify({ threads, drift_p99_ms: (delay.percentile(99) - 1e6) / 1e6 }));
})();
"""


def node(program, home):
    command = ["node", "-e", program, PACKAGE, ROOT / "models" / "base", home]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def milliseconds(command):
    taken = []
    for _ in range(9):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken)


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    with tempfile.TemporaryDirectory() as home:
        report = {
            "machine": cpu_name(),
            "c": json.loads(subprocess.run([BUILD / "tests" / "bench" / "overhead_c", ROOT / "models" / "base", home],
                                           check=True, capture_output=True, text=True).stdout),  # fmt: skip
            "python": python_costs(home),
            "node": {**node(NODE, home), **node(DRIFT, home)},
        }
        report["python"]["import_ms"] = milliseconds([sys.executable, "-c", "import expert"]) - milliseconds([sys.executable, "-c", ""])
        report["node"]["require_ms"] = milliseconds(["node", "-e", f"require('{PACKAGE}')"]) - milliseconds(["node", "-e", ""])
    print(json.dumps(report, indent=2))


main()
