'use strict';

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

function toResult(document) {
  const result = parse(document);
  result.latencyMs = result.timings.totalMs;
  result.logprobs ??= [];
  return result;
}

module.exports = { parse, toResult };
