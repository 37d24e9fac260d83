/**
 * Runs a bundle with one command line after the other and keeps the code that V8 made meanwhile, for bin/run-bundle.cjs.
 *   node tools/write-code.cjs BUNDLE JSON
 * JSON is a list of command lines, each a list of words.
 */
'use strict';

const { renameSync, writeFileSync } = require('node:fs');
const { loadBundle } = require('../bin/run-bundle.cjs');

const [, , path, json] = process.argv;
const commandLines = JSON.parse(json);
const { script, run, codePath } = loadBundle(path);

const runNext = () => {
  const words = commandLines.shift();
  if (words === undefined) return;
  process.argv = [process.execPath, path, ...words];
  run();
};

process.on('beforeExit', runNext);
process.on('exit', () => {
  // What reads it meanwhile reads the one or the other.
  const temporary = `${codePath}.${process.pid}`;
  writeFileSync(temporary, script.createCachedData());
  renameSync(temporary, codePath);
});
runNext();
