'use strict';

// Requests that run: one answer, or its chunks as an async iterator.

const native = require('./load.js');
const check = require('./check.js');
const { classes } = require('./errors.js');
const { fromDocument, fromFields } = require('./results.js');
const { CancelledError, TimeoutError } = classes;

const RESULT_ONLY = 1;
const DOCUMENT = 2;

// Those that run, by the number that the compiled part knows them by.
const running = new Map();

// An error, or text and tokens of a chunk, and where this was the last one the result: as JSON or as fields.
native.setListener((id, error, text, tokens, document, all, output, allTokens, experts, source) => {
  const request = running.get(id);
  const last = document !== undefined || source !== undefined;
  if (error || last) running.delete(id);
  if (error) return request.end(error, null);
  if (!last) return request.onChunk(text, tokens, null);
  const result = document === undefined ? fromFields(all, output, allTokens, experts, source) : fromDocument(document);
  request.onChunk(text, tokens, result);
  request.end(null, result);
});

// Starts a request once the engine is open. cancel() works before, while and after it runs.
class Running {
  #id = 0;
  #cancelled = false;
  #done = false;
  #onEnd;

  start(engine, request, resultOnly, onChunk, onEnd) {
    this.onChunk = onChunk;
    this.#onEnd = onEnd;
    if (engine.handle) return this.#submit(engine.handle, request, resultOnly);
    engine.promise.then(
      (handle) => this.#submit(handle, request, resultOnly),
      (error) => this.end(error, null),
    );
  }

  #submit(handle, request, resultOnly) {
    request.write();
    const how = (resultOnly ? RESULT_ONLY : 0) | (request.detailed ? DOCUMENT : 0);
    try {
      this.#id = native.start(handle, how, request.prompt, request.experts, request.rest);
    } catch (error) {
      return this.end(error, null);
    }
    running.set(this.#id, this);
    if (this.#cancelled) native.cancel(this.#id);
  }

  end(error, result) {
    this.#done = true;
    this.#onEnd(error, result);
  }

  cancel() {
    this.#cancelled = true;
    if (this.#id !== 0 && !this.#done) native.cancel(this.#id);
  }

  get done() {
    return this.#done;
  }
}

const ignore = () => {};

// Cancels when the signal fires; gives the function that stops watching.
function watch(signal, running) {
  if (!signal) return ignore;
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
      this.#running.start(engine, request, true, ignore, onEnd);
    });
    this.#promise.catch(ignore); // whoever asks result() hears it
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
