/**
 * Runs a bundle once and keeps the code that V8 made meanwhile, for bin/run-bundle.cjs.
 *   node tools/write-code.cjs BUNDLE [ARGUMENT…]
 */
'use strict';

const { renameSync, writeFileSync } = require('node:fs');
const { loadBundle } = require('../bin/run-bundle.cjs');

const [, , path, ...args] = process.argv;
process.argv = [process.execPath, path, ...args];
const { script, run, codePath } = loadBundle(path);
process.on('exit', () => {
  // What reads it meanwhile reads the one or the other.
  const temporary = `${codePath}.${process.pid}`;
  writeFileSync(temporary, script.createCachedData());
  renameSync(temporary, codePath);
});
run();
