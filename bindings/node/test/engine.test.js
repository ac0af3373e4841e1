'use strict';

// What the package does: answers, streams, handles, experts, text, evaluation.
const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { inspect } = require('node:util');
const { expert, newEngine, sqlDirectory, question, long } = require('./common.js');

let engine;
before(() => {
  engine = newEngine();
});
after(() => engine.close());

test('infer gives everything that the result promises', async () => {
  const result = await engine.infer({ ...question, experts: ['sql'], seed: 1, stop: [';'] });
  assert.equal(typeof result.text, 'string');
  assert.deepEqual(
    result.expertsUsed.map(({ name, weight }) => [name, weight]),
    [['expert-sql', 1]],
  );
  assert.ok(['stop', 'length'].includes(result.finishReason));
  assert.equal(result.usage.totalTokens, result.usage.promptTokens + result.usage.completionTokens);
  assert.ok(result.latencyMs >= result.timings.firstTokenMs && result.timings.firstTokenMs > 0);
  assert.equal(result.plan.parameters.temperature, 0);
  assert.deepEqual(result.logprobs, []);
  assert.equal((await engine.infer('Hello')).tokens.length > 0, true);
});

test('headScreen is a boolean, and a small head has none either way', async () => {
  for (const headScreen of [true, false]) {
    const other = newEngine({ headScreen });
    assert.equal((await other.stats()).headScreen, null);
    assert.ok((await other.infer({ ...question, experts: [], maxTokens: 2 })).tokens.length > 0);
    await other.close();
  }
  assert.throws(() => newEngine({ headScreen: 'no' }), TypeError);
});

test('the plan of a result is a property like the others', async () => {
  const request = { ...question, experts: ['sql'], seed: 1, maxTokens: 4 };
  const read = async (use) => use(await engine.infer(request));
  const { plan } = await engine.infer(request);
  assert.equal(plan.parameters.maxTokens, 4);
  assert.equal(plan.promptFormat !== undefined, true);
  assert.deepEqual(await read((result) => JSON.parse(JSON.stringify(result)).plan), plan);
  assert.deepEqual(await read((result) => ({ ...result }).plan), plan);
  assert.deepEqual(await read((result) => Object.assign({}, result).plan), plan);
  assert.deepEqual(await read((result) => structuredClone(result).plan), plan);
  assert.deepEqual(await read((result) => Object.create(result).plan), plan);
  assert.deepEqual(await read((result) => new Proxy(result, {}).plan), plan);
  assert.deepEqual(await read((result) => Object.freeze(result).plan), plan);
  assert.deepEqual(await read((result) => Object.keys(result).sort()), [
    'expertsUsed', 'finishReason', 'latencyMs', 'logprobs', 'output', 'plan', 'text', 'timings', 'tokens', 'usage',
  ]);
  assert.match(await read((result) => inspect(result)), /plan: \{[^]*promptFormat/);
  assert.equal(await read((result) => (result.plan = 5) && result.plan), 5);
  const again = await engine.infer(request);
  assert.equal(again.plan, again.plan);
  // The other way that results take: all of them as JSON.
  assert.deepEqual((await engine.infer({ ...request, logprobs: 1 })).plan, plan);
  let last;
  for await (const chunk of engine.stream(request)) last = chunk;
  assert.deepEqual(last.result.plan, plan);
});

test('results of requests that run side by side are their own', async () => {
  const one = (i) => engine.infer({ prompt: 'Count', experts: [], maxTokens: 1 + (i % 7), temperature: 0, ignoreEos: true });
  const results = await Promise.all(Array.from({ length: 60 }, (_, i) => one(i)));
  results.forEach(({ tokens, usage, plan }, i) => {
    assert.deepEqual([tokens.length, usage.completionTokens, plan.parameters.maxTokens], Array(3).fill(1 + (i % 7)));
  });
});

test('numbers of one request are not those of the next', async () => {
  const parameters = async (request) => (await engine.infer({ prompt: 'x', experts: [], maxTokens: 1, ...request })).plan.parameters;
  const first = await parameters({ topK: 3, topP: 0.5, temperature: 0.25, repetitionPenalty: 2, minP: 0.125 });
  assert.deepEqual([first.topK, first.topP, first.temperature, first.repetitionPenalty, first.minP], [3, 0.5, 0.25, 2, 0.125]);
  const second = await parameters({});
  assert.deepEqual([second.topK, second.topP, second.repetitionPenalty, second.minP], [0, 1, 1, 0]);
});

test('experts in every spelling', async () => {
  const sql = await engine.loadExpert(sqlDirectory);
  const used = async (experts) => (await engine.infer({ ...question, experts })).expertsUsed;
  const first = await used([sql]);
  for (const experts of [[[sql, 1]], ['sql'], [['expert-sql', 1]], [sqlDirectory]]) {
    assert.deepEqual(await used(experts), first);
  }
  const both = await used([sql, ['jsonfmt', 0.5]]);
  assert.deepEqual(both.map(({ name, weight }) => [name, weight]).sort(), [['expert-jsonfmt', 0.5], ['expert-sql', 1]]);
  assert.deepEqual(await used([]), []);
  assert.equal((await used('auto'))[0].name, 'expert-sql');
  await sql.unload();
});

test('an expert and its end', async () => {
  const mine = newEngine();
  const sql = await mine.loadExpert(sqlDirectory);
  assert.deepEqual([sql.name, sql.kinds, sql.unloaded], ['expert-sql', ['lora'], false]);
  assert.equal(sql.manifest.name, 'expert-sql');
  assert.equal(sql.version, sql.manifest.version);
  assert.ok(sql.sizeBytes > 100_000 && Array.isArray(sql.warnings));
  assert.deepEqual((await mine.experts()).map(({ name }) => name), ['expert-sql']);
  assert.equal((await mine.findExpert('sql')).version, sql.version);
  assert.equal(typeof (await sql.generate('Find all users', { schema: 'users(id)', maxTokens: 4 })), 'string');
  await sql.unload();
  await sql.unload();
  assert.equal(sql.unloaded, true);
  await assert.rejects(mine.infer({ prompt: 'x', experts: [sql] }), expert.ClosedError);
  await assert.rejects(mine.findExpert('sql'), expert.InvalidRequestError);
  await mine.close();
});

test('three lines', async () => {
  const sql = await expert.Expert.load('sql');
  assert.equal(typeof (await sql.generate('Find all users', { schema: 'users(id)', maxTokens: 4 })), 'string');
  assert.equal((await expert.Expert.load('json')).engine, sql.engine);
  await sql.engine.close();
});

test('a stream ends with the result', async () => {
  const stream = engine.stream({ ...long, maxTokens: 20 });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  assert.ok(chunks.slice(0, -1).every(({ result }) => result === null));
  const { result } = chunks.at(-1);
  assert.equal(chunks.map(({ text }) => text).join(''), result.text);
  assert.deepEqual(chunks.flatMap(({ tokens }) => tokens), result.tokens);
  assert.equal(stream.result, result);
  assert.deepEqual(await stream.next(), { value: undefined, done: true });
});

test('break and cancel end a stream', async () => {
  const stream = engine.stream(long);
  for await (const chunk of stream) {
    assert.ok(chunk.tokens);
    break;
  }
  const second = engine.stream(long);
  await second.next();
  second.cancel();
  let last;
  for await (const chunk of second) last = chunk;
  assert.equal(last.result.finishReason, 'cancelled');
});

test('an AbortSignal cancels what runs, what waits and what has not begun', async () => {
  const early = AbortSignal.abort(new Error('no longer wanted'));
  await assert.rejects(engine.infer({ ...long, signal: early }), (error) => {
    assert.ok(error instanceof expert.CancelledError);
    assert.equal(error.cause.message, 'no longer wanted');
    return true;
  });
  const controller = new AbortController();
  const running = engine.infer({ ...long, signal: controller.signal });
  setTimeout(() => controller.abort(), 60);
  await assert.rejects(running, (error) => error.partial.finishReason === 'cancelled');
  const streamed = new AbortController();
  let last;
  for await (const chunk of engine.stream({ ...long, signal: streamed.signal })) {
    streamed.abort();
    last = chunk;
  }
  assert.equal(last.result.finishReason, 'cancelled');
});

test('handles', async () => {
  const handle = engine.submit(long);
  await assert.rejects(handle.result(5), expert.TimeoutError);
  assert.equal(handle.done(), false);
  handle.cancel();
  handle.cancel();
  await assert.rejects(handle.result(), expert.CancelledError);
  assert.equal(handle.done(), true);
});

test('a batch keeps order and errors', async () => {
  const requests = ['one', 'two', 'three'].map((prompt) => ({ prompt, experts: [], maxTokens: 3, temperature: 0 }));
  const alone = [];
  for (const request of requests) alone.push((await engine.infer(request)).tokens);
  assert.deepEqual((await engine.inferBatch(requests)).map(({ tokens }) => tokens), alone);
  const broken = [requests[0], { prompt: '' }, requests[2]];
  await assert.rejects(engine.inferBatch(broken), expert.InvalidRequestError);
  const outcomes = await engine.inferBatch(broken, { returnExceptions: true });
  assert.ok(outcomes[1] instanceof expert.InvalidRequestError);
  assert.deepEqual([outcomes[0].tokens, outcomes[2].tokens], [alone[0], alone[2]]);
});

test('a batch larger than the queue', async () => {
  const small = newEngine({ maxQueue: 2 });
  const requests = Array.from({ length: 7 }, (_, i) => ({ prompt: `number ${i}`, experts: [], maxTokens: 2 }));
  assert.equal((await small.inferBatch(requests)).length, 7);
  await small.close();
});

test('messages, templates, tokens', async () => {
  const options = { experts: [], temperature: 0, maxTokens: 4 };
  const messages = [{ role: 'user', content: 'Hello there' }];
  const one = await engine.infer({ prompt: 'Hello there', ...options });
  assert.deepEqual((await engine.infer({ messages, ...options })).tokens, one.tokens);
  const rendered = await engine.applyChatTemplate(messages);
  assert.equal((await engine.infer({ prompt: rendered, raw: true, ...options })).usage.promptTokens, one.usage.promptTokens);
  assert.ok((await engine.applyChatTemplate(messages, { addGenerationPrompt: false })).length < rendered.length);
  for (const text of ['SELECT name FROM users;', 'ünïcödé 你好 🙂', 'a\0b', '']) {
    assert.equal(await engine.detokenize(await engine.tokenize(text)), text);
  }
  const special = rendered.slice(0, rendered.indexOf('Hello'));
  assert.ok((await engine.tokenize(special, { specialInText: false })).length >= (await engine.tokenize(special)).length);
});

test('logits and embeddings are Float32Arrays', async () => {
  const ids = await engine.tokenize('Find all users');
  const base = await engine.logits(ids);
  assert.ok(base instanceof Float32Array && base.length === ids.length * (await engine.vocabSize()));
  assert.deepEqual(await engine.logits(Int32Array.from(ids), { experts: [['sql', 0]] }), base);
  assert.notDeepEqual(await engine.logits(ids, { experts: ['sql'] }), base);
  const state = await engine.embed('hello');
  assert.equal(state.length, await engine.hiddenSize());
  assert.ok(Math.abs(Math.hypot(...state) - 1) < 1e-4);
});

test('sampling: seeds, biases, log-probabilities', async () => {
  const hot = { prompt: 'Tell a story', experts: [], temperature: 1.5, maxTokens: 8, ignoreEos: true };
  const first = (await engine.infer({ ...hot, seed: 3 })).tokens;
  assert.deepEqual((await engine.infer({ ...hot, seed: 3n })).tokens, first);
  for (const logitBias of [{ 65: 1000 }, new Map([[65, 1000]])]) {
    const forced = await engine.infer({ ...long, maxTokens: 3, logitBias });
    assert.deepEqual(forced.tokens, [65, 65, 65]);
  }
  const { tokens, logprobs } = await engine.infer({ ...long, maxTokens: 2, logprobs: 2 });
  assert.deepEqual(logprobs.map(({ token }) => token), tokens);
  assert.ok(logprobs.every(({ top, logprob }) => top.length === 2 && logprob <= 0));
});

test('route, info, stats, library', async () => {
  const plan = await engine.route(question);
  assert.deepEqual([plan.experts[0].name, plan.experts[0].weight], ['expert-sql', 1]);
  assert.ok(plan.experts[0].reason && plan.confidence <= 1 && plan.explanation);
  assert.equal((await engine.info()).threads, 1);
  assert.equal((await engine.info()).contextSize, await engine.contextSize());
  assert.ok((await engine.stats()).requests.submitted > 0);
  assert.match(expert.version, /^\d+\.\d+\.\d+/);
  assert.equal(expert.libraryInfo().version, expert.version);
  assert.equal(typeof expert.home(), 'string');
});

test('close ends what runs; drain waits for it', async () => {
  const mine = newEngine();
  const handle = mine.submit(long);
  await mine.stats();
  await mine.close();
  await mine.close();
  assert.equal(mine.closed, true);
  await assert.rejects(handle.result(), expert.ExpertError);
  for (const call of [() => mine.infer('x'), () => mine.tokenize('x'), () => mine.stats(), () => mine.vocabSize()]) {
    await assert.rejects(call(), expert.ClosedError);
  }
  const other = newEngine();
  const slow = other.submit({ ...long, maxTokens: 30 });
  await other.infer({ ...long, maxTokens: 1 });
  await other.close({ drain: true });
  assert.equal((await slow.result()).tokens.length, 30);
});
