'use strict';

// A wrong type is a TypeError, a wrong value an InvalidRequestError; what depends on the model the engine checks.

const { classes } = require('./errors.js');
const { InvalidRequestError } = classes;

const INT32 = 2 ** 31 - 1;
const loneSurrogate = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/;

function describe(value) {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : typeof value;
}

function text(name, value) {
  if (typeof value !== 'string') throw new TypeError(`${name} must be a string, not ${describe(value)}`);
  if (value.isWellFormed ? !value.isWellFormed() : loneSurrogate.test(value)) throw new InvalidRequestError(`${name} contains a lone surrogate`);
  return value;
}

// Text that C reads up to its first NUL.
function plainText(name, value) {
  if (text(name, value).includes('\0')) throw new InvalidRequestError(`${name} contains a NUL character`);
  return value;
}

function path(name, value) {
  return plainText(name, value instanceof URL ? require('node:url').fileURLToPath(value) : value);
}

function number(name, value) {
  if (typeof value !== 'number') throw new TypeError(`${name} must be a number, not ${describe(value)}`);
  if (!Number.isFinite(value)) throw new InvalidRequestError(`${name} is not a finite number`);
  return value;
}

// What the engine takes as a float: a number that becomes infinite there is refused here.
function float(name, value) {
  if (!Number.isFinite(Math.fround(number(name, value)))) throw new InvalidRequestError(`${name} is ${value}`);
  return value;
}

function integer(name, value, least = -INT32, most = INT32) {
  if (typeof value !== 'number') throw new TypeError(`${name} must be an integer, not ${describe(value)}`);
  if (!Number.isInteger(value)) {
    if (!Number.isFinite(value)) throw new InvalidRequestError(`${name} is not a finite number`);
    throw new TypeError(`${name} must be an integer, not ${value}`);
  }
  if (value < least || value > most) throw new InvalidRequestError(`${name} is ${value}, outside [${least}, ${most}]`);
  return value;
}

function boolean(name, value) {
  if (typeof value !== 'boolean') throw new TypeError(`${name} must be a boolean, not ${describe(value)}`);
  return value;
}

function array(name, value) {
  if (!Array.isArray(value)) throw new TypeError(`${name} must be an array, not ${describe(value)}`);
  return value;
}

function object(name, value) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new TypeError(`${name} must be an object, not ${describe(value)}`);
  }
  return value;
}

function json(name, value) {
  let document;
  try {
    document = JSON.stringify(value, (_key, inner) => {
      if (typeof inner === 'string') text(name, inner);
      return typeof inner === 'number' ? number(name, inner) : inner;
    });
  } catch (error) {
    throw new InvalidRequestError(`${name} is not JSON: ${error.message}`);
  }
  return document;
}

// An options object may hold these keys and no others.
function onlyKeys(name, value, known) {
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) throw new TypeError(`${name} has no option ${JSON.stringify(key)}`);
  }
}

function signal(value) {
  if (value === undefined || value === null) return null;
  if (typeof value !== 'object' || typeof value.addEventListener !== 'function' || !('aborted' in value)) {
    throw new TypeError(`signal must be an AbortSignal, not ${describe(value)}`);
  }
  return value;
}

module.exports = { text, plainText, path, number, float, integer, boolean, array, object, json, onlyKeys, signal, INT32 };
