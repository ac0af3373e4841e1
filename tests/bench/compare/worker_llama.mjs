// llama.cpp (prebuilt, node-llama-cpp) behind compare.py.   node worker_llama.mjs MODEL.gguf LORA_PREFIX THREADS KV
// NODE_MODULES_AT: the folder that holds node_modules. The addon's decode is called directly: no JavaScript sampling.
import fs from "fs";
import {createRequire} from "module";
import path from "path";
import readline from "readline";
import {pathToFileURL} from "url";

const status = (key) => Number(fs.readFileSync("/proc/self/status", "utf8").match(new RegExp(`${key}:\\s+(\\d+)`))[1]) * 1024;
const before = status("VmRSS");
const at = process.env.NODE_MODULES_AT;
createRequire(path.join(at, "x.js"));
const {getLlama, LlamaLogLevel} = await import(
  pathToFileURL(path.join(at, "node_modules/node-llama-cpp/dist/index.js")).href);
const [file, lora, threadsText, kv] = process.argv.slice(2);
const threads = Number(threadsText);
const say = (object) => process.stdout.write(JSON.stringify(object) + "\n");

const llama = await getLlama({gpu: false, build: "never", skipDownload: true, maxThreads: threads,
  usePrebuiltBinaries: true, logLevel: LlamaLogLevel.error, logger: () => {}});
const model = await llama.loadModel({modelPath: path.resolve(file), gpuLayers: 0});

// One hop to the thread pool and back with nothing to do, as every decode makes one.
const hop = async () => {
  const times = [];
  for (let i = 0; i < 300; ++i) {
    const start = performance.now();
    await new Promise((done) => fs.stat("/", done));
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[150] / 1e3;
};

const kvType = kv === "int8" ? "Q8_0" : "F16";
const contexts = new Map();  // by number of experts, so that none is made within a sample
const contextOf = async (experts) => {
  if (!contexts.has(experts)) {
    const adapters = Array.from({length: experts}, (_, i) => ({filePath: `${lora}-${i}.gguf`, scale: 1}));
    const context = await model.createContext({contextSize: 1024, batchSize: 512, sequences: 1, threads,
      performanceTracking: false, flashAttention: true, experimentalKvCacheKeyType: kvType,
      experimentalKvCacheValueType: kvType, lora: experts > 0 ? {adapters} : undefined});
    contexts.set(experts, context._ctx);
  }
  return contexts.get(experts);
};

const step = async (context, position, ids) => {
  context.initBatch(ids.length);
  context.addToBatch(0, position, Uint32Array.from(ids), Uint32Array.from([ids.length - 1]));
  await context.decodeBatch();
};

// A context that holds a prompt of `length` tokens, computed once.
const deep = new Map();
const contextAt = async (length, tokens, ids) => {
  if (!deep.has(length)) {
    const context = (await model.createContext({contextSize: length + tokens + 16, batchSize: 512, sequences: 1, threads,
      performanceTracking: false, flashAttention: true, experimentalKvCacheKeyType: kvType,
      experimentalKvCacheValueType: kvType}))._ctx;
    const prompt = Array.from({length}, (_, i) => ids[i % ids.length]);
    for (let i = 0; i < length; i += 512) await step(context, i, prompt.slice(i, i + 512));
    deep.set(length, context);
  }
  return deep.get(length);
};

const decode = async (context, position, tokens, ids) => {
  const start = performance.now();
  for (let i = 0; i < tokens; ++i) await step(context, position + i, [ids[16 + i % 400]]);
  const raw = (performance.now() - start) / 1e3;
  context.removeTokenCellsFromSequence(0, position, -1);
  return raw;
};

const hop_seconds = await hop();
say({engine: `llama.cpp ${llama.llamaCppRelease?.release ?? ""} ${llama.systemInfo ?? ""}`.trim(), hop_seconds,
  contexts: true, most_experts: fs.existsSync(`${lora}-9.gguf`) ? 10 : 0});
for await (const line of readline.createInterface({input: process.stdin})) {
  try {
    const {do: what, tokens, experts, ids, context: length} = JSON.parse(line);
    if (what === "memory") {
      say({before, peak: status("VmHWM")});
      continue;
    }
    let raw;
    let calls = tokens;
    if (length) {
      raw = await decode(await contextAt(length, tokens, ids), length, tokens, ids);
    } else {
      const context = await contextOf(experts);
      if (what === "prefill") {
        calls = 1;
        const start = performance.now();
        await step(context, 0, ids.slice(0, tokens));
        raw = (performance.now() - start) / 1e3;
      } else {
        await step(context, 0, ids.slice(0, 16));
        raw = await decode(context, 16, tokens, ids);
      }
      context.removeTokenCellsFromSequence(0, 0, -1);
    }
    say({seconds: raw - calls * hop_seconds, seconds_with_hops: raw});
  } catch (error) {
    say({error: String(error)});
  }
}
process.exit(0);
