'use strict';

// Requests that run: one answer, or its chunks as an async iterator.

const native = require('./load.js');
const check = require('./check.js');
const { classes } = require('./errors.js');
const { toResult } = require('./results.js');
const { CancelledError, TimeoutError } = classes;

// Starts a request once the engine is open. cancel() works before, while and after it runs.
class Running {
  #native = null;
  #cancelled = false;
  #done = false;

  start(engine, request, resultOnly, onChunk, onEnd) {
    const end = (error, result) => {
      this.#done = true;
      this.#native = null;
      onEnd(error, result);
    };
    engine.then(
      (opened) => {
        try {
          this.#native = native.start(opened, request, resultOnly, (error, text, tokens, document) => {
            if (error) return end(error, null);
            const result = document === undefined ? null : toResult(document);
            onChunk(text, tokens, result);
            if (result) end(null, result);
          });
        } catch (error) {
          return end(error, null);
        }
        if (this.#cancelled) native.cancel(this.#native);
      },
      (error) => end(error, null),
    );
  }

  cancel() {
    this.#cancelled = true;
    if (this.#native) native.cancel(this.#native);
  }

  get done() {
    return this.#done;
  }
}

// Cancels when the signal fires; gives the function that stops watching.
function watch(signal, running) {
  if (!signal) return () => {};
  const onAbort = () => running.cancel();
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  return () => signal.removeEventListener('abort', onAbort);
}

function cancelled(signal, partial) {
  const cause = signal?.aborted ? signal.reason : undefined;
  return new CancelledError('the request was cancelled', '', { partial, cause });
}

/** One running request. */
class Handle {
  #running = new Running();
  #promise;

  constructor(engine, request, signal) {
    const unwatch = watch(signal, this.#running);
    this.#promise = new Promise((resolve, reject) => {
      const onEnd = (error, result) => {
        unwatch();
        if (error) reject(error);
        else if (result.finishReason === 'cancelled') reject(cancelled(signal, result));
        else resolve(result);
      };
      this.#running.start(engine, request, true, () => {}, onEnd);
    });
    this.#promise.catch(() => {}); // whoever asks result() hears it
  }

  /** The answer; rejects with a TimeoutError after `timeoutMs` milliseconds, the request goes on. */
  result(timeoutMs) {
    if (timeoutMs === undefined || timeoutMs === null) return this.#promise;
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(
        () => reject(new TimeoutError(`the request did not finish within ${timeoutMs} ms`)),
        Math.max(0, check.number('timeoutMs', timeoutMs)),
      );
    });
    return Promise.race([this.#promise, late]).finally(() => clearTimeout(timer));
  }

  done() {
    return this.#running.done;
  }

  /** The request ends soon, with what it has. Again or too late is harmless. */
  cancel() {
    this.#running.cancel();
  }
}

/** The chunks of one answer. The last one has `.result`; so has the stream afterwards. */
class Stream {
  #running = new Running();
  #chunks = [];
  #waiting = [];
  #ended = false;
  #error = null;
  #unwatch;
  /** The whole answer, once the last chunk was read. */
  result = null;

  constructor(engine, request, signal) {
    this.#unwatch = watch(signal, this.#running);
    this.#running.start(
      engine,
      request,
      false,
      (text, tokens, result) => this.#add({ text, tokens, result }),
      (error) => this.#end(error),
    );
  }

  #add(chunk) {
    const waiter = this.#waiting.shift();
    if (waiter) waiter.resolve(this.#give(chunk));
    else this.#chunks.push(chunk);
  }

  #end(error) {
    this.#unwatch();
    this.#ended = true;
    this.#error = error;
    for (const waiter of this.#waiting.splice(0)) this.#finish(waiter);
  }

  #give(chunk) {
    if (chunk.result) this.result = chunk.result;
    return { value: chunk, done: false };
  }

  #finish({ resolve, reject }) {
    const error = this.#error;
    this.#error = null; // told once
    if (error) reject(error);
    else resolve({ value: undefined, done: true });
  }

  next() {
    return new Promise((resolve, reject) => {
      if (this.#chunks.length) resolve(this.#give(this.#chunks.shift()));
      else if (this.#ended) this.#finish({ resolve, reject });
      else this.#waiting.push({ resolve, reject });
    });
  }

  /** Called by `break` in a for-await loop. */
  return(value) {
    this.cancel();
    return Promise.resolve({ value, done: true });
  }

  /** The stream ends soon; its last chunk says finishReason "cancelled". */
  cancel() {
    this.#running.cancel();
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async [Symbol.asyncDispose ?? Symbol.for('nodejs.asyncDispose')]() {
    this.cancel();
  }
}

module.exports = { Handle, Stream };
