#!/usr/bin/env node
/**
 * An executable that the driver takes for QEMU: it answers what a real one said of itself, and then misbehaves as the
 * guest's name asks. It has the descriptors that the launcher hands over (drivers/qemu/launch-args.ts): the black box as
 * its standard output, the listening socket of its monitor as descriptor 4. Plain JavaScript, so that it starts quickly.
 */
import { readFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

const MONITOR = 4;
const argv = process.argv.slice(2);
const behaviour = /guest=([a-z-]+)/.exec(argv[argv.indexOf('-name') + 1] ?? '')?.[1] ?? '';
const line = (value) => `${JSON.stringify(value)}\r\n`;
const facts = JSON.parse(readFileSync(join(import.meta.dirname, 'misbehaving-qemu.json'), 'utf8'));
const event = (name, data = {}) => {
  const now = Date.now();
  return line({
    timestamp: { seconds: Math.floor(now / 1000), microseconds: (now % 1000) * 1000 },
    event: name,
    data,
  });
};

/** The questions that the driver asks of a binary, before any guest: all of them on standard input, then its end. */
function answerQuestions() {
  let asked = '';
  process.stdin.on('data', (chunk) => {
    asked += chunk.toString();
  });
  process.stdin.on('end', () => {
    let said = line(facts.greeting);
    for (const { execute, id } of asked.split('\n').map((one) => JSON.parse(one)))
      said += line({ return: facts[execute] ?? {}, id });
    process.stdout.write(said, () => process.exit(0));
  });
}

/** Answers as a good QEMU would. */
function obey({ execute, id }, say) {
  switch (execute) {
    case 'query-status':
      return say(line({ return: { status, running: status === 'running' }, id }));
    case 'query-kvm':
      return say(line({ return: { enabled: false, present: false }, id }));
    case 'cont':
      status = 'running';
      say(line({ return: {}, id }));
      return tell('RESUME', say);
    case 'stop':
      status = 'paused';
      say(line({ return: {}, id }));
      return tell('STOP', say);
    case 'system_powerdown':
    case 'quit':
      say(line({ return: {}, id }));
      tell('SHUTDOWN', say, { guest: true, reason: 'guest-shutdown' });
      return process.exit(0);
    default:
      return say(line({ return: {}, id }));
  }
}

let status = 'prelaunch';
function tell(name, say, data) {
  const words = event(name, data);
  writeSync(1, words);
  say(words);
}

/** What each does instead; `false` lets the good answer follow. Called for every command but the negotiation. */
const instead = {
  'half-a-value': ({ id }, say) => say(`{"return": {"status": "run", "id": ${id}`),
  'never-answers': () => undefined,
  'unknown-ids': (_command, say) => {
    say(line({ return: {}, id: 987_654 }) + line({ return: {}, id: 'never asked' }) + line({ return: {} }));
    return false;
  },
  'error-without-id': (_command, say) => {
    say(line({ error: { class: 'GenericError', desc: 'out of the blue' } }));
    return false;
  },
  'large-reply': ({ execute, id }, say) => {
    if (execute !== 'query-status') return false;
    const padding = 'x'.repeat(10 * 1024 * 1024);
    return say(line({ return: { status, running: true, padding }, id }));
  },
  'hangs-up': (_command, _say, socket) => socket.destroy(),
  'not-json': (_command, say) => say('%!PS-Adobe-3.0\r\n'),
  late: (command, say) => {
    setTimeout(() => obey(command, say), 8_000);
  },
  flood: ({ execute }, say) => {
    if (execute === 'cont') flood(say);
    return false;
  },
};

/** Events as fast as anybody takes them, for as long as it lives. */
function flood(say) {
  const words = event('RESET', { guest: true, reason: 'guest-reset' }).repeat(500);
  say(words);
  writeSync(1, words);
  setImmediate(flood, say);
}

function serve() {
  if (behaviour === 'dies-before') process.exit(1);
  writeSync(1, line(facts.greeting));
  createServer((socket) => {
    socket.on('error', () => undefined);
    if (behaviour === 'no-greeting') return;
    if (behaviour === 'half-a-greeting') return void socket.write('{"QMP": {"version"');
    socket.write(line(facts.greeting));
    let held = '';
    socket.on('data', (chunk) => {
      held += chunk.toString();
      // The driver sends one object after another, without line ends.
      const commands = held.replace(/\}\{"execute"/g, '}\n{"execute"').split('\n');
      held = '';
      for (const text of commands) {
        const command = JSON.parse(text);
        const say = (words) => void (socket.destroyed || socket.write(words));
        if (command.execute === 'qmp_capabilities') {
          if (behaviour === 'dies-in-handshake') process.exit(1);
          if (behaviour === 'no-negotiation') continue;
          say(line({ return: {}, id: command.id }));
        } else if (
          (instead[behaviour]?.(command, say, socket) ?? (behaviour in instead ? undefined : false)) === false
        )
          obey(command, say);
      }
    });
  }).listen({ fd: MONITOR });
}

if (argv[argv.indexOf('-machine') + 1] === 'none') answerQuestions();
else serve();
