'use strict';

// What needs no engine, and how the package is loaded.
const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { test } = require('node:test');
const { expert, baseModel, packageDir, sqlDirectory } = require('./common.js');

const scratch = () => fs.mkdtempSync(path.join(os.tmpdir(), 'expert-node-'));

test('experts are installed, listed and removed', async () => {
  const home = scratch();
  await assert.rejects(expert.packages.install(sqlDirectory, { home }), expert.SignatureError);
  const installed = await expert.packages.install(sqlDirectory, { home, skipVerify: true });
  assert.deepEqual([installed.name, installed.verified], ['expert-sql', false]);
  assert.deepEqual((await expert.packages.list({ home })).map(({ name }) => name), ['expert-sql']);
  assert.ok((await expert.packages.list({ home, bundled: true })).length > 1);
  assert.equal((await expert.packages.info('sql', { home })).name, 'expert-sql');
  await expert.packages.uninstall('sql', { home });
  assert.deepEqual(await expert.packages.list({ home }), []);
  fs.rmSync(home, { recursive: true });
});

test('models are registered and forgotten', async () => {
  const home = scratch();
  assert.equal((await expert.models.add(baseModel, { home, name: 'mine' })).default, true);
  await expert.models.add(baseModel, { home, name: 'other' });
  await expert.models.setDefault('other', { home });
  const list = await expert.models.list({ home });
  assert.deepEqual(list.filter((model) => model.default).map(({ name }) => name), ['other']);
  await expert.models.remove('mine', { home });
  assert.equal((await expert.models.list({ home })).length, 1);
  fs.rmSync(home, { recursive: true });
});

test('the log is heard, and callbacks that throw harm nobody', async () => {
  const heard = [];
  expert.setLogCallback((level, message) => heard.push([level, message]), 'debug');
  assert.throws(() => expert.setLogCallback(5), TypeError);
  assert.throws(() => expert.setLogCallback(null, 'loud'), TypeError);
  expert.setLogCallback(() => {
    throw new Error('from the log');
  });
  expert.setLogCallback(null);
});

test('bench refuses what it does not know', async () => {
  await assert.rejects(expert.bench({ repeat: 0 }), expert.InvalidRequestError);
  await assert.rejects(expert.bench({ nothing: 1 }), TypeError);
});

test('import gives the same names as require', async () => {
  const module = await import(path.join(packageDir, 'index.mjs'));
  assert.deepEqual(Object.keys(module).filter((name) => name !== 'default').sort(), Object.keys(expert).sort());
  assert.equal(module.ExpertEngine, expert.ExpertEngine);
});

test('the process ends by itself, and with an answer still running', () => {
  const program = `
    const { ExpertEngine } = require(${JSON.stringify(packageDir)});
    const engine = new ExpertEngine({ baseModel: ${JSON.stringify(baseModel)}, threads: 1 });
    engine.infer({ prompt: 'Hello', experts: [], maxTokens: 2 }).then(() => {
      console.log('answered');
      if (process.argv[1] === 'now') { engine.submit({ prompt: 'x', maxTokens: 900, ignoreEos: true }); process.exit(0); }
    });`;
  // Often, because what exit() destroys while a thread uses it is seldom hit: one time in twenty, before.
  for (const how of ['', ...Array(40).fill('now')]) {
    const home = scratch();
    const output = execFileSync(process.execPath, ['-e', program, how], {
      env: { ...process.env, EXPERT_HOME: home },
      timeout: 60_000,
      encoding: 'utf8',
    });
    assert.equal(output, 'answered\n');
    fs.rmSync(home, { recursive: true });
  }
});
