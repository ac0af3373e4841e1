/** Weights are any finite number, usually 1. A name, a path, or a loaded expert; with a weight in a pair. */
export type ExpertUse = string | URL | Expert | [string | URL | Expert, number];
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

export interface Message {
  role: string;
  content: Json;
  [field: string]: Json;
}

/** What is left out comes from the expert's manifest, then the model's generation_config.json, then the default here. */
export interface ExpertRequest {
  /** One user message through the model's chat template. */
  prompt?: string;
  /** Instead of prompt. */
  messages?: Message[];
  tools?: JsonObject[];
  templateVariables?: JsonObject;
  schema?: string;
  /** After the prompt, after a blank line. */
  body?: string;
  /** "auto" (the default): the router chooses; []: the base alone. */
  experts?: 'auto' | ExpertUse[];
  /** 512 */
  maxTokens?: number;
  /** >= 0, 0 is greedy. 0.7 */
  temperature?: number;
  /** (0, 1]. 1 */
  topP?: number;
  /** 0 is off. 0 */
  topK?: number;
  /** [0, 1). 0 */
  minP?: number;
  /** > 0. 1 */
  repetitionPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  /** [0, 2^64 - 2]; random when left out. */
  seed?: number | bigint;
  stop?: string | string[];
  logitBias?: Record<number, number> | Map<number, number>;
  /** Report the chosen token and this many best ones. */
  logprobs?: number;
  ignoreEos?: boolean;
  /** The result then has `trace`: what happened to the request, step by step. */
  trace?: boolean;
  /** No chat template. */
  raw?: boolean;
  /** false: special tokens spelled in the caller's text are ordinary text. Use it for text of strangers. */
  specialInText?: boolean;
  /** 0 is normal, higher first. */
  priority?: number;
  /** Then the request ends with what it has and finishReason "timeout". */
  deadlineMs?: number;
  /** Callers share the machine fairly. */
  caller?: string;
  cacheSalt?: string;
  signal?: AbortSignal;
}

export interface Usage {
  promptTokens: number;
  completionTokens: number;
  totalTokens: number;
  promptVirtualTokens: number;
  cachedTokens: number;
}

/** Milliseconds; tokensPerSecond counts the decode alone. */
export interface Timings {
  queueMs: number;
  prefillMs: number;
  firstTokenMs: number;
  decodeMs: number;
  totalMs: number;
  tokensPerSecond: number;
}

export interface TokenLogprob {
  token: number;
  logprob: number;
}

export interface Result {
  text: string;
  /** text without a leading think block and outer blank space. */
  output: string;
  /** Those of a cut stop string included, without the end token. */
  tokens: number[];
  expertsUsed: { name: string; version: string; weight: number }[];
  finishReason: 'stop' | 'length' | 'timeout' | 'cancelled' | 'error';
  usage: Usage;
  timings: Timings;
  /** From submit to the end. */
  latencyMs: number;
  /** The routing decision and the parameters that were in force. */
  plan: JsonObject;
  logprobs: (TokenLogprob & { top: TokenLogprob[] })[];
  /** When the request asked for it. */
  trace?: Json;
}

export interface Chunk {
  text: string;
  tokens: number[];
  /** On the last chunk. */
  result: Result | null;
}

export interface Plan {
  experts: { name: string; weight: number; score: number; reason: string }[];
  parameters: JsonObject;
  confidence: number;
  explanation: string;
}

export interface Progress {
  /** Hears how far a long call is, 0 … 1. */
  onProgress?: (fraction: number) => void;
  signal?: AbortSignal;
}

export interface EngineOptions extends Progress {
  /** A directory or a registered name; by default the configured model, else the bundled one. */
  baseModel?: string | URL;
  /** "auto", "cpu", "reference" */
  device?: string;
  weights?: string;
  kv?: string;
  /** Tokens; by default the model's own. */
  contextSize?: number;
  /** By default every processor. */
  threads?: number;
  /** Bytes. */
  memoryLimit?: number;
  /** Where experts are installed, by default $EXPERT_HOME or ~/.expert. */
  home?: string | URL;
  ropeScaling?: JsonObject;
  maxQueue?: number;
  maxBatch?: number;
  /** Of one request; one more is refused. 10 */
  maxExperts?: number;
  /** Bytes of the KV cache for prefixes that no request uses now. All that is free; 0: none is kept. */
  prefixCacheBytes?: number;
  /** Bytes of host memory for experts that requests name. A quarter of the free memory. */
  expertCacheBytes?: number;
  useWeightCache?: boolean;
  /** A second, smaller copy of a large head, with which greedy and topK requests read less of it. Default true. */
  headScreen?: boolean;
}

export interface LoadedExpert {
  name: string;
  version: string;
  kinds: string[];
  sizeBytes: number;
  warnings: string[];
}

/** One resident base model and its loaded experts. Opening happens beside the event loop; every call waits for it. */
export class ExpertEngine {
  constructor(options?: EngineOptions);
  /** Resolves when the model is loaded. */
  ready(): Promise<this>;
  loadExpert(source: string | URL): Promise<Expert>;
  findExpert(name: string): Promise<Expert>;
  experts(): Promise<LoadedExpert[]>;
  infer(request: string | ExpertRequest): Promise<Result>;
  stream(request: string | ExpertRequest): Stream;
  submit(request: string | ExpertRequest): Handle;
  inferBatch(requests: (string | ExpertRequest)[], options?: { returnExceptions?: false }): Promise<Result[]>;
  inferBatch(
    requests: (string | ExpertRequest)[],
    options: { returnExceptions: boolean },
  ): Promise<(Result | Error)[]>;
  route(request: string | ExpertRequest): Promise<Plan>;
  tokenize(text: string, options?: { addSpecial?: boolean; specialInText?: boolean }): Promise<number[]>;
  detokenize(ids: readonly number[] | Int32Array, options?: { skipSpecial?: boolean }): Promise<string>;
  applyChatTemplate(
    messages: Message[],
    options?: { tools?: JsonObject[]; addGenerationPrompt?: boolean; variables?: JsonObject },
  ): Promise<string>;
  /** [ids.length × vocabSize], row by row. */
  logits(ids: readonly number[] | Int32Array, options?: { experts?: ExpertUse[] }): Promise<Float32Array>;
  /** [hiddenSize] */
  embed(
    text: string,
    options?: { pooling?: 'last' | 'mean'; normalize?: boolean; experts?: ExpertUse[] },
  ): Promise<Float32Array>;
  vocabSize(): Promise<number>;
  hiddenSize(): Promise<number>;
  /** Tokens that a prompt and its answer may have together. */
  contextSize(): Promise<number>;
  info(): Promise<JsonObject>;
  stats(): Promise<JsonObject>;
  /** The counters and histograms of stats() in Prometheus' text format. */
  metrics(): Promise<string>;
  readonly closed: boolean;
  close(options?: { drain?: boolean }): Promise<void>;
}

/** A loaded expert. It means the bytes that were loaded, also when the file changes. */
export class Expert {
  private constructor();
  /** Loads an expert into an engine that calls with equal options share. */
  static load(source: string | URL, options?: EngineOptions): Promise<Expert>;
  readonly engine: ExpertEngine;
  readonly name: string;
  readonly version: string;
  readonly kinds: string[];
  readonly sizeBytes: number;
  readonly manifest: JsonObject | null;
  readonly warnings: string[];
  readonly unloaded: boolean;
  generate(prompt: string, request?: Omit<ExpertRequest, 'prompt' | 'experts'>): Promise<string>;
  unload(): Promise<void>;
}

/** One running request. */
export class Handle {
  private constructor();
  /** Rejects with a TimeoutError after `timeoutMs`; the request goes on. */
  result(timeoutMs?: number): Promise<Result>;
  done(): boolean;
  cancel(): void;
}

/** The chunks of one answer. */
export class Stream implements AsyncIterableIterator<Chunk> {
  private constructor();
  readonly result: Result | null;
  next(): Promise<IteratorResult<Chunk, undefined>>;
  return(value?: unknown): Promise<IteratorResult<Chunk, undefined>>;
  cancel(): void;
  [Symbol.asyncIterator](): this;
}

export interface Home {
  home?: string | URL;
}
export interface InstallOptions extends Home {
  /** Take an unsigned package; recorded as verified: false. */
  skipVerify?: boolean;
  /** Replace the same name and version with other content. */
  force?: boolean;
}
export interface InstalledExpert {
  name: string;
  version: string;
  baseModel: string;
  kinds: string[];
  sizeBytes: number;
  path: string;
  verified: boolean;
  publisher: string;
}
export interface InstalledModel {
  name: string;
  path: string;
  sizeBytes: number;
  default: boolean;
}

export const packages: {
  install(source: string | URL, options?: InstallOptions): Promise<InstalledExpert>;
  uninstall(name: string, options?: Home): Promise<void>;
  update(name: string, options?: InstallOptions): Promise<InstalledExpert>;
  list(options?: Home & { bundled?: boolean }): Promise<InstalledExpert[]>;
  info(nameOrPath: string | URL, options?: Home): Promise<JsonObject>;
  verify(nameOrPath: string | URL, options?: Home): Promise<JsonObject>;
  create(directory: string | URL, output: string | URL, options?: { manifest?: string }): Promise<JsonObject>;
  sign(file: string | URL, key: string | URL): Promise<void>;
};
export const models: {
  add(directory: string | URL, options?: Home & { name?: string }): Promise<InstalledModel>;
  remove(name: string, options?: Home): Promise<void>;
  setDefault(name: string, options?: Home): Promise<void>;
  list(options?: Home): Promise<InstalledModel[]>;
};
export const trust: {
  add(publicKey: string, name: string, options?: Home): Promise<void>;
  remove(name: string, options?: Home): Promise<void>;
  list(options?: Home): Promise<JsonObject[]>;
};
export function generateKey(output: string | URL, options?: { name?: string }): Promise<JsonObject>;

export interface BenchOptions extends Progress {
  model?: string;
  device?: string;
  weights?: string;
  kv?: string;
  home?: string;
  experts?: (number | string)[];
  promptTokens?: number[];
  decodeTokens?: number;
  repeat?: number;
  threads?: number;
}
export function bench(options?: BenchOptions): Promise<JsonObject>;

export type LogLevel = 'debug' | 'info' | 'warning' | 'error';
export function setLogCallback(callback: ((level: LogLevel, message: string) => void) | null, level?: LogLevel): void;
export const version: string;
export function libraryInfo(): JsonObject;
/** The directory of installed experts and models: $EXPERT_HOME, else ~/.expert. */
export function home(): string;

/** Every error carries a hint: what can be done about it, or "". */
export class ExpertError extends Error {
  readonly hint: string;
  readonly code: string;
}
export class LoadError extends ExpertError {}
export class ManifestError extends LoadError {}
export class SignatureError extends LoadError {}
export class IncompatibleError extends LoadError {}
export class UnsupportedError extends LoadError {}
export class InferenceError extends ExpertError {}
export class InvalidRequestError extends InferenceError {}
export class OutOfMemoryError extends InferenceError {}
export class GrammarError extends InferenceError {}
export class ClosedError extends InferenceError {}
export class TimeoutError extends InferenceError {}
export class CancelledError extends InferenceError {
  /** The answer until then. */
  readonly partial: Result | null;
}
