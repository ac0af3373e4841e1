'use strict';

// What can go wrong. Every error carries `hint` (what can be done about it, or '') and `code` ('EXPERT_LOAD', …).

class ExpertError extends Error {
  constructor(message, hint = '', options = undefined) {
    super(hint ? `${message} (${hint})` : message, options);
    this.hint = hint;
    this.code = 'EXPERT_INTERNAL';
  }
  get name() {
    return this.constructor.name;
  }
}

function kind(name, code, Parent) {
  const Kind = {
    [name]: class extends Parent {
      constructor(...given) {
        super(...given);
        this.code = code;
      }
    },
  }[name];
  return Kind;
}

const LoadError = kind('LoadError', 'EXPERT_LOAD', ExpertError);
const ManifestError = kind('ManifestError', 'EXPERT_MANIFEST', LoadError);
const SignatureError = kind('SignatureError', 'EXPERT_SIGNATURE', LoadError);
const IncompatibleError = kind('IncompatibleError', 'EXPERT_INCOMPATIBLE', LoadError);
const UnsupportedError = kind('UnsupportedError', 'EXPERT_UNSUPPORTED', LoadError);
const InferenceError = kind('InferenceError', 'EXPERT_INFERENCE', ExpertError);
const InvalidRequestError = kind('InvalidRequestError', 'EXPERT_INVALID_REQUEST', InferenceError);
const OutOfMemoryError = kind('OutOfMemoryError', 'EXPERT_OUT_OF_MEMORY', InferenceError);
const GrammarError = kind('GrammarError', 'EXPERT_GRAMMAR', InferenceError);
const ClosedError = kind('ClosedError', 'EXPERT_CLOSED', InferenceError);
const TimeoutError = kind('TimeoutError', 'EXPERT_TIMEOUT', InferenceError);

// `partial` holds the answer until then; `cause` is the reason of the AbortSignal that cancelled it.
class CancelledError extends InferenceError {
  constructor(message, hint = '', { partial = null, cause = undefined } = {}) {
    super(message, hint, cause === undefined ? undefined : { cause });
    this.code = 'EXPERT_CANCELLED';
    this.partial = partial;
  }
}

const byStatus = {
  invalid_request: InvalidRequestError,
  load: LoadError,
  manifest: ManifestError,
  signature: SignatureError,
  incompatible: IncompatibleError,
  out_of_memory: OutOfMemoryError,
  grammar: GrammarError,
  cancelled: CancelledError,
  unsupported: UnsupportedError,
  inference: InferenceError,
  closed: ClosedError,
  timeout: TimeoutError,
};

function fromStatus(status, message, hint) {
  return new (byStatus[status] ?? ExpertError)(message, hint);
}

module.exports = {
  fromStatus,
  classes: {
    ExpertError,
    LoadError,
    ManifestError,
    SignatureError,
    IncompatibleError,
    UnsupportedError,
    InferenceError,
    InvalidRequestError,
    OutOfMemoryError,
    GrammarError,
    ClosedError,
    TimeoutError,
    CancelledError,
  },
};
