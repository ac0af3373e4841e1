// The same names for `import`.
import expert from './index.js';

export default expert;
export const {
  ExpertEngine,
  Expert,
  Handle,
  Stream,
  packages,
  models,
  trust,
  generateKey,
  bench,
  setLogCallback,
  version,
  libraryInfo,
  home,
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
} = expert;
