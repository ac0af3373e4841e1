'use strict';

// From the options of a call to what the compiled part reads: the prompt, numbers in memory that both sides see, and an
// object of what few requests have.

const native = require('./load.js');
const check = require('./check.js');
const { classes } = require('./errors.js');
const { InvalidRequestError } = classes;

const BASE_ONLY = 1;
const RAW = 2;
const PLAIN_TEXT = 4;
const IGNORE_EOS = 8;
const TRACE = 16;
const MAX_SEED = 2n ** 64n - 2n; // the last one spells "random" in the C interface

// The memory of the numbers, in the order in which src/request.cpp reads them; NaN: not given.
const numbers = native.requestNumbers();
const numberNames = [
  'temperature',
  'topP',
  'minP',
  'repetitionPenalty',
  'presencePenalty',
  'frequencyPenalty',
  'topK',
  'maxTokens',
  'logprobs',
  'priority',
  'deadlineMs',
];

class Request {
  flags = 0;
  prompt = undefined;
  experts = undefined; // for src/request.cpp: [handle or name, weight, …]
  numbers = null; // by their places
  rest = undefined;

  set(name, value) {
    this.rest ??= {};
    this.rest[name] = value;
  }

  number(place, value) {
    this.numbers ??= new Array(numberNames.length).fill(NaN);
    this.numbers[place] = value;
  }

  /** Writes the numbers; the next call of the compiled part reads them. */
  write() {
    numbers[0] = this.flags;
    for (let i = 0; i < numberNames.length; ++i) numbers[i + 1] = this.numbers === null ? NaN : this.numbers[i];
  }

  /** Whether the result has more than its usual fields. */
  get detailed() {
    return (this.flags & TRACE) !== 0 || (this.numbers !== null && this.numbers[LOGPROBS] > 0);
  }
}

const LOGPROBS = numberNames.indexOf('logprobs');

const nativeExpert = Symbol('nativeExpert');

// The handle or the name.
function expertOf(entry) {
  if (entry !== null && typeof entry === 'object' && entry[nativeExpert]) return entry[nativeExpert];
  if (typeof entry === 'string' || entry instanceof URL) return check.path('an expert', entry);
  throw new TypeError('an expert is an Expert, a name, a path, or [one of them, weight]');
}

function uses(experts) {
  const flat = [];
  for (const entry of check.array('experts', experts)) {
    if (Array.isArray(entry) && entry.length === 2) {
      flat.push(expertOf(entry[0]), check.float('the weight of an expert', entry[1]));
    } else {
      flat.push(expertOf(entry), 1);
    }
  }
  return flat;
}

function setExperts(out, experts) {
  if (experts === 'auto') return;
  if (typeof experts === 'string') {
    throw new InvalidRequestError(`experts is ${JSON.stringify(experts)}`, 'use "auto", or an array: ["sql"]');
  }
  const list = uses(experts);
  if (list.length === 0) out.flags |= BASE_ONLY;
  else out.experts = list;
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
const set = (read) => (out, value, name) => out.set(name, read(name, value));
const number = (name, read) => {
  const place = numberNames.indexOf(name);
  return (out, value) => out.number(place, read(name, value));
};

const fields = {
  prompt: (out, value) => {
    out.prompt = check.text('prompt', value);
  },
  messages: set((name, value) => check.json(name, check.array(name, value))),
  tools: set((name, value) => check.json(name, check.array(name, value))),
  templateVariables: set((name, value) => check.json(name, check.object(name, value))),
  schema: set(check.text),
  body: set(check.text),
  experts: setExperts,
  temperature: number('temperature', check.float),
  topP: number('topP', check.float),
  minP: number('minP', check.float),
  repetitionPenalty: number('repetitionPenalty', check.float),
  presencePenalty: number('presencePenalty', check.float),
  frequencyPenalty: number('frequencyPenalty', check.float),
  topK: number('topK', check.integer),
  maxTokens: number('maxTokens', check.integer),
  logprobs: number('logprobs', check.integer),
  seed: set((_name, value) => seed(value)),
  stop: set((_name, value) => stop(value)),
  logitBias: set((_name, value) => logitBias(value)),
  ignoreEos: flag(IGNORE_EOS),
  trace: flag(TRACE),
  raw: flag(RAW),
  specialInText: flag(PLAIN_TEXT, false),
  priority: number('priority', check.integer),
  deadlineMs: number('deadlineMs', check.number),
  caller: set(check.plainText),
  cacheSalt: set(check.plainText),
};

// null and undefined are as good as absent. `signal` is the caller's part.
function build(given) {
  const out = new Request();
  if (typeof given === 'string') {
    fields.prompt(out, given);
    return out;
  }
  const options = check.object('the request', given);
  for (const name of Object.keys(options)) {
    if (name === 'signal') continue;
    if (!Object.hasOwn(fields, name)) throw new TypeError(`a request has no option ${JSON.stringify(name)}`);
    const value = options[name];
    if (value !== undefined && value !== null) fields[name](out, value, name);
  }
  return out;
}

const knownFields = Object.keys(fields);

module.exports = { build, uses, nativeExpert, knownFields };
