'use strict';

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

module.exports = load();
