/** Handlers of what the agent in a guest does. */

import { execStatus, openProgram } from '../../guests/agent-exec.ts';
import type { AgentFiles } from '../../guests/agent-files.ts';
import { ByteSession } from '../../guests/byte-session.ts';
import { attachProgram } from '../../guests/inside.ts';
import { listProcesses } from '../../guests/list-processes.ts';
import { signalProgram } from '../../guests/signal-program.ts';
import type { Handlers } from '../call.ts';
import type { Services } from './services.ts';

export type ProgramCommands =
  | 'guest-exec-session'
  | 'guest-attach'
  | 'guest-signal'
  | 'query-guest-processes';

export type AgentCommands =
  | 'guest-info'
  | 'guest-network-get-interfaces'
  | 'guest-exec'
  | 'guest-exec-status'
  | `guest-file-${'open' | 'read' | 'write' | 'seek' | 'close'}`
  | `guest-fsfreeze-${'status' | 'freeze' | 'thaw'}`;

export const agentHandlers = ({ guests }: Services, files: AgentFiles): Pick<Handlers, AgentCommands> => ({
  'guest-info': ({ guest, timeoutMs }, { signal }) =>
    guests.registry.find(guest).agent.use((agent, limit) => agent.info(limit), { signal, timeoutMs }),
  'guest-network-get-interfaces': async ({ guest, timeoutMs }, { signal }) => {
    const { agent } = guests.registry.find(guest);
    const interfaces = await agent.use((line, limit) => line.interfaces(limit), { signal, timeoutMs });
    return { interfaces: [...interfaces] };
  },
  'guest-exec': async ({ guest, timeoutMs, ...request }, { signal }) => {
    const { agent } = guests.registry.find(guest);
    return { pid: await agent.use((line, limit) => line.exec(request, limit), { signal, timeoutMs }) };
  },
  'guest-exec-status': ({ guest, ...request }, { signal }) =>
    execStatus(guests.registry.find(guest), request, signal),
  'guest-file-open': async ({ guest, ...request }, call) => ({
    handle: await files.open(guests.registry.find(guest), call, request),
  }),
  'guest-file-read': async ({ guest: reference, count, ...request }, call) => {
    const guest = guests.registry.find(reference);
    const { bytes, eof } = await files.use(
      guest,
      call,
      { ...request, bytes: count },
      (agent, handle, signal) => agent.readFile(handle, count, signal),
    );
    return { buf: bytes.toString('base64'), eof };
  },
  'guest-file-write': async ({ guest: reference, buf, ...request }, call) => {
    const guest = guests.registry.find(reference);
    const bytes = Buffer.from(buf, 'base64');
    const count = await files.use(guest, call, { ...request, bytes: bytes.length }, (agent, handle, signal) =>
      agent.writeFile(handle, bytes, signal),
    );
    return { count };
  },
  'guest-file-seek': async ({ guest: reference, offset, whence, ...request }, call) => {
    const guest = guests.registry.find(reference);
    const position = await files.use(guest, call, request, (agent, handle, signal) =>
      agent.seekFile(handle, offset, whence, signal),
    );
    return { position };
  },
  'guest-file-close': async ({ guest, ...request }, call) => {
    await files.close(guests.registry.find(guest), call, request);
    return {};
  },
  'guest-fsfreeze-status': async ({ guest, timeoutMs }, { signal }) => {
    const { agent } = guests.registry.find(guest);
    return { status: await agent.use((line, limit) => line.freezeStatus(limit), { signal, timeoutMs }) };
  },
  'guest-fsfreeze-freeze': (args, call) => guests.verb('guest-fsfreeze-freeze', args, call),
  'guest-fsfreeze-thaw': (args, call) => guests.verb('guest-fsfreeze-thaw', args, call),
});

/** Programs that are talked with, and the processes that there are. */
export const programHandlers = ({ guests }: Services): Pick<Handlers, ProgramCommands> => ({
  'guest-signal': async ({ guest, timeoutMs, signal: asked }, { signal }) => {
    await signalProgram(guests.registry.find(guest), asked, { signal, timeoutMs });
    return {};
  },
  'query-guest-processes': async ({ guest, timeoutMs }, { signal }) => ({
    processes: [...(await listProcesses(guests.registry.find(guest), { signal, timeoutMs }))],
  }),
  'guest-exec-session': async ({ guest: reference, timeoutMs, ...request }, call) => {
    const guest = guests.registry.find(reference);
    const line = await openProgram(guest, request, { signal: call.signal, timeoutMs });
    call.session.becomeStream(new ByteSession(line, request.terminal !== undefined, guest.house));
    return { guest: guest.name };
  },
  'guest-attach': async ({ guest: reference, fromOffset }, call) => {
    const guest = guests.registry.find(reference);
    const line = await attachProgram(guest, fromOffset, call.signal);
    call.session.becomeStream(new ByteSession(line, false, guest.house));
    const { terminal = false, interactive = false } = guest.record.spec.program ?? {};
    return { guest: guest.name, terminal, interactive };
  },
});
