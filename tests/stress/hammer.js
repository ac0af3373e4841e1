'use strict';

// Workers that load, infer, stream, cancel, close and are terminated in random order.
// argv: the package, seconds, workers.
const fs = require('node:fs');
const path = require('node:path');
const { Worker, isMainThread, workerData } = require('node:worker_threads');

const root = path.resolve(__dirname, '../..');
const names = ['sql', 'json', 'jsonfmt', 'shell', 'classify'];
const pick = (n) => Math.floor(Math.random() * n);

async function act(engine) {
  const experts = names.slice(pick(5)).slice(0, pick(3)).map((name) => [name, 0.5]);
  const request = { prompt: `Find all users older than ${pick(90)}`, experts, maxTokens: 1 + pick(12) };
  switch (pick(6)) {
    case 0: {
      const loaded = await engine.loadExpert(path.join(root, 'models/experts', names[pick(5)]));
      await loaded.generate('Hello', { maxTokens: 2 });
      return loaded.unload();
    }
    case 1:
      for await (const { text } of engine.stream(request)) if (text.length % 2) break;
      return undefined;
    case 2:
      return engine.submit(request).cancel();
    case 3:
      return engine.infer({ ...request, signal: AbortSignal.timeout(1 + pick(30)) });
    case 4:
      return engine.route(request);
    default:
      return engine.infer(request);
  }
}

async function worker({ packageDir }) {
  const { ExpertEngine, InferenceError } = require(packageDir);
  const options = { baseModel: path.join(root, 'models/base'), threads: 1, home: '/nonexistent/expert-home' };
  while (true) {
    const engine = new ExpertEngine(options);
    for (let i = 10 + pick(40); i > 0; --i) {
      await Promise.all(Array.from({ length: 4 }, () => act(engine))).catch((error) => {
        if (!(error instanceof InferenceError)) throw error;
      });
    }
    await engine.close();
  }
}

// Every engine has threads: those that are left when all workers are gone tell of engines that nobody freed.
const POOL_THREADS = 4;
const threads = () => fs.readdirSync('/proc/self/task').length;

async function leftThreads(before) {
  for (const end = Date.now() + 10000; threads() > before + POOL_THREADS && Date.now() < end; ) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return Math.max(0, threads() - before - POOL_THREADS);
}

async function main() {
  const before = threads();
  const [, , packageDir, seconds = '3', count = '8'] = process.argv;
  const end = Date.now() + 1000 * Number(seconds);
  let terminated = 0;
  let first = 0;
  const live = async () => {
    while (Date.now() < end) {
      const one = new Worker(__filename, { workerData: { packageDir } });
      const failed = new Promise((_, reject) => one.once('error', reject));
      await Promise.race([failed, new Promise((resolve) => setTimeout(resolve, 500 + pick(1500)))]);
      await one.terminate();
      terminated += 1;
      if (Date.now() > end - 750 * Number(seconds)) first ||= process.memoryUsage().rss / 1e6;
    }
  };
  await Promise.all(Array.from({ length: Number(count) }, live));
  const left = await leftThreads(before);
  const last = process.memoryUsage().rss / 1e6;
  console.log(
    `${terminated} workers terminated, ${left} threads left; ` +
      `resident ${first.toFixed(0)} MB after a quarter, ${last.toFixed(0)} MB at the end`,
  );
  process.exit(left === 0 && (first === 0 || last < first * 1.5 + 64) ? 0 : 1);
}

if (isMainThread) main();
else worker(workerData);
