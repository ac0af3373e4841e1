'use strict';

const assert = require('node:assert');
const test = require('node:test');

test('requiring the binding that is not built yet throws a named error', () => {
  assert.throws(() => require('./index.js'), { name: 'NotBuiltError', code: 'EXPERT_NOT_BUILT' });
});
