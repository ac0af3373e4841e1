'use strict';

const native = require('./load.js');

// The keys of our own JSON are few and come with every result; those of manifests are anybody's.
const MOST_KNOWN = 1000;
const known = new Map();

function camel(key) {
  let name = known.get(key);
  if (name === undefined) {
    name = key.replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase());
    if (known.size < MOST_KNOWN) known.set(key, name);
  }
  return name;
}

// Keys of our own JSON in camelCase, all the way down.
function camelKeys(value) {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(camelKeys);
  const out = {};
  for (const key of Object.keys(value)) out[camel(key)] = camelKeys(value[key]); // never __proto__: "_p" becomes "P"
  return out;
}

function parse(document) {
  return camelKeys(JSON.parse(document));
}

// A result with log-probabilities or a trace.
function fromDocument(document) {
  const result = JSON.parse(document); // its keys are in camelCase
  result.latencyMs = result.timings.totalMs;
  result.logprobs ??= [];
  return result;
}

// Few look at the plan, and making it would be a third of what this package adds to a call, so it is made when first
// read. To its reader it is a property like the others: it is listed, copied, logged and may be set.
const hidden = Symbol('plan');
const planned = {
  enumerable: true,
  configurable: true,
  get() {
    const state = this[hidden];
    if (state.source !== null) {
      state.plan = JSON.parse(native.plan(state.source)); // its keys are in camelCase
      state.source = null;
    }
    return state.plan;
  },
  set(plan) {
    this[hidden].plan = plan;
    this[hidden].source = null;
  },
};
const logged = {
  value() {
    return { ...this };
  },
};

function addPlan(result, source) {
  Object.defineProperty(result, hidden, { value: { source, plan: undefined } });
  Object.defineProperty(result, Symbol.for('nodejs.util.inspect.custom'), logged);
  return Object.defineProperty(result, 'plan', planned);
}

// The memory in which the compiled part leaves usage and timings of the result that it gives.
const figures = native.resultFigures();
const finishReasons = native.finishReasons();

let toldExperts = []; // [name, version, weight, name, …]

// `output` is undefined where it is the text; experts are undefined without any, null for those that were told last.
function fromFields(text, output, tokens, experts, source) {
  const expertsUsed = [];
  if (experts !== undefined) {
    toldExperts = experts ?? toldExperts;
    for (let i = 0; i < toldExperts.length; i += 3) {
      expertsUsed.push({ name: toldExperts[i], version: toldExperts[i + 1], weight: toldExperts[i + 2] });
    }
  }
  const result = {
    text,
    output: output ?? text,
    tokens,
    expertsUsed,
    finishReason: finishReasons[figures[0]],
    usage: {
      promptTokens: figures[1],
      completionTokens: figures[2],
      totalTokens: figures[3],
      promptVirtualTokens: figures[4],
      cachedTokens: figures[5],
    },
    timings: {
      queueMs: figures[6],
      prefillMs: figures[7],
      firstTokenMs: figures[8],
      decodeMs: figures[9],
      totalMs: figures[10],
      tokensPerSecond: figures[11],
    },
    latencyMs: figures[10],
    logprobs: [],
  };
  return addPlan(result, source);
}

module.exports = { parse, fromDocument, fromFields };
