'use strict';

const native = require('./load.js');
const check = require('./check.js');
const { classes } = require('./errors.js');

function callbackOf(value, onError) {
  if (value === undefined || value === null) return null;
  if (typeof value !== 'function') throw new TypeError('onProgress must be a function');
  return (fraction) => {
    try {
      value(fraction);
    } catch (error) {
      onError(error);
    }
  };
}

// Runs `call(flag, callback id)`, which takes long: `onProgress(fraction)` hears of it, `signal` stops it. A callback
// that throws stops it too, and the promise rejects with what it threw; where the call had ended before this thread got
// to run the callback, what it gave goes to `discard`.
async function watchedCall({ onProgress, signal: givenSignal }, call, discard = () => {}) {
  const signal = check.signal(givenSignal);
  const flag = native.makeFlag();
  let thrown = null;
  const callback = callbackOf(onProgress, (error) => {
    thrown ??= { error };
    native.setFlag(flag);
  });
  const id = callback ? native.keepCallback(callback) : null;
  const onAbort = () => native.setFlag(flag);
  if (signal?.aborted) onAbort();
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    const given = await call(flag, id);
    if (!thrown) return given;
    await discard(given);
    throw thrown.error;
  } catch (error) {
    if (thrown) throw thrown.error;
    if (signal?.aborted && error instanceof classes.CancelledError) {
      throw new classes.CancelledError('the call was cancelled', '', { cause: signal.reason });
    }
    throw error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    if (id !== null) native.dropCallback(id);
  }
}

module.exports = { watchedCall };
