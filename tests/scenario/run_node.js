'use strict';

// The scenario through the Node package. argv: the package, the source folder, the home.
const fs = require('node:fs');
const path = require('node:path');

const [, , packageDir, root, home] = process.argv;
const { ExpertEngine, ExpertError } = require(packageDir);

const errors = { InvalidRequestError: 'invalid_request', LoadError: 'load' };
const camel = (key) => key.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
const snake = (key) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

const requestOf = (request) => Object.fromEntries(Object.entries(request).map(([key, value]) => [camel(key), value]));

function snakeKeys(value) {
  if (Array.isArray(value)) return value.map(snakeKeys);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [snake(key), snakeKeys(inner)]));
}

function outcomeOf({ text, output, tokens, expertsUsed, finishReason, usage, logprobs }) {
  const out = { text, output, tokens, expertsUsed, finishReason, usage };
  if (logprobs.length) out.logprobs = logprobs;
  return snakeKeys(out);
}

const round = (value) => Math.sign(value) * Math.round(Math.abs(value) * 1e6);

const calls = {
  infer: async (engine, { request }) => outcomeOf(await engine.infer(requestOf(request))),
  async stream(engine, { request }) {
    let text = '';
    const running = engine.stream(requestOf(request));
    for await (const chunk of running) text += chunk.text;
    return { text, result: outcomeOf(running.result) };
  },
  infer_batch: async (engine, { requests }) => (await engine.inferBatch(requests.map(requestOf))).map(outcomeOf),
  async route(engine, { request }) {
    const { experts, parameters, confidence, explanation } = await engine.route(requestOf(request));
    const chosen = experts.map(({ name, weight, score, reason }) => ({ name, weight, score, reason }));
    return { experts: chosen, parameters: snakeKeys(parameters), confidence, explanation };
  },
  tokenize: (engine, { text }) => engine.tokenize(text),
  detokenize: (engine, { ids }) => engine.detokenize(ids),
  apply_chat_template: (engine, { messages }) => engine.applyChatTemplate(messages),
  async logits(engine, { ids, experts }) {
    const all = await engine.logits(ids, { experts });
    const columns = await engine.vocabSize();
    return ids.map((_, i) => {
      const row = all.subarray(i * columns, (i + 1) * columns);
      return row.indexOf(row.reduce((a, b) => Math.max(a, b)));
    });
  },
  embed: async (engine, { text, pooling }) => Array.from(await engine.embed(text, pooling ? { pooling } : {}), round),
  load_expert: async (engine, { source }) => (await engine.loadExpert(source)).name,
};

async function run(engine, step) {
  try {
    return await calls[step.call](engine, step);
  } catch (error) {
    if (error instanceof ExpertError) return { error: errors[error.name] ?? error.name };
    throw error;
  }
}

async function main() {
  const story = JSON.parse(fs.readFileSync(path.join(root, 'tests/scenario/scenario.json'), 'utf8'));
  const { base_model: model, threads } = story.engine;
  const engine = new ExpertEngine({ baseModel: path.join(root, model), threads, home });
  const outcomes = [];
  for (const step of story.steps) outcomes.push({ name: step.name, outcome: await run(engine, step) });
  console.log(JSON.stringify(outcomes));
  await engine.close();
}

main();
