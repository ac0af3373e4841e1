'use strict';

// Where the built package is, one home for the whole run, and what the tests ask.
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const root = path.resolve(__dirname, '../../..');
const build = process.env.EXPERT_BUILD_DIR ?? path.join(root, 'build/release');
const packageDir = path.join(build, 'node/node_modules/@hivellm/expert');
const expert = require(packageDir);

const home = fs.mkdtempSync(path.join(os.tmpdir(), 'expert-node-'));
process.on('exit', () => fs.rmSync(home, { recursive: true, force: true }));

const baseModel = path.join(root, 'models/base');
const sqlDirectory = path.join(root, 'models/experts/sql');
const newEngine = (options = {}) => new expert.ExpertEngine({ baseModel, threads: 1, home, ...options });

const question = { prompt: 'Find all users older than 25', schema: 'users(id,name,age)', temperature: 0, maxTokens: 6 };
const long = { prompt: 'Hello', experts: [], maxTokens: 900, ignoreEos: true, temperature: 0 };

module.exports = { expert, root, build, packageDir, home, baseModel, sqlDirectory, newEngine, question, long };
