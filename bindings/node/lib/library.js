'use strict';

// What needs no engine: installed experts, registered models, keys, measuring, the log.

const native = require('./load.js');
const check = require('./check.js');
const { parse } = require('./results.js');
const { watchedCall } = require('./progress.js');

const SKIP_VERIFY = 1;
const FORCE = 2;
const LIST_BUNDLED = 1;

const homeOf = ({ home }) => (home === undefined || home === null ? null : check.path('home', home));
const optional = (name, value) => (value === undefined || value === null ? null : check.plainText(name, value));

function options(name, given, known) {
  check.onlyKeys(name, check.object('the options', given), [...known, 'home']);
  return given;
}

function installFlags({ skipVerify = false, force = false }) {
  return (check.boolean('skipVerify', skipVerify) ? SKIP_VERIFY : 0) | (check.boolean('force', force) ? FORCE : 0);
}

/** Installed experts. `home` in every options object: where they are, by default $EXPERT_HOME or ~/.expert. */
const packages = {
  async install(source, given = {}) {
    const flags = installFlags(options('install', given, ['skipVerify', 'force']));
    return parse(await native.packageInstall(homeOf(given), check.path('source', source), flags));
  },
  async uninstall(name, given = {}) {
    options('uninstall', given, []);
    await native.packageUninstall(homeOf(given), check.plainText('name', name));
  },
  async update(name, given = {}) {
    const flags = installFlags(options('update', given, ['skipVerify', 'force']));
    return parse(await native.packageUpdate(homeOf(given), check.plainText('name', name), flags));
  },
  async list(given = {}) {
    const { bundled = false } = options('list', given, ['bundled']);
    return parse(await native.packageList(homeOf(given), check.boolean('bundled', bundled) ? LIST_BUNDLED : 0));
  },
  async info(nameOrPath, given = {}) {
    options('info', given, []);
    return JSON.parse(await native.packageInfo(homeOf(given), check.path('name', nameOrPath))); // a manifest keeps its keys
  },
  async verify(nameOrPath, given = {}) {
    options('verify', given, []);
    return parse(await native.packageVerify(homeOf(given), check.path('name', nameOrPath)));
  },
  async create(directory, output, given = {}) {
    const { manifest } = options('create', given, ['manifest']);
    const from = check.path('directory', directory);
    return parse(await native.packageCreate(null, from, optional('manifest', manifest), check.path('output', output)));
  },
  async sign(file, key) {
    await native.packageSign(null, check.path('file', file), check.path('key', key));
  },
};

/** Registered base models. */
const models = {
  async add(directory, given = {}) {
    const { name } = options('add', given, ['name']);
    return parse(await native.modelAdd(homeOf(given), check.path('directory', directory), optional('name', name)));
  },
  async remove(name, given = {}) {
    options('remove', given, []);
    await native.modelRemove(homeOf(given), check.plainText('name', name));
  },
  async setDefault(name, given = {}) {
    options('setDefault', given, []);
    await native.modelSetDefault(homeOf(given), check.plainText('name', name));
  },
  async list(given = {}) {
    options('list', given, []);
    return parse(await native.modelList(homeOf(given)));
  },
};

/** Publishers whose signatures are believed. */
const trust = {
  async add(publicKey, name, given = {}) {
    options('add', given, []);
    await native.trustAdd(homeOf(given), check.plainText('publicKey', publicKey), check.plainText('name', name));
  },
  async remove(name, given = {}) {
    options('remove', given, []);
    await native.trustRemove(homeOf(given), check.plainText('name', name));
  },
  async list(given = {}) {
    options('list', given, []);
    return parse(await native.trustList(homeOf(given)));
  },
};

/** Makes a signing key: writes `output` and its public half beside it. */
async function generateKey(output, { name } = {}) {
  return parse(await native.keyGenerate(null, check.path('output', output), optional('name', name)));
}

const benchKeys = {
  model: 'model',
  device: 'device',
  weights: 'weights',
  kv: 'kv',
  home: 'home',
  experts: 'experts',
  promptTokens: 'prompt_tokens',
  decodeTokens: 'decode_tokens',
  repeat: 'repeat',
  threads: 'threads',
};

/** Measures this machine; minutes on a large model. */
async function bench(given = {}) {
  check.onlyKeys('bench', check.object('the options', given), [...Object.keys(benchKeys), 'onProgress', 'signal']);
  const named = {};
  for (const [name, spelled] of Object.entries(benchKeys)) if (given[name] !== undefined) named[spelled] = given[name];
  const document = check.json('the options', named);
  return JSON.parse(await watchedCall(given, (flag, progress) => native.bench(document, flag, progress)));
}

const levels = ['debug', 'info', 'warning', 'error'];
let logCallback = null;

/** `callback(level, message)` hears the library of this process, null silences it. One receiver per process. */
function setLogCallback(callback, level = 'info') {
  if (callback !== null && typeof callback !== 'function') throw new TypeError('the callback must be a function or null');
  const least = levels.indexOf(level);
  if (least < 0) throw new TypeError(`level must be one of ${levels.join(', ')}`);
  const id = callback === null ? 0 : native.keepCallback((number, message) => tell(callback, levels[number], message));
  native.setLogCallback(id, least);
  if (logCallback) native.dropCallback(logCallback);
  logCallback = id;
}

function tell(callback, level, message) {
  try {
    callback(level, message);
  } catch (error) {
    process.emitWarning(`a log callback threw: ${error}`, 'ExpertWarning');
  }
}

module.exports = {
  packages,
  models,
  trust,
  generateKey,
  bench,
  setLogCallback,
  version: native.version,
  libraryInfo: () => parse(native.libraryInfo()),
  home: () => native.home(),
};
