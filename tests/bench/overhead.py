"""What the bindings cost beyond the engine: per call, per streamed token, to import. Run on a quiet machine:

    PYTHONPATH=build/release/python tests/bench/overhead.py [build/release]

Per call: wall time of infer(), its text and tokens read, less what the engine itself reports (timings.total_ms), for
one-token answers. The machine's speed moves within seconds, so C, Python and Node take turns, a round of calls each,
and what counts is the difference between neighbours: the median over the rounds of (median of the round - C's).
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
BUILD = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "release").resolve()
PACKAGE = BUILD / "node" / "node_modules" / "@hivellm" / "expert"
MODEL = ROOT / "models" / "base"
ROUNDS, CALLS = 40, 40
EXPERTS = {"calls": [], "named": ["sql"], "routed": "auto"}


# -- Python's side: a process of its own, as the others are; for each line of input a line of output ------------------


def call(engine, request):
    started = time.perf_counter()
    result = engine.infer(**request)
    assert result.text and len(result.tokens) == 1
    return 1e6 * (time.perf_counter() - started) - 1e3 * result.latency_ms


def token(engine, request):
    stream = engine.stream(**{**request, "max_tokens": 600})
    next(stream)
    while not stream._stream.done():
        time.sleep(0.01)
    started = time.perf_counter()
    count = sum(1 for _ in stream)
    return 1e6 * (time.perf_counter() - started) / count


def answer_in_python(home):
    import expert

    request = {"prompt": "Hello", "experts": [], "max_tokens": 1, "temperature": 0, "ignore_eos": True}
    with expert.Engine(MODEL, threads=1, home=home) as engine:
        for wanted in sys.stdin:
            if wanted == "token\n":
                print(token(engine, request), flush=True)
            else:
                wished = {**request, "experts": EXPERTS[wanted.strip()]}
                print([call(engine, wished) for _ in range(CALLS)], flush=True)


NODE = """
const { ExpertEngine } = require(process.argv[1]);
const request = { prompt: 'Hello', experts: [], maxTokens: 1, temperature: 0, ignoreEos: true };
const call = async (engine, wished) => {
  const started = performance.now();
  const { text, tokens, latencyMs } = await engine.infer(wished);
  if (!text || tokens.length !== 1) throw new Error('no answer');
  return 1000 * (performance.now() - started - latencyMs);
};
const token = async (engine) => {
  const handle = engine.stream({ ...request, maxTokens: 600 });
  await handle.next();
  const end = Date.now() + 3000;
  while (Date.now() < end); // the event loop hears nothing while chunks queue up
  const started = performance.now();
  let count = 0;
  for await (const chunk of handle) count += chunk.tokens.length ? 1 : 0;
  return (1000 * (performance.now() - started)) / count;
};
(async () => {
  const engine = await new ExpertEngine({ baseModel: process.argv[2], threads: 1, home: process.argv[3] }).ready();
  for await (const wanted of require('node:readline').createInterface({ input: process.stdin })) {
    if (wanted === 'token') {
      console.log(await token(engine));
    } else {
      const wished = { ...request, experts: { calls: [], named: ['sql'], routed: 'auto' }[wanted] };
      const taken = [];
      for (let i = 0; i < 40; ++i) taken.push(await call(engine, wished));
      console.log(JSON.stringify(taken));
    }
  }
  await engine.close();
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


# -- who asks them ----------------------------------------------------------------------------------------------------


class Side:
    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, wanted):
        self.process.stdin.write(wanted + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def quartiles(values):
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 1), "quartiles": [round(low, 1), round(high, 1)]}


def rounds_of(sides, wanted):
    """What a call takes on each side and, where that is not C, how much more than on C's."""
    for side in sides.values():  # compilers, caches and branch predictors settle
        for _ in range(3):
            side.ask(wanted)
    rounds = {name: [] for name in sides}
    for number in range(ROUNDS):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            rounds[name].append(statistics.median(sides[name].ask(wanted)))
    figures = {name: {"": quartiles(taken)} for name, taken in rounds.items()}
    for name in figures.keys() - {"c"}:
        figures[name]["_more_than_c"] = quartiles([own - c for own, c in zip(rounds[name], rounds["c"])])
    return figures


def costs(home):
    sides = {
        "c": Side(BUILD / "tests" / "bench" / "overhead_c", MODEL, home),
        "python": Side(sys.executable, __file__, BUILD, home),
        "node": Side("node", "-e", NODE, PACKAGE, MODEL, home),
    }
    report = {name: {} for name in sides}
    for wanted, key in (
        ("calls", "call_us"),
        ("named", "call_naming_an_expert_us"),
        ("routed", "call_that_routes_us"),
    ):
        for name, figures in rounds_of(sides, wanted).items():
            report[name].update({key + ending: value for ending, value in figures.items()})
    for name, side in sides.items():
        report[name]["token_us"] = round(statistics.median(side.ask("token") for _ in range(5)), 2)
        side.end()
    return report


def drift(home):
    command = ["node", "-e", DRIFT, PACKAGE, MODEL, home]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def import_ms(program, statement, nothing, option):
    """Of neighbouring starts with and without the import, the median difference; modules compiled, as pip leaves them."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", BUILD / "python" / "expert"], check=True)
    taken = []
    for _ in range(15):
        started = time.perf_counter()
        subprocess.run([program, option, nothing], check=True, capture_output=True)
        between = time.perf_counter()
        subprocess.run([program, option, statement], check=True, capture_output=True)
        taken.append(1e3 * (time.perf_counter() - between - (between - started)))
    return quartiles(taken)


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    with tempfile.TemporaryDirectory() as home:
        report = {"machine": cpu_name(), "rounds": ROUNDS, "calls": CALLS, **costs(home)}
        report["node"].update(drift(home))
        report["python"]["import_ms"] = import_ms(sys.executable, "import expert", "", "-c")
        report["node"]["require_ms"] = import_ms("node", f"require('{PACKAGE}')", "", "-e")
    print(json.dumps(report, indent=2))


if len(sys.argv) > 2:
    answer_in_python(sys.argv[2])
else:
    main()
