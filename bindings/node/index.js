'use strict';

// One small base language model stays resident, many experts bend it per request.
//
//   const { ExpertEngine } = require('@hivellm/expert');
//   const engine = new ExpertEngine();
//   console.log((await engine.infer('Find all users older than 25')).output);

const native = require('./lib/load.js');
const { classes, fromStatus } = require('./lib/errors.js');

native.setErrorFactory(fromStatus);

const { ExpertEngine, Expert } = require('./lib/engine.js');
const { Handle, Stream } = require('./lib/running.js');
const library = require('./lib/library.js');

module.exports = { ExpertEngine, Expert, Handle, Stream, ...library, ...classes };
