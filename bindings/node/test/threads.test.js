'use strict';

// Worker threads, terminated ones too, and an event loop that is never blocked.
const assert = require('node:assert/strict');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { test } = require('node:test');
const { Worker } = require('node:worker_threads');
const { newEngine, packageDir, baseModel, home, question, long } = require('./common.js');

const inWorker = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { ExpertEngine } = require(workerData.packageDir);
  const engine = new ExpertEngine({ baseModel: workerData.baseModel, threads: 1, home: workerData.home });
  (async () => {
    const { tokens } = await engine.infer(workerData.question);
    parentPort.postMessage(tokens);
    if (workerData.forever) for await (const chunk of engine.stream(workerData.long)) parentPort.postMessage(chunk.text);
    await engine.close();
  })();`;

function start(forever) {
  const request = { ...question, experts: ['sql'] };
  const workerData = { packageDir, baseModel, home, question: request, long, forever };
  return new Worker(inWorker, { eval: true, workerData });
}
const message = (worker) => new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));

test('workers get the tokens that the main thread gets', async () => {
  const engine = newEngine();
  const { tokens } = await engine.infer({ ...question, experts: ['sql'] });
  const workers = [start(false), start(false)];
  const ends = workers.map((worker) => new Promise((resolve) => worker.once('exit', resolve)));
  assert.deepEqual(await Promise.all(workers.map(message)), [tokens, tokens]);
  assert.deepEqual(await Promise.all(ends), [0, 0]);
  await engine.close();
});

test('a worker is terminated while it opens, infers and streams', async () => {
  const opening = start(true);
  await opening.terminate();
  for (let i = 0; i < 3; ++i) {
    const worker = start(true);
    await message(worker);
    if (i > 0) await message(worker);
    await worker.terminate();
  }
});

test('the event loop goes on while the engine works', async () => {
  const engine = newEngine();
  await engine.ready();
  const delay = monitorEventLoopDelay({ resolution: 1 });
  let ticks = 0;
  const timer = setInterval(() => ++ticks, 2);
  delay.enable();
  const result = await engine.infer({ ...long, maxTokens: 200 });
  delay.disable();
  clearInterval(timer);
  assert.equal(result.tokens.length, 200);
  assert.ok(ticks > result.latencyMs / 2 / 20, `${ticks} ticks in ${result.latencyMs} ms`);
  await engine.close();
});

test('many requests at once from one thread', async () => {
  const engine = newEngine();
  const one = (i) => engine.infer({ prompt: `number ${i % 4}`, experts: i % 2 ? ['sql'] : [], maxTokens: 3, temperature: 0 });
  const results = await Promise.all(Array.from({ length: 24 }, (_, i) => one(i)));
  for (let i = 4; i < 24; ++i) assert.deepEqual(results[i].tokens, results[i % 4].tokens);
  await engine.close();
});
