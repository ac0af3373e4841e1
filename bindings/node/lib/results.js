'use strict';

function camel(key) {
  return key.replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase());
}

// Keys of our own JSON in camelCase, all the way down.
function camelKeys(value) {
  if (Array.isArray(value)) return value.map(camelKeys);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [camel(key), camelKeys(inner)]));
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
