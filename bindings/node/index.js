'use strict';

// There is no Node binding yet. Failing here, by name, is better than an object whose methods fail later.
class NotBuiltError extends Error {
  constructor() {
    super('@hivellm/expert: the Node binding is not built yet; use expert-cli, the C header or the Python module');
    this.name = 'NotBuiltError';
    this.code = 'EXPERT_NOT_BUILT';
  }
}

throw new NotBuiltError();
