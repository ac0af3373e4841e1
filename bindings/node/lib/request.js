'use strict';

// From the options of a call to the plain object that the compiled part reads.

const check = require('./check.js');
const { classes } = require('./errors.js');
const { InvalidRequestError } = classes;

const BASE_ONLY = 1;
const RAW = 2;
const PLAIN_TEXT = 4;
const IGNORE_EOS = 8;
const TRACE = 16;
const MAX_SEED = 2n ** 64n - 2n; // the last one spells "random" in the C interface

const nativeExpert = Symbol('nativeExpert');

function use(entry, weight = 1) {
  if (entry !== null && typeof entry === 'object' && entry[nativeExpert]) {
    return { handle: entry[nativeExpert], name: null, weight };
  }
  if (typeof entry === 'string' || entry instanceof URL) {
    return { handle: null, name: check.path('an expert', entry), weight };
  }
  if (Array.isArray(entry) && entry.length === 2 && !Array.isArray(entry[0])) {
    return use(entry[0], check.float('the weight of an expert', entry[1]));
  }
  throw new TypeError('an expert is an Expert, a name, a path, or [one of them, weight]');
}

function uses(experts) {
  return check.array('experts', experts).map((entry) => use(entry));
}

function setExperts(out, experts) {
  if (experts === 'auto') return;
  if (typeof experts === 'string') {
    throw new InvalidRequestError(`experts is ${JSON.stringify(experts)}`, 'use "auto", or an array: ["sql"]');
  }
  out.experts = uses(experts);
  if (out.experts.length === 0) out.flags |= BASE_ONLY;
}

function seed(value) {
  if (typeof value !== 'bigint' && typeof value !== 'number') throw new TypeError('seed must be an integer or a bigint');
  if (typeof value === 'number' && !Number.isInteger(value)) throw new TypeError('seed must be an integer or a bigint');
  const big = BigInt(value);
  if (big < 0n || big > MAX_SEED) throw new InvalidRequestError(`seed is ${value}, outside [0, ${MAX_SEED}]`);
  return big;
}

function stop(value) {
  const list = typeof value === 'string' ? [value] : check.array('stop', value);
  return list.map((entry) => check.plainText('a stop string', entry));
}

function logitBias(value) {
  const entries = value instanceof Map ? [...value] : Object.entries(check.object('logitBias', value));
  return entries.flatMap(([token, bias]) => [
    check.integer('a token id of logitBias', Number(token)),
    check.float('a value of logitBias', bias),
  ]);
}

const flag = (bit, whenTrue = true) => (out, value, name) => {
  if (check.boolean(name, value) === whenTrue) out.flags |= bit;
};
const set = (read) => (out, value, name) => {
  out[name] = read(name, value);
};

const fields = {
  prompt: set(check.text),
  messages: set((name, value) => check.json(name, check.array(name, value))),
  tools: set((name, value) => check.json(name, check.array(name, value))),
  templateVariables: set((name, value) => check.json(name, check.object(name, value))),
  schema: set(check.text),
  body: set(check.text),
  experts: setExperts,
  temperature: set(check.float),
  topP: set(check.float),
  minP: set(check.float),
  repetitionPenalty: set(check.float),
  presencePenalty: set(check.float),
  frequencyPenalty: set(check.float),
  topK: set(check.integer),
  maxTokens: set(check.integer),
  logprobs: set(check.integer),
  seed: set((_name, value) => seed(value)),
  stop: set((_name, value) => stop(value)),
  logitBias: set((_name, value) => logitBias(value)),
  ignoreEos: flag(IGNORE_EOS),
  trace: flag(TRACE),
  raw: flag(RAW),
  specialInText: flag(PLAIN_TEXT, false),
  priority: set(check.integer),
  deadlineMs: set(check.number),
  caller: set(check.plainText),
  cacheSalt: set(check.plainText),
};

// null and undefined are as good as absent. `signal` is the caller's part.
function build(given) {
  const options = typeof given === 'string' ? { prompt: given } : check.object('the request', given);
  const out = { flags: 0 };
  for (const [name, value] of Object.entries(options)) {
    if (name === 'signal') continue;
    if (!Object.hasOwn(fields, name)) throw new TypeError(`a request has no option ${JSON.stringify(name)}`);
    if (value !== undefined && value !== null) fields[name](out, value, name);
  }
  return out;
}

const knownFields = Object.keys(fields);

module.exports = { build, uses, nativeExpert, knownFields };
