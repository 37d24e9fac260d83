/**
 * Runs a program's bundle with the code that V8 made of it at the build. Node 20 keeps none by itself
 * (module.enableCompileCache came with 22), and compiles two megabytes at each start. V8 takes no code of another version,
 * of other flags or, as it thinks, of another source: then it compiles. CommonJS, because modules take some milliseconds more.
 */
'use strict';

const { existsSync, readFileSync } = require('node:fs');
const { basename, dirname, join } = require('node:path');
const { constants, Script } = require('node:vm');

const readOptional = (path) => {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
};

/** A bundle begins with the hash of what follows in a comment. V8 tells sources apart by their length alone. */
const codePathOf = (path, source) =>
  `${path.slice(0, -'.cjs'.length)}-${/^\/\*(\w+)\*\//.exec(source)?.[1]}.code`;

/** Gives the script of a bundle, what runs it, and where its code is kept. */
exports.loadBundle = (path) => {
  // Bundles are ASCII: their bytes are their characters, and V8 keeps them as they are.
  const source = readFileSync(path, 'latin1');
  const codePath = codePathOf(path, source);
  const script = new Script(source, {
    filename: path,
    cachedData: readOptional(codePath),
    importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  });
  const run = () => script.runInThisContext()(require, { exports: {} }, path, dirname(path));
  return { script, run, codePath };
};

/** Runs the program that a file in this folder is called after. */
exports.runProgram = (file) => {
  const name = basename(file);
  const path = join(__dirname, '../dist', `${name}.cjs`);
  if (existsSync(path)) {
    exports.loadBundle(path).run();
    return;
  }
  process.stderr.write(`${name}: not built yet\nhint: run 'make build' in the source directory\n`);
  process.exitCode = 1;
};
