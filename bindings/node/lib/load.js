'use strict';

const { isMainThread } = require('node:worker_threads');

// Finds the compiled part: EXPERT_NODE_ADDON, else the platform's package, which npm installed beside this one.

function isMusl() {
  return !process.report.getReport().header.glibcVersionRuntime;
}

function platformPackage() {
  const libc = process.platform === 'linux' ? (isMusl() ? '-musl' : '-gnu') : '';
  return `@hivellm/expert-${process.platform}-${process.arch}${libc}`;
}

function load() {
  if (process.env.EXPERT_NODE_ADDON) return require(process.env.EXPERT_NODE_ADDON);
  const name = platformPackage();
  try {
    return require(name);
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error;
    const missing = new Error(
      `@hivellm/expert: no compiled part for this machine (${name} is not installed)\n` +
        '  hint: install without --omit=optional, or build it: cmake --preset release -DEXPERT_NODE=ON',
    );
    missing.code = 'EXPERT_NOT_BUILT';
    throw missing;
  }
}

const native = load();

// Not in workers: what belongs to them ends with them. Once, however often this file is loaded.
const listening = Symbol.for('@hivellm/expert: listens for exit');
if (isMainThread && !process[listening]) {
  Object.defineProperty(process, listening, { value: true });
  process.on('exit', () => native.endProcess());
}

module.exports = native;
