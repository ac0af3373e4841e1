'use strict';

const native = require('./load.js');
const check = require('./check.js');
const { classes } = require('./errors.js');
const { build, uses, nativeExpert } = require('./request.js');
const { parse } = require('./results.js');
const { Handle, Stream } = require('./running.js');
const { watchedCall } = require('./progress.js');
const { InvalidRequestError, OutOfMemoryError } = classes;

const NO_WEIGHT_CACHE = 1;
const NO_HEAD_SCREEN = 2;
const CLOSE_DRAIN = 1;
const TOKENIZE_ADD_SPECIAL = 1;
const TOKENIZE_PLAIN_TEXT = 2;
const DETOKENIZE_SKIP_SPECIAL = 1;
const TEMPLATE_NO_GENERATION_PROMPT = 1;
const EMBED_NO_NORMALIZE = 1;

const optionReaders = {
  baseModel: check.path,
  device: check.plainText,
  weights: check.plainText,
  kv: check.plainText,
  home: check.path,
  ropeScaling: (name, value) => check.json(name, check.object(name, value)),
  contextSize: (name, value) => check.integer(name, value, 1, Number.MAX_SAFE_INTEGER),
  memoryLimit: (name, value) => check.integer(name, value, 1, Number.MAX_SAFE_INTEGER),
  threads: (name, value) => check.integer(name, value, 1),
  maxQueue: check.integer,
  maxBatch: check.integer,
  maxExperts: (name, value) => check.integer(name, value, 1),
  prefixCacheBytes: (name, value) => check.integer(name, value, 0, Number.MAX_SAFE_INTEGER),
  expertCacheBytes: (name, value) => check.integer(name, value, 1, Number.MAX_SAFE_INTEGER),
  useWeightCache: check.boolean,
  headScreen: check.boolean,
};
const optionDefaults = {
  contextSize: 0,
  memoryLimit: 0,
  threads: 0,
  maxQueue: 256,
  maxBatch: 16,
  maxExperts: 0,
  expertCacheBytes: 0,
  useWeightCache: true,
  headScreen: true,
};

function engineOptions(given) {
  check.onlyKeys('ExpertEngine', given, [...Object.keys(optionReaders), 'onProgress', 'signal']);
  const out = { ...optionDefaults };
  for (const [name, read] of Object.entries(optionReaders)) {
    if (given[name] !== undefined && given[name] !== null) out[name] = read(name, given[name]);
  }
  out.flags = (out.useWeightCache ? 0 : NO_WEIGHT_CACHE) | (out.headScreen ? 0 : NO_HEAD_SCREEN);
  return out;
}

function tokenIds(value) {
  if (value instanceof Int32Array) return value;
  if (!Array.isArray(value)) throw new TypeError('ids must be an array of integers or an Int32Array');
  return Int32Array.from(value, (id) => check.integer('a token id', id));
}

function options(name, given, known) {
  check.onlyKeys(name, check.object('the options', given), known);
  return given;
}

/** A loaded expert. It means the bytes that were loaded, also when the file changes. */
class Expert {
  #engine;
  #info;

  constructor(engine, info) {
    if (!(engine instanceof ExpertEngine)) throw new TypeError('an Expert comes from engine.loadExpert()');
    this.#engine = engine;
    this.#info = info;
  }

  /** Loads an expert into an engine that calls with equal options share. */
  static async load(source, engineOptions = {}) {
    return sharedEngine(engineOptions).loadExpert(source);
  }

  get [nativeExpert]() {
    return this.#info.handle;
  }
  get engine() {
    return this.#engine;
  }
  get name() {
    return this.#info.name;
  }
  get version() {
    return this.#info.version;
  }
  get kinds() {
    return JSON.parse(this.#info.kinds);
  }
  get sizeBytes() {
    return this.#info.sizeBytes;
  }
  get manifest() {
    return JSON.parse(this.#info.manifest);
  }
  get warnings() {
    return JSON.parse(this.#info.warnings);
  }
  get unloaded() {
    return native.isUnloaded(this.#info.handle);
  }

  /** The output of engine.infer() with this expert alone. */
  async generate(prompt, request = {}) {
    const result = await this.#engine.infer({ ...request, prompt, experts: [this] });
    return result.output;
  }

  /** Requests that run keep it, later uses are refused. Again is harmless. */
  async unload() {
    await native.unload(await this.#engine[opened], this.#info.handle);
  }
}

const opened = Symbol('opened');

/** One resident base model and its loaded experts. Opening happens beside the event loop; every call waits for it. */
class ExpertEngine {
  #opened;
  #opening = { promise: null, handle: null }; // for requests, which need not wait for a promise that was kept
  #closed = false;

  constructor(given = {}) {
    const read = engineOptions(check.object('the options', given));
    const open = (flag, progress) => native.open(read, flag, progress);
    this.#opened = watchedCall(given, open, (handle) => native.close(handle, 0));
    this.#opening.promise = this.#opened;
    this.#opened.then(
      (handle) => {
        this.#opening.handle = handle;
      },
      () => {}, // the first call that needs the engine tells
    );
  }

  get [opened]() {
    return this.#opened;
  }

  /** Resolves with this engine when the model is loaded; rejects when it cannot be. */
  async ready() {
    await this.#opened;
    return this;
  }

  // -- experts ------------------------------------------------------------------------------------------------------

  /** A .expert file, a directory, or the name of an installed or bundled expert. */
  async loadExpert(source) {
    const path = check.path('source', source);
    return new Expert(this, await native.load(await this.#opened, path));
  }

  /** The loaded expert that requests mean by this name. */
  async findExpert(name) {
    check.plainText('name', name);
    return new Expert(this, await native.find(await this.#opened, name));
  }

  /** Name, version, kinds, sizeBytes and warnings of each loaded expert. */
  async experts() {
    return parse(await native.experts(await this.#opened));
  }

  // -- requests -----------------------------------------------------------------------------------------------------

  /** One answer. Takes a prompt, or an object of options (see ExpertRequest). */
  infer(request) {
    try {
      return this.submit(request).result();
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** The chunks of one answer, as an async iterator. */
  stream(request) {
    return new Stream(this.#opening, build(request), check.signal(request?.signal));
  }

  /** Like infer(), without waiting. */
  submit(request) {
    return new Handle(this.#opening, build(request), check.signal(request?.signal));
  }

  /** Many requests at once, results in their order. After all have ended the first error is thrown, or with
   * returnExceptions errors stand in their places. */
  async inferBatch(requests, given = {}) {
    const { returnExceptions = false } = options('inferBatch', given, ['returnExceptions']);
    const outcomes = await this.#all(check.array('requests', requests));
    const failed = outcomes.find((outcome) => outcome instanceof Error);
    if (failed && !returnExceptions) throw failed;
    return outcomes;
  }

  // No more at once than the queue takes: a request that finds it full waits until one of ours has ended.
  async #all(requests) {
    const running = new Set();
    const one = async (request) => {
      while (true) {
        try {
          return await this.infer(request);
        } catch (error) {
          if (!(error instanceof OutOfMemoryError) || running.size === 0) return error;
          await Promise.race(running);
        }
      }
    };
    const outcomes = [];
    for (const request of requests) {
      while (running.size >= 64) await Promise.race(running);
      const outcome = one(request);
      outcomes.push(outcome);
      const tracked = outcome.finally(() => running.delete(tracked));
      running.add(tracked);
    }
    return Promise.all(outcomes);
  }

  /** What the router would do with this request. */
  async route(request) {
    const built = build(request);
    const handle = await this.#opened;
    built.write();
    return parse(await native.route(handle, built.prompt, built.experts, built.rest));
  }

  // -- text and evaluation ------------------------------------------------------------------------------------------

  /** Token ids. addSpecial: also what the tokenizer's post-processor adds; specialInText: false encodes the strings of
   * special tokens as plain text. */
  async tokenize(text, given = {}) {
    const { addSpecial = false, specialInText = true } = options('tokenize', given, ['addSpecial', 'specialInText']);
    const flags =
      (check.boolean('addSpecial', addSpecial) ? TOKENIZE_ADD_SPECIAL : 0) |
      (check.boolean('specialInText', specialInText) ? 0 : TOKENIZE_PLAIN_TEXT);
    check.text('text', text);
    return native.tokenize(await this.#opened, text, flags);
  }

  async detokenize(ids, given = {}) {
    const { skipSpecial = false } = options('detokenize', given, ['skipSpecial']);
    const tokens = tokenIds(ids);
    const flags = check.boolean('skipSpecial', skipSpecial) ? DETOKENIZE_SKIP_SPECIAL : 0;
    return native.detokenize(await this.#opened, tokens, flags);
  }

  /** The prompt that the model's own template makes of these messages. */
  async applyChatTemplate(messages, given = {}) {
    const known = ['tools', 'addGenerationPrompt', 'variables'];
    const { tools, addGenerationPrompt = true, variables } = options('applyChatTemplate', given, known);
    const list = check.json('messages', check.array('messages', messages));
    const flags = check.boolean('addGenerationPrompt', addGenerationPrompt) ? 0 : TEMPLATE_NO_GENERATION_PROMPT;
    return native.applyChatTemplate(
      await this.#opened,
      list,
      tools === undefined ? null : check.json('tools', check.array('tools', tools)),
      variables === undefined ? null : check.json('variables', check.object('variables', variables)),
      flags,
    );
  }

  /** Float32Array [ids.length × vocabSize], row by row: the logits after each token, of the base or with experts. */
  async logits(ids, given = {}) {
    const { experts = [] } = options('logits', given, ['experts']);
    const tokens = tokenIds(ids);
    if (tokens.length === 0) throw new InvalidRequestError('ids is empty');
    return native.logits(await this.#opened, tokens, uses(experts));
  }

  /** Float32Array [hiddenSize]: the pooled final states; pooling is "last" or "mean". */
  async embed(text, given = {}) {
    const known = ['pooling', 'normalize', 'experts'];
    const { pooling = 'last', normalize = true, experts = [] } = options('embed', given, known);
    const flags = check.boolean('normalize', normalize) ? 0 : EMBED_NO_NORMALIZE;
    check.text('text', text);
    check.plainText('pooling', pooling);
    return native.embed(await this.#opened, text, pooling, flags, uses(experts));
  }

  // -- the engine ---------------------------------------------------------------------------------------------------

  async vocabSize() {
    return native.vocabSize(await this.#opened);
  }
  async hiddenSize() {
    return native.hiddenSize(await this.#opened);
  }
  /** Tokens that a prompt and its answer may have together. */
  async contextSize() {
    return native.contextSize(await this.#opened);
  }
  /** Model, architecture, weights, kv, isa, threads, contextSize, warnings. */
  async info() {
    return parse(await native.info(await this.#opened));
  }
  /** Counters, memory, KV blocks. */
  async stats() {
    return parse(await native.stats(await this.#opened));
  }

  /** The counters and histograms of stats() in Prometheus' text format. */
  async metrics() {
    return native.metrics(await this.#opened);
  }

  /** True from close() on. */
  get closed() {
    return this.#closed;
  }

  /** Ends running requests with CancelledError, or with drain waits for them. Later calls are refused; twice is
   * harmless. */
  async close(given = {}) {
    const { drain = false } = options('close', given, ['drain']);
    const flags = check.boolean('drain', drain) ? CLOSE_DRAIN : 0;
    this.#closed = true;
    let engine;
    try {
      engine = await this.#opened;
    } catch {
      return; // it was never open
    }
    await native.close(engine, flags);
  }

  async [Symbol.asyncDispose ?? Symbol.for('nodejs.asyncDispose')]() {
    await this.close();
  }
}

const shared = new Map();

function sharedEngine(given) {
  const key = JSON.stringify(Object.entries(given).sort(([a], [b]) => (a < b ? -1 : 1)));
  if (!shared.has(key)) shared.set(key, new ExpertEngine(given));
  return shared.get(key);
}

module.exports = { ExpertEngine, Expert };
