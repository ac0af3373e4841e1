/* libexpert: one small base language model stays resident, many experts (LoRA) bend it per request, never merged.
 *
 * UNSTABLE until 1.0: names and structs may still change between minor versions.
 *
 *   #include <expert/expert.h>
 *   #include <stdio.h>
 *
 *   int main(void) {
 *     expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;  // the default model, every processor
 *     expert_request request = EXPERT_REQUEST_INIT;
 *     expert_engine* engine = NULL;
 *     expert_result* result = NULL;
 *     request.prompt = "Find all users older than 25";
 *     request.schema = "users(id,name,age)";
 *     if (expert_engine_open(&options, &engine) || expert_infer(engine, &request, &result)) {
 *       fprintf(stderr, "%s\n", expert_last_error()->message);
 *     } else {
 *       puts(expert_result_output(result, NULL));
 *     }
 *     expert_result_free(result);
 *     expert_engine_free(engine);
 *   }
 *
 * Names      expert_<noun>_<verb>; types expert_<noun>; macros EXPERT_*.
 * Errors     A call that can fail returns expert_status, EXPERT_OK = 0. Otherwise expert_last_error() says what
 *            happened, where, and what can be done. The library never prints, exits, or throws across this boundary.
 * Outputs    Last parameters. Set when the call succeeds; NULL or 0 when it fails. A pointer to an output length
 *            (`out_length`, `out_count`) may be NULL, other output pointers may not.
 * Ownership  Handles from an `out` parameter are yours: free each with the _free function of its type. char* and
 *            int32_t* from an `out` parameter are yours: expert_free(). Whatever a getter returns is borrowed from the
 *            handle it was asked of, and lives as long as that handle. Every _free accepts NULL. Handles share what
 *            they need, so they may be freed in any order. Inputs are copied before the call returns.
 * Threads    Any function may be called from any thread, on one handle by several threads at once, as long as none of
 *            them frees it. After fork() the child may only free inherited handles; other calls on them fail.
 * Text       UTF-8. A `const char*` beside a length is that many bytes, NUL bytes included; a length of
 *            EXPERT_NUL_TERMINATED, the default, means up to the first NUL. Text we return ends with a NUL that its
 *            length does not count. JSON, where a structure is open-ended, travels as such text.
 * Comments   Every function is there since 0.1 unless its comment says since when. "Errors" names what a function
 *            can fail with beside INVALID_REQUEST (NULL, unknown flags, a struct_size that is none of ours), CLOSED (an
 *            engine that was closed, an expert that was unloaded, a handle in a child of fork()), OUT_OF_MEMORY and
 *            INTERNAL, which any call may meet. What is in no release yet is UNSUPPORTED, by name.
 * Units      Lengths and memory in bytes, times in milliseconds, token ids int32_t. A negative timeout waits for ever.
 * Options    Structs begin with struct_size and only grow at their end: a program built against an older header keeps
 *            working. Always start from the EXPERT_*_INIT macro. A number that was not chosen is EXPERT_UNSET_FLOAT
 *            (NaN), EXPERT_UNSET_INT, EXPERT_UNSET_SEED or EXPERT_UNSET_BYTES; a string that was not chosen is NULL. Undefined bits in
 *            `flags` are refused.
 */
#ifndef EXPERT_EXPERT_H
#define EXPERT_EXPERT_H

#include <expert/version.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#if defined(EXPERT_BUILDING_LIBRARY)
#define EXPERT_API __declspec(dllexport)
#elif defined(EXPERT_STATIC)
#define EXPERT_API
#else
#define EXPERT_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define EXPERT_API __attribute__((visibility("default")))
#else
#define EXPERT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define EXPERT_NUL_TERMINATED SIZE_MAX
#define EXPERT_UNSET_FLOAT NAN
#define EXPERT_UNSET_INT INT32_MIN
#define EXPERT_UNSET_SEED UINT64_MAX
#define EXPERT_UNSET_BYTES UINT64_MAX

/* ---- Errors, version, log ---------------------------------------------------------------------------------------- */

typedef enum expert_status {
  EXPERT_OK = 0,
  EXPERT_ERROR_INTERNAL = 1,        /* a defect of the library */
  EXPERT_ERROR_INVALID_REQUEST = 2, /* the arguments */
  EXPERT_ERROR_LOAD = 3,            /* a file that cannot be used: missing, truncated, malformed */
  EXPERT_ERROR_MANIFEST = 4,        /* a manifest.json that breaks its rules */
  EXPERT_ERROR_SIGNATURE = 5,       /* unsigned, unknown publisher, altered bytes */
  EXPERT_ERROR_INCOMPATIBLE = 6,    /* well formed, but not for this base model */
  EXPERT_ERROR_OUT_OF_MEMORY = 7,   /* a limit of ours or of the machine; also a full queue */
  EXPERT_ERROR_GRAMMAR = 8,
  EXPERT_ERROR_CANCELLED = 9,
  EXPERT_ERROR_UNSUPPORTED = 10, /* known by name, not built (yet) */
  EXPERT_ERROR_INFERENCE = 11,   /* a running request failed */
  EXPERT_ERROR_CLOSED = 12,      /* the engine was closed, the expert unloaded */
  EXPERT_ERROR_TIMEOUT = 13      /* the timeout of a wait passed; what was waited for goes on */
} expert_status;

typedef struct expert_error {
  expert_status status;
  const char* message; /* one line: what and where */
  const char* hint;    /* what can be done about it; "" when there is nothing to say */
} expert_error;

/* The last failure on the calling thread; never NULL; valid until the next failing call on this thread. Calls that
 * succeed leave it as it is. */
EXPERT_API const expert_error* expert_last_error(void);
/* Forgets it: the status is EXPERT_OK again. */
EXPERT_API void expert_clear_error(void);

/* "invalid_request"; "unknown" for a number that is none. Static. */
EXPERT_API const char* expert_status_name(expert_status status);
/* "0.1.0"; static. */
EXPERT_API const char* expert_version(void);
/* How this library was built: {version, compiler, build_type, bundled_model (a path or null)}. Errors: none
 * of its own. */
EXPERT_API expert_status expert_library_info(char** out_json);
/* The directory of installed experts and registered models where none is named: $EXPERT_HOME, else ~/.expert. It need
 * not exist. Errors: OUT_OF_MEMORY, LOAD when neither EXPERT_HOME nor HOME is set. */
EXPERT_API expert_status expert_home(char** out_path);

typedef enum expert_log_level {
  EXPERT_LOG_DEBUG = 0,
  EXPERT_LOG_INFO = 1,
  EXPERT_LOG_WARNING = 2,
  EXPERT_LOG_ERROR = 3
} expert_log_level;

/* Called from any thread; must not block and must not call the library. `message` lives for the call. */
typedef void (*expert_log_callback)(void* user_data, expert_log_level level, const char* message);

/* Replaces the receiver of the process; NULL silences the library, which is the default. Never fails. */
EXPERT_API void expert_set_log_callback(expert_log_callback callback, void* user_data, expert_log_level least);

/* Frees text and arrays that an `out` parameter gave. */
EXPERT_API void expert_free(void* memory);

/* ---- Engine ------------------------------------------------------------------------------------------------------ */

typedef struct expert_engine expert_engine; /* one resident base model and its loaded experts */
typedef struct expert_expert expert_expert; /* one loaded expert */
typedef struct expert_stream expert_stream; /* one running request */
typedef struct expert_chunk expert_chunk;   /* a piece of its answer */
typedef struct expert_result expert_result; /* the whole answer */

/* Called on the thread that called us, with 0 … 1. Returns 0 to go on; anything else ends the call with CANCELLED. */
typedef int (*expert_progress_callback)(void* user_data, double fraction);

#define EXPERT_ENGINE_NO_WEIGHT_CACHE UINT32_C(1) /* neither read nor write repacked weights under home */
/* No second, smaller copy of a large head. With it (on the CPU) a step that wants only the best token, or the best top_k
 * of up to 64, finds them without reading most of the head, and gets the same, but for a chance of about 10^-10 per
 * token: 4.2 bits of memory per weight of the head for a tenth to a quarter less time per token. */
#define EXPERT_ENGINE_NO_HEAD_SCREEN UINT32_C(2)

typedef struct expert_engine_options {
  size_t struct_size;
  const char* base_model;   /* a directory or a registered name; NULL: the configured default, else the bundled model */
  const char* device;       /* "auto" | "cpu" | "reference" | "cuda[:N]"; NULL or auto: $EXPERT_DEVICE, else CUDA
                               where its plug-in is installed and finds a device, else cpu */
  const char* weights;      /* "auto" | "f32" | "bf16" | "int8" | "int4" (embedding and head in INT8) | "int4-all";
                               NULL: auto = as the files hold them, bf16 for BF16 files, else f32 */
  const char* kv;           /* "auto" | "f32" | "bf16" | "int8"; NULL: auto = f32 over f32 weights, else bf16 */
  const char* rope_scaling; /* JSON as in config.json; NULL: the configuration's own */
  const char* home;         /* NULL: $EXPERT_HOME, else ~/.expert */
  int64_t context_size;     /* tokens; 0: the model's own. More than that needs rope_scaling */
  uint64_t memory_limit;    /* for weights, experts and KV together; 0: none */
  int32_t threads;          /* 0: every processor this process may use */
  int32_t max_queue;        /* requests that wait or run; one more is refused. Default 256 */
  int32_t max_batch;        /* requests that run at once. Default 16 */
  uint32_t flags;           /* EXPERT_ENGINE_* */
  expert_progress_callback progress;
  void* progress_user_data;
  int32_t max_experts; /* of one request; one more is refused. 0: 10 */
  uint64_t prefix_cache_bytes; /* of the KV cache, for prefixes that no request uses now; 0: none is kept. Default
                                  EXPERT_UNSET_BYTES: whatever the KV cache has free */
  uint64_t expert_cache_bytes; /* of host memory, for experts that requests name and nobody loaded by hand: beyond it
                                  those used longest ago go. 0: a quarter of the free memory, 256 MiB at least */
} expert_engine_options;

#define EXPERT_ENGINE_OPTIONS_INIT \
  { sizeof(expert_engine_options), NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 256, 16, 0, NULL, NULL, 0, EXPERT_UNSET_BYTES, 0 }

/* Loads the base model; NULL options are the defaults. Errors: LOAD, INCOMPATIBLE, UNSUPPORTED, OUT_OF_MEMORY;
 * CANCELLED when `progress` ended it. Takes seconds for a large model; not to be called in a callback. */
EXPERT_API expert_status expert_engine_open(const expert_engine_options* options, expert_engine** out);

#define EXPERT_CLOSE_DRAIN UINT32_C(1) /* let running requests finish; without it they end as cancelled */

/* Later calls on the engine fail with CLOSED; closing twice is harmless. Errors: none of its own. */
EXPERT_API expert_status expert_engine_close(expert_engine* engine, uint32_t flags);
/* 1 from expert_engine_close() on, also for NULL and in a child of fork(); else 0. Never fails. */
EXPERT_API int expert_engine_closed(const expert_engine* engine);
/* Closes, and gives the handle back. Waits until the step that runs has ended. Close or free every engine before exit(), which
 * destroys what its threads use. */
EXPERT_API void expert_engine_free(expert_engine* engine);

/* {model, architecture, fingerprint, weights, kv, device, isa, threads, context_size, warnings, …} Errors: none of
 * its own. */
EXPERT_API expert_status expert_engine_info(const expert_engine* engine, char** out_json);
/* {requests, tokens, steps, schedule, kv, prefix_cache, memory, experts (also their counters and bytes per tier: device,
 * host, disk), histograms: {queue_ms: {count, mean, p50, p90, p99, max}, …}, bytes_per_token: weights that a
 * token alone in its step reads, head_screen: {bytes, calls, read_bytes, whole, bytes_per_token: the same where the copy
 * of the head was used, as measured so far} or null, …} Errors: none of its own. */
EXPERT_API expert_status expert_engine_stats(const expert_engine* engine, char** out_json);
/* The same counters and histograms in Prometheus' text format. Errors: none of its own. */
EXPERT_API expert_status expert_engine_metrics(const expert_engine* engine, char** out_text);
/* [{name, version, kinds, size_bytes, warnings}], the loaded experts. Errors: none of its own. */
EXPERT_API expert_status expert_engine_experts(const expert_engine* engine, char** out_json);
/* Columns of the logits: the configuration's vocab_size. Known after close, too. Errors: none of its own. */
EXPERT_API expert_status expert_engine_vocab_size(const expert_engine* engine, int32_t* out);
/* Floats of an embedding. Known after close, too. Errors: none of its own. */
EXPERT_API expert_status expert_engine_hidden_size(const expert_engine* engine, int32_t* out);
/* Tokens that a prompt and its answer may have together. Errors: none of its own. */
EXPERT_API expert_status expert_engine_context_size(const expert_engine* engine, int32_t* out);

/* ---- Experts ----------------------------------------------------------------------------------------------------- */

/* `source`: a .expert file, a PEFT or package directory, or the name of an installed or bundled expert ("sql",
 * "expert-sql@0.3.0"). The handle means the bytes that were loaded, also when the file changes. Another expert of the
 * same name may be loaded beside it; by name the latest wins. Errors: LOAD, MANIFEST, SIGNATURE, INCOMPATIBLE,
 * UNSUPPORTED (a kind that is not built). */
EXPERT_API expert_status expert_load(expert_engine* engine, const char* source, expert_expert** out);
/* Requests that run keep it, later uses fail with CLOSED; unloading twice is harmless. Freeing the handle does not
 * unload. Errors: INVALID_REQUEST for an expert of another engine. */
EXPERT_API expert_status expert_unload(expert_engine* engine, expert_expert* expert);
/* Another handle of the loaded expert that requests mean by `name` ("sql" or "expert-sql"): of several the latest.
 * Errors: INVALID_REQUEST when none of that name is loaded, CLOSED. */
EXPERT_API expert_status expert_engine_find(const expert_engine* engine, const char* name, expert_expert** out);
/* 1 from expert_unload() on, also for NULL; else 0. Never fails. */
EXPERT_API int expert_expert_unloaded(const expert_expert* expert);
/* Gives the handle back; the expert stays loaded. */
EXPERT_API void expert_expert_free(expert_expert* expert);

/* "expert-sql"; of a directory without a manifest its last segment. "" for NULL. */
EXPERT_API const char* expert_expert_name(const expert_expert* expert);
/* "0.0.0" without a manifest. "" for NULL. */
EXPERT_API const char* expert_expert_version(const expert_expert* expert);
/* JSON array: ["lora"]. "[]" for NULL. */
EXPERT_API const char* expert_expert_kinds(const expert_expert* expert);
/* JSON object; "null" without one. */
EXPERT_API const char* expert_expert_manifest(const expert_expert* expert);
/* JSON array of strings, such as a match with the base that nothing proves. */
EXPERT_API const char* expert_expert_warnings(const expert_expert* expert);
/* Bytes that it takes in memory; 0 for NULL. */
EXPERT_API uint64_t expert_expert_size_bytes(const expert_expert* expert);

/* ---- Requests ---------------------------------------------------------------------------------------------------- */

/* One expert of a composition. An array element, so this struct is frozen. */
typedef struct expert_use {
  const expert_expert* expert; /* a handle, or NULL and */
  const char* name;            /* a name or a path as for expert_load() */
  float weight;                /* any finite number, usually 1; at 0 the expert is left out */
} expert_use;

#define EXPERT_REQUEST_BASE_ONLY UINT32_C(1)  /* no experts; without it an empty `experts` lets the router choose */
#define EXPERT_REQUEST_RAW UINT32_C(2)        /* no chat template; what the tokenizer adds (BOS) is added */
#define EXPERT_REQUEST_PLAIN_TEXT UINT32_C(4) /* special tokens spelled in the caller's text are ordinary text */
#define EXPERT_REQUEST_IGNORE_EOS UINT32_C(8) /* end tokens do not end the answer */
#define EXPERT_REQUEST_TRACE UINT32_C(16)     /* the result's JSON tells what happened to it, step by step: trace */
/* For expert_submit() alone: it gives EXPERT_OK and no stream, and nothing has happened, where files of an expert had to
 * be read first. A thread that must not wait then has another one submit, without this flag. */
#define EXPERT_REQUEST_IF_QUICK UINT32_C(32)

/* What is unset comes from the expert's manifest, then generation_config.json, then the value named here. With several
 * experts the one of the largest |weight| decides, and the stop strings of all count. */
typedef struct expert_request {
  size_t struct_size;
  const char* prompt; /* one user message through the chat template */
  size_t prompt_length;
  const char* messages;           /* instead of prompt, JSON: [{"role": "user", "content": "…"}, …] */
  const char* tools;              /* JSON array for the chat template */
  const char* template_variables; /* JSON object for the chat template: {"enable_thinking": false} */
  const char* schema;             /* placed by the expert's manifest; by default a system message "Schema:" + text */
  size_t schema_length;
  const char* body; /* after the prompt, after a blank line */
  size_t body_length;
  const expert_use* experts; /* exactly these; none: see EXPERT_REQUEST_BASE_ONLY */
  size_t expert_count;
  uint32_t flags; /* EXPERT_REQUEST_* */

  float temperature;        /* >= 0, 0: greedy. 0.7 */
  float top_p;              /* (0, 1]. 1 */
  float min_p;              /* [0, 1). 0 */
  float repetition_penalty; /* > 0, over prompt and output. 1 */
  float presence_penalty;   /* over the output. 0 */
  float frequency_penalty;  /* over the output. 0 */
  int32_t top_k;            /* >= 0, 0: off; keeps ties. 0 */
  int32_t max_tokens;       /* >= 1. 512 */
  int32_t logprobs;         /* report the chosen token and this many best ones; 0: off */
  uint64_t seed;            /* EXPERT_UNSET_SEED: random */
  const char* const* stop;  /* the answer ends before the first of these */
  size_t stop_count;
  const int32_t* logit_bias_tokens;
  const float* logit_bias_values; /* added to the logits of logit_bias_tokens */
  size_t logit_bias_count;

  int32_t priority;       /* 0: normal, higher first */
  double deadline_ms;     /* from submit; then the request ends with what it has and TIMEOUT; 0: none */
  const char* caller;     /* callers share the machine fairly */
  const char* cache_salt; /* what another salt computed is never reused: separates tenants in the prefix cache */
} expert_request;

#define EXPERT_REQUEST_INIT                                                                                   \
  {                                                                                                           \
    sizeof(expert_request), NULL, EXPERT_NUL_TERMINATED, NULL, NULL, NULL, NULL, EXPERT_NUL_TERMINATED, NULL, \
        EXPERT_NUL_TERMINATED, NULL, 0, 0, EXPERT_UNSET_FLOAT, EXPERT_UNSET_FLOAT, EXPERT_UNSET_FLOAT,        \
        EXPERT_UNSET_FLOAT, EXPERT_UNSET_FLOAT, EXPERT_UNSET_FLOAT, EXPERT_UNSET_INT, EXPERT_UNSET_INT, 0,    \
        EXPERT_UNSET_SEED, NULL, 0, NULL, NULL, 0, 0, 0.0, NULL, NULL                                         \
  }

/* Submits and waits for the end. Errors: those of expert_submit() and of a request that fails (INFERENCE). A request
 * that was cancelled by closing the engine succeeds with EXPERT_FINISH_CANCELLED. */
EXPERT_API expert_status expert_infer(expert_engine* engine, const expert_request* request, expert_result** out);
/* Submits all of `requests` and waits for the end of all; they run together as far as max_batch allows, and wait for
 * one another where the queue is full. `out` has room for `count` results and gets NULL for each request that failed;
 * `out_statuses`, of `count` too, may be NULL. Gives the status of the first one that failed, with its last error.
 * Errors: those of expert_infer(). */
EXPERT_API expert_status expert_infer_batch(expert_engine* engine, const expert_request* const* requests, size_t count,
                                            expert_result** out, expert_status* out_statuses);
/* Checks the request and returns at once. INVALID_REQUEST for bad parameters, an unknown expert, an empty prompt or
 * one that does not fit the context; OUT_OF_MEMORY when the queue is full. LOAD and INCOMPATIBLE for an expert named
 * by path. With EXPERT_REQUEST_IF_QUICK *out may be NULL. */
EXPERT_API expert_status expert_submit(expert_engine* engine, const expert_request* request, expert_stream** out);

/* The next piece of the answer, or EXPERT_OK and NULL when the stream has ended. TIMEOUT when nothing came in time. A
 * request that failed gives its error once in place of its last chunk. Errors: TIMEOUT; INFERENCE and what else a
 * request fails with. */
EXPERT_API expert_status expert_stream_next(expert_stream* stream, int64_t timeout_ms, expert_chunk** out);
/* Waits for the end and gives the whole answer, as often as asked. A cancelled request succeeds here, with what it
 * had and EXPERT_FINISH_CANCELLED. Errors: TIMEOUT; INFERENCE and what else a request fails with. */
EXPERT_API expert_status expert_stream_wait(expert_stream* stream, int64_t timeout_ms, expert_result** out);
/* 1 when the request has ended, else 0, without waiting. NULL is done. Never fails. */
EXPERT_API int expert_stream_done(const expert_stream* stream);
/* The request ends soon, with what it has; again or too late is harmless. Safe in a thread beside a waiting one, but
 * not in a signal handler. */
EXPERT_API void expert_cancel(expert_stream* stream);

/* What a listener is told: a chunk (the last one has a result), or the error of a request that failed. Both live for
 * the call. When both are NULL it is the last call: nothing will use `user_data` any more. Returns 0 to go on; anything
 * else, and a C++ exception, cancels the request. */
typedef int (*expert_listen_callback)(void* user_data, const expert_chunk* chunk, const expert_error* error);
#define EXPERT_LISTEN_RESULT_ONLY UINT32_C(1) /* no pieces: one chunk without text that has the result */

/* Gives the stream to `callback`, which a thread of the library (never the engine's) calls until the end; it may block
 * and may call the library. A stream has one reader: expert_stream_next() gives nothing from now on, and the handle may
 * be freed, which cancels. Errors: INVALID_REQUEST when `callback` is NULL, the stream has ended or has a listener;
 * OUT_OF_MEMORY when no thread can be had. */
EXPERT_API expert_status expert_stream_listen(expert_stream* stream, uint32_t flags, expert_listen_callback callback,
                                              void* user_data);
/* For event loops (epoll, libuv): adds 1 to `event_fd` when the request ends, at once when it has; then
 * expert_stream_wait() with timeout 0 gives the answer. No thread stands in between, so this is the quickest way to hear
 * of it. An eventfd made with EFD_NONBLOCK, of which a copy is kept until then; a second one replaces the first. Beside
 * every other way to read the stream. Errors: INVALID_REQUEST for another descriptor; OUT_OF_MEMORY when none can be
 * had; UNSUPPORTED where there are no eventfds. */
EXPERT_API expert_status expert_stream_signal_end(expert_stream* stream, int event_fd);
/* Cancels a request that still runs. */
EXPERT_API void expert_stream_free(expert_stream* stream);

/* Whole characters; may be "". Lives as long as the chunk. */
EXPERT_API const char* expert_chunk_text(const expert_chunk* chunk, size_t* out_length);
/* The ids of this piece; a token whose characters wait for more stands in the chunk that gives them. */
EXPERT_API const int32_t* expert_chunk_tokens(const expert_chunk* chunk, size_t* out_count);
/* The whole answer on the last chunk, else NULL. Lives as long as the chunk; not to be freed. */
EXPERT_API const expert_result* expert_chunk_result(const expert_chunk* chunk);
/* Gives the chunk and its result back. */
EXPERT_API void expert_chunk_free(expert_chunk* chunk);

/* ---- Results ----------------------------------------------------------------------------------------------------- */

typedef enum expert_finish_reason {
  EXPERT_FINISH_STOP = 0,      /* an end token or a stop string */
  EXPERT_FINISH_LENGTH = 1,    /* max_tokens or the end of the context */
  EXPERT_FINISH_TIMEOUT = 2,   /* deadline_ms */
  EXPERT_FINISH_CANCELLED = 3, /* expert_cancel(), or the engine was closed */
  EXPERT_FINISH_ERROR = 4
} expert_finish_reason;

typedef struct expert_usage {
  size_t struct_size; /* set it before the call; EXPERT_USAGE_INIT does */
  int32_t prompt_tokens;
  int32_t completion_tokens;
  int32_t total_tokens;
  int32_t prompt_virtual_tokens; /* rows of soft prompts */
  int32_t cached_tokens;         /* of the prompt, not computed again */
} expert_usage;
#define EXPERT_USAGE_INIT \
  { sizeof(expert_usage), 0, 0, 0, 0, 0 }

typedef struct expert_timings {
  size_t struct_size; /* set it before the call; EXPERT_TIMINGS_INIT does */
  double queue_ms;
  double prefill_ms;
  double first_token_ms; /* from submit */
  double decode_ms;
  double total_ms;
  double tokens_per_second; /* of the decode */
} expert_timings;
#define EXPERT_TIMINGS_INIT \
  { sizeof(expert_timings), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0 }

/* What was generated, special tokens left out, up to a stop string. */
EXPERT_API const char* expert_result_text(const expert_result* result, size_t* out_length);
/* `text` without a leading think block and outer blank space. */
EXPERT_API const char* expert_result_output(const expert_result* result, size_t* out_length);
/* The generated ids, those of a cut stop string included, without the end token. */
EXPERT_API const int32_t* expert_result_tokens(const expert_result* result, size_t* out_count);
/* Why the answer ended; EXPERT_FINISH_ERROR for NULL. */
EXPERT_API expert_finish_reason expert_result_finish_reason(const expert_result* result);
/* "stop", "length", "timeout", "cancelled", "error"; "unknown" for a number that is none. Static. */
EXPERT_API const char* expert_finish_reason_name(expert_finish_reason reason);
/* Experts that were used, chosen ones included; 0: the base alone. */
EXPERT_API size_t expert_result_expert_count(const expert_result* result);
/* The expert that was used at `index`; each out pointer may be NULL. Errors: INVALID_REQUEST when there are fewer. */
EXPERT_API expert_status expert_result_expert(const expert_result* result, size_t index, const char** out_name,
                                              const char** out_version, float* out_weight);
/* Counts tokens; writes the fields that out->struct_size says are there. Errors: none of its own. */
EXPERT_API expert_status expert_result_usage(const expert_result* result, expert_usage* out);
/* Milliseconds; writes the fields that out->struct_size says are there. Errors: none of its own. */
EXPERT_API expert_status expert_result_timings(const expert_result* result, expert_timings* out);
/* Positions with log-probabilities; 0 unless the request asked for them. */
EXPERT_API size_t expert_result_logprob_count(const expert_result* result);
/* The natural logarithm of a probability at `position`: of the chosen token for `rank` 0, of the rank-th best for 1 …
 * what the request asked for. Out pointers may be NULL. Errors: INVALID_REQUEST when there is none such. */
EXPERT_API expert_status expert_result_logprob(const expert_result* result, size_t position, size_t rank,
                                               int32_t* out_token, float* out_logprob);
/* JSON: the routing decision and the parameters that were in force. Made when first asked for; "null" when there is no
 * memory for it. */
EXPERT_API const char* expert_result_plan(const expert_result* result);
/* JSON: {text, output, tokens, experts_used, finish_reason, usage, timings, plan, logprobs and trace (when asked for)}.
 * Made when first asked for; "null" when there is no memory for it. */
EXPERT_API const char* expert_result_json(const expert_result* result);
/* Gives the result back; views of it end. */
EXPERT_API void expert_result_free(expert_result* result);

/* ---- Text, evaluation, routing ----------------------------------------------------------------------------------- */

#define EXPERT_TOKENIZE_ADD_SPECIAL UINT32_C(1) /* add what the tokenizer's post-processor adds (BOS) */
#define EXPERT_TOKENIZE_PLAIN_TEXT UINT32_C(2)  /* special tokens spelled in the text are ordinary text */
/* Token ids of `text`, in *out_ids. No special tokens are added unless asked for. Errors: none of its own. */
EXPERT_API expert_status expert_tokenize(const expert_engine* engine, const char* text, size_t length, uint32_t flags,
                                         int32_t** out_ids, size_t* out_count);

#define EXPERT_DETOKENIZE_SKIP_SPECIAL UINT32_C(1)
/* Text of `ids`, in *out_text. Bytes that are not UTF-8 become U+FFFD. Errors: INVALID_REQUEST for an id that the
 * vocabulary has not. */
EXPERT_API expert_status expert_detokenize(const expert_engine* engine, const int32_t* ids, size_t count,
                                           uint32_t flags, char** out_text, size_t* out_length);

#define EXPERT_TEMPLATE_NO_GENERATION_PROMPT UINT32_C(1) /* do not open the assistant's turn */
/* `tools` and `variables` may be NULL; all three are JSON as in expert_request. Errors: INVALID_REQUEST for JSON that
 * is none, a model without a template, or what the template itself refuses. */
EXPERT_API expert_status expert_apply_chat_template(const expert_engine* engine, const char* messages,
                                                    const char* tools, const char* variables, uint32_t flags,
                                                    char** out_text, size_t* out_length);

/* Logits after each of `ids`, float [count, vocab_size] row-major, into the caller's `out` of `capacity` floats. With
 * no experts: the base. Runs beside other requests. Errors: INVALID_REQUEST for no ids, ids outside the vocabulary,
 * more than the context, an unknown expert or too small a capacity. */
EXPERT_API expert_status expert_logits(expert_engine* engine, const int32_t* ids, size_t count,
                                       const expert_use* experts, size_t expert_count, float* out, size_t capacity);

#define EXPERT_EMBED_NO_NORMALIZE UINT32_C(1)
/* The final normalised states of `text`, pooled ("last" | "mean"; NULL: last) to float [hidden_size] in the caller's
 * `out` of `capacity` floats; of length 1 unless EXPERT_EMBED_NO_NORMALIZE. Errors: as expert_logits(), and for
 * another pooling. */
EXPERT_API expert_status expert_embed(expert_engine* engine, const char* text, size_t length, const char* pooling,
                                      const expert_use* experts, size_t expert_count, uint32_t flags, float* out,
                                      size_t capacity);

/* What the router would do with this request: {experts: [{name, weight, score, reason}], parameters, confidence,
 * explanation}. Runs nothing. Errors: as expert_submit(). */
EXPERT_API expert_status expert_route(const expert_engine* engine, const expert_request* request, char** out_json);

/* ---- Installed experts and base models (no engine needed) -------------------------------------------------------- */
/* `home` NULL: $EXPERT_HOME, else ~/.expert. Safe beside other threads and processes. */

#define EXPERT_INSTALL_SKIP_VERIFY UINT32_C(1) /* take an unsigned package; recorded as "verified": false */
#define EXPERT_INSTALL_FORCE UINT32_C(2)       /* replace the same name and version with other content */
/* `source`: a .expert file or a directory. out_json: {name, version, base_model, kinds, size_bytes, path, verified,
 * publisher}. SIGNATURE for an unsigned package. Errors: LOAD, MANIFEST, SIGNATURE, INCOMPATIBLE. */
EXPERT_API expert_status expert_package_install(const char* home, const char* source, uint32_t flags, char** out_json);
/* `name`: "sql", "expert-sql" (every version) or "sql@0.3.0". Errors: INVALID_REQUEST when it is not installed. */
EXPERT_API expert_status expert_package_uninstall(const char* home, const char* name);
#define EXPERT_LIST_BUNDLED UINT32_C(1) /* also the experts that come with the library; they need no installing */
/* [{name, version, base_model, kinds, size_bytes, path, verified, publisher}] Errors: LOAD for a store that cannot be
 * read. */
EXPERT_API expert_status expert_package_list(const char* home, uint32_t flags, char** out_json);
/* `name_or_path`: an installed or bundled expert, a .expert file or a directory. The manifest, the fields of the list,
 * and adapter_config: the method, its rank and modules. Errors: LOAD, MANIFEST; INVALID_REQUEST when there is none such. */
EXPERT_API expert_status expert_package_info(const char* home, const char* name_or_path, char** out_json);

/* Not built yet, UNSUPPORTED by name: checks signature and content of an installed expert or a file. */
EXPERT_API expert_status expert_package_verify(const char* home, const char* name_or_path, char** out_json);
/* Not built yet, UNSUPPORTED by name: installs the newest version from where `name` came. */
EXPERT_API expert_status expert_package_update(const char* home, const char* name, uint32_t flags, char** out_json);
/* Not built yet, UNSUPPORTED by name: makes the .expert file `output` of a directory; `manifest` NULL: the one in it.
 */
EXPERT_API expert_status expert_package_create(const char* directory, const char* manifest, const char* output,
                                               char** out_json);
/* Not built yet, UNSUPPORTED by name: signs a .expert file in place with the secret key in the file `key`. */
EXPERT_API expert_status expert_package_sign(const char* file, const char* key);
/* Not built yet, UNSUPPORTED by name: writes a new secret key to `output` and its public half beside it. */
EXPERT_API expert_status expert_key_generate(const char* output, const char* name, char** out_json);
/* Not built yet, UNSUPPORTED by name: believes signatures of `public_key` ("ed25519:" and 64 hexadecimal digits). */
EXPERT_API expert_status expert_trust_add(const char* home, const char* public_key, const char* name);
/* Not built yet, UNSUPPORTED by name: believes that publisher no longer. */
EXPERT_API expert_status expert_trust_remove(const char* home, const char* name);
/* Not built yet, UNSUPPORTED by name: [{name, public_key}]. */
EXPERT_API expert_status expert_trust_list(const char* home, char** out_json);

/* Registers a Hugging Face directory; `name` NULL: its last segment. The first one becomes the default. out_json:
 * {name, path, size_bytes, default} Errors: LOAD for what is no model. */
EXPERT_API expert_status expert_model_add(const char* home, const char* directory, const char* name, char** out_json);
/* Forgets it; the directory stays. Errors: INVALID_REQUEST when there is none such. */
EXPERT_API expert_status expert_model_remove(const char* home, const char* name);
/* The model that an engine opens where none is named. Errors: INVALID_REQUEST when there is none such. */
EXPERT_API expert_status expert_model_set_default(const char* home, const char* name);
/* [{name, path, size_bytes, default}] Errors: LOAD for a store that cannot be read. */
EXPERT_API expert_status expert_model_list(const char* home, char** out_json);

/* ---- Measuring --------------------------------------------------------------------------------------------------- */

/* options: {"model", "device", "weights", "kv", "home": text; "experts": [0, 1, 3, 10] numbers of random experts (r =
 * 16 on every linear layer) or names of real ones; "prompt_tokens": [128, 512], "decode_tokens": 64, "repeat": 3,
 * "threads": 0}, each optional.
 * out_json: {model, weights, isa, threads, bandwidth_gb_s (the best read test), rows: [{experts,
 * prefill_tokens_per_second: {"128": …}, decode_tokens_per_second, decode_time_over_base, bytes_per_token, bandwidth_gb_s
 * and share_of_bandwidth: beside the read tests right before and after each repetition}], swap_ms: {experts, seen: {p50,
 * p99}, new: {p50, p99}} forming a set of loaded experts, load_expert: {bytes, hashed_ms: {p50, p99}, recognised_ms:
 * {p50, p99}} from files in the page cache to an expert in use (null for real experts), load_ms, peak_memory_bytes}.
 * With "requests": N (and "experts_per_request": 1, "rank": 16) N requests are drawn at once, and out_json is {model, …,
 * base: {tokens_per_second, wall_ms, queue_ms: {p50, p90, p99}, first_token_ms, token_ms, total_ms}, with_experts: {the
 * same}, share_of_base}. Takes minutes on a large model; `progress` may be NULL. Errors: those of expert_engine_open();
 * CANCELLED when `progress` ended it. */
EXPERT_API expert_status expert_bench(const char* options, expert_progress_callback progress, void* user_data,
                                      char** out_json);

#ifdef __cplusplus
}
#endif

#endif
