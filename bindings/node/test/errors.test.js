'use strict';

// What is wrong gets a typed error of JavaScript, never a crash.
const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { expert, home, newEngine, long } = require('./common.js');

let engine;
before(() => {
  engine = newEngine();
});
after(() => engine.close());

test('the tree of errors', () => {
  const { LoadError, InferenceError, ExpertError } = expert;
  for (const name of ['ManifestError', 'SignatureError', 'IncompatibleError', 'UnsupportedError']) {
    assert.ok(expert[name].prototype instanceof LoadError, name);
  }
  for (const name of ['InvalidRequestError', 'OutOfMemoryError', 'GrammarError', 'CancelledError', 'ClosedError']) {
    assert.ok(expert[name].prototype instanceof InferenceError, name);
  }
  const error = new expert.LoadError('what', 'do this');
  assert.ok(error instanceof ExpertError && error instanceof Error);
  assert.deepEqual([error.name, error.code, error.hint], ['LoadError', 'EXPERT_LOAD', 'do this']);
});

const wrongTypes = [
  { temperature: 'warm' },
  { temperature: true },
  { maxTokens: 1.5 },
  { maxTokens: '8' },
  { stop: 5 },
  { stop: [5] },
  { experts: 5 },
  { experts: { sql: 1 } },
  { experts: [5] },
  { experts: [['sql', 'much']] },
  { experts: [null] },
  { schema: 5 },
  { messages: 'hello' },
  { logitBias: [1] },
  { raw: 1 },
  { seed: 1.5 },
  { seed: '1' },
  { signal: {} },
  { noSuchOption: 1 },
  { prompt: 5 },
  { prompt: Buffer.from('x') },
];
for (const options of wrongTypes) {
  test(`a wrong type is a TypeError: ${JSON.stringify(options)}`, async () => {
    await assert.rejects(engine.infer({ prompt: 'x', ...options }), TypeError);
  });
}

const badValues = [
  { temperature: -1 },
  { temperature: NaN },
  { temperature: 1e300 },
  { topP: 0 },
  { topP: 1.1 },
  { minP: 1 },
  { topK: -1 },
  { maxTokens: 0 },
  { maxTokens: 2 ** 40 },
  { repetitionPenalty: 0 },
  { seed: -1 },
  { seed: 2n ** 64n },
  { logitBias: { [10 ** 8]: 1 } },
  { experts: ['no-such-expert'] },
  { experts: 'sql' },
  { experts: [['sql', Infinity]] },
  { stop: ['a\0b'] },
  { messages: [{ role: 'user', content: 'x' }] },
  { prompt: '' },
  { prompt: '\ud800' },
  { prompt: 'x\udc00y' },
  { prompt: 'word '.repeat(20000) },
  { caller: 'a\0b' },
  { schema: '\udfff' },
];
for (const options of badValues) {
  const shown = JSON.stringify(options, (_, v) => (typeof v === 'bigint' ? `${v}` : v)).slice(0, 60);
  test(`a bad value is an InvalidRequestError: ${shown}`, async () => {
    await assert.rejects(engine.infer({ prompt: 'x', ...options }), expert.InvalidRequestError);
  });
}

test('a request that is none', async () => {
  for (const request of [5, null, undefined, true, Symbol('x')]) await assert.rejects(engine.infer(request), TypeError);
  await assert.rejects(engine.infer([]), TypeError);
  await assert.rejects(engine.infer({}), expert.InvalidRequestError);
  await assert.rejects(engine.infer({ messages: [{ role: 'user', content: '\ud800' }] }), expert.InvalidRequestError);
  const circular = [{}];
  circular[0].self = circular;
  await assert.rejects(engine.infer({ messages: circular }), expert.InvalidRequestError);
});

test('the same checks for streams and handles, at once', () => {
  assert.throws(() => engine.stream({ prompt: 5 }), TypeError);
  assert.throws(() => engine.submit({ prompt: 'x', temperature: NaN }), expert.InvalidRequestError);
});

test('an error of a stream is told once, then it is over', async () => {
  const stream = engine.stream({ prompt: 'x', topP: 7 });
  await assert.rejects(stream.next(), expert.InvalidRequestError);
  assert.equal((await stream.next()).done, true);
});

test('a prompt with NUL bytes is text', async () => {
  const result = await engine.infer({ prompt: 'a\0b', experts: [], maxTokens: 1 });
  assert.ok(result.usage.promptTokens > 0);
});

test('what cannot be loaded', async () => {
  await assert.rejects(engine.loadExpert('/nothing/here.expert'), expert.LoadError);
  await assert.rejects(engine.loadExpert('a\0b'), expert.InvalidRequestError);
  await assert.rejects(engine.loadExpert(5), TypeError);
  const broken = new expert.ExpertEngine({ baseModel: '/nothing/here', home });
  await assert.rejects(broken.ready(), (error) => error instanceof expert.LoadError && error.hint !== '');
  await assert.rejects(broken.infer('x'), expert.LoadError);
  await broken.close();
  assert.throws(() => new expert.ExpertEngine({ basemodel: 'x' }), TypeError);
  assert.throws(() => new expert.ExpertEngine({ baseModel: 5 }), TypeError);
  assert.throws(() => new expert.ExpertEngine(5), TypeError);
  assert.throws(() => expert.ExpertEngine(), TypeError);
  assert.throws(() => new expert.Expert(), TypeError);
});

test('evaluation of what is none', async () => {
  await assert.rejects(engine.logits([]), expert.InvalidRequestError);
  await assert.rejects(engine.logits([10 ** 6]), expert.InvalidRequestError);
  await assert.rejects(engine.logits(['a']), TypeError);
  await assert.rejects(engine.embed('x', { pooling: 'max' }), expert.InvalidRequestError);
  await assert.rejects(engine.tokenize('\ud800'), expert.InvalidRequestError);
  await assert.rejects(engine.detokenize('abc'), TypeError);
  await assert.rejects(engine.detokenize([2 ** 31]), expert.InvalidRequestError);
});

test('callbacks that throw', async () => {
  const thrown = new Error('from the callback');
  const opening = newEngine({
    onProgress() {
      throw thrown;
    },
  });
  await assert.rejects(opening.ready(), (error) => error === thrown);
  const late = newEngine({
    onProgress() {
      throw thrown;
    },
  });
  // Nothing is delivered meanwhile, so the model is loaded before the callback is first called.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
  await assert.rejects(late.ready(), (error) => error === thrown);
  await late.close();
  await assert.rejects(newEngine({ signal: AbortSignal.abort() }).ready(), expert.CancelledError);
  const heard = [];
  await newEngine({ onProgress: (fraction) => heard.push(fraction) }).ready().then((opened) => opened.close());
  assert.ok(heard.length > 0 && heard.every((fraction) => fraction >= 0 && fraction <= 1));
});

test('what is not built yet says so by name', async () => {
  const { packages, trust, generateKey } = expert;
  for (const call of [
    () => packages.verify('x', { home }),
    () => packages.update('x', { home }),
    () => packages.create('/x', '/y'),
    () => packages.sign('/x', '/y'),
    () => generateKey('/x'),
    () => trust.add('ed25519:00', 'me', { home }),
    () => trust.remove('me', { home }),
    () => trust.list({ home }),
  ]) {
    await assert.rejects(call(), (error) => error instanceof expert.UnsupportedError && /not built yet/.test(error.message));
  }
});

test('an engine collected while its stream is read', { skip: !global.gc }, async () => {
  let mine = newEngine();
  const stream = mine.stream({ ...long, maxTokens: 30 });
  await stream.next();
  mine = null;
  global.gc();
  let last;
  for await (const chunk of stream) last = chunk;
  assert.equal(last.result.finishReason, 'length');
});
