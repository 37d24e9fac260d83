import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Monitor } from '../../../drivers/processes/monitor.ts';
import { TranscriptWriter } from '../../../drivers/processes/transcript.ts';
import { deferred } from '../../../lib/abort.ts';
import { Account, accounted } from '../../../lib/account.ts';
import { silentLog } from '../../../lib/log.ts';
import { FakeQemu, type FakeScript } from '../../fake-qemu/fake-qemu.ts';
import { testDirectory } from '../../harness/test-directory.ts';

const signal = new AbortController().signal;

const newTranscript = async (): Promise<TranscriptWriter> => {
  const transcript = new TranscriptWriter(join(await testDirectory('log'), 'qmp.log'), silentLog());
  onTestFinished(() => transcript.close());
  return transcript;
};

const openMonitor = async (
  fake: FakeQemu,
  heard: string[],
  { silenceAfterMs = 60_000, program = 'QEMU' } = {},
) => {
  const ringing = deferred<void>();
  const silent = deferred<void>();
  const spoke = deferred<void>();
  const monitor = await Monitor.open(
    {
      path: fake.path,
      pid: process.pid,
      program,
      silenceAfterMs,
      log: silentLog(),
      transcript: await newTranscript(),
      onRing: () => {
        heard.push('ring');
        ringing.resolve();
      },
      onSilent: (reason) => {
        heard.push(`silent ${reason}`);
        silent.resolve();
      },
      onHeard: () => {
        heard.push('heard');
        spoke.resolve();
      },
    },
    signal,
  );
  return { monitor, rung: ringing.promise, silent: silent.promise, spoke: spoke.promise };
};

describe('Monitor', () => {
  it('enters into the account of its work what it asked, and of whom', async () => {
    await using fake = await FakeQemu.listen(async (peer) => {
      await peer.negotiate();
      peer.reply(await peer.receive(), {});
    });
    const { monitor } = await openMonitor(fake, [], { program: 'roost-warden' });
    const account = new Account();
    await accounted(account, () => monitor.execute('stop', {}, signal));
    expect(account.close()).toMatchObject([{ kind: 'monitor', program: 'roost-warden', command: 'stop' }]);
    await monitor.close();
  });

  it('connects again when its session ends, and rings because it may have missed something', async () => {
    let connections = 0;
    const script: FakeScript = async (peer) => {
      connections += 1;
      await peer.negotiate();
      const command = await peer.receive();
      if (connections === 1) peer.hangUp();
      else peer.reply(command, { status: 'running', running: true });
    };
    await using fake = await FakeQemu.listen(script);
    const heard: string[] = [];
    const { monitor, rung } = await openMonitor(fake, heard);
    const lost = monitor.execute('query-status', {}, signal);
    await expect(lost).rejects.toMatchObject({ class: 'Unavailable' });
    await rung;
    expect(await monitor.execute('query-status', {}, signal)).toMatchObject({ status: 'running' });
    expect(heard).toEqual(['ring']);
    await monitor.close();
    await expect(monitor.execute('stop', {}, signal)).rejects.toMatchObject({ class: 'Unavailable' });
  });

  it('tells that a session which ended does not come back, and waits for its greeting as long as it takes', async () => {
    const greeted = deferred<void>();
    let connections = 0;
    await using fake = await FakeQemu.listen(async (peer) => {
      connections += 1;
      if (connections === 2) await greeted.promise;
      await peer.negotiate();
      const command = await peer.receive();
      if (connections === 1) peer.hangUp();
      else peer.reply(command, { status: 'running', running: true });
    });
    const heard: string[] = [];
    const { monitor, silent, spoke, rung } = await openMonitor(fake, heard, { silenceAfterMs: 20 });
    await expect(monitor.execute('query-status', {}, signal)).rejects.toMatchObject({ class: 'Unavailable' });
    await silent;
    greeted.resolve();
    await spoke;
    await rung;
    expect(heard).toEqual(['silent busy', 'heard', 'ring']);
    expect(await monitor.execute('query-status', {}, signal)).toMatchObject({ status: 'running' });
    expect(connections).toBe(2);
    await monitor.close();
  });

  it('tells of a QEMU that does not greet, while it is waited for', async () => {
    const told = deferred<string>();
    await using fake = await FakeQemu.listen(async (peer) => {
      await told.promise;
      await peer.negotiate();
    });
    const spoke = deferred<void>();
    const monitor = await Monitor.open(
      {
        path: fake.path,
        pid: process.pid,
        program: 'QEMU',
        silenceAfterMs: 20,
        log: silentLog(),
        transcript: await newTranscript(),
        onRing: () => undefined,
        onSilent: told.resolve,
        onHeard: spoke.resolve,
      },
      signal,
    );
    expect(await told.promise).toBe('busy');
    await spoke.promise;
    await monitor.close();
  });

  it("turns QEMU's refusal into an error with QEMU's words", async () => {
    await using fake = await FakeQemu.listen(async (peer) => {
      await peer.negotiate();
      peer.refuse(await peer.receive(), 'GenericError', 'Resetting the Virtual Machine is required');
    });
    const { monitor } = await openMonitor(fake, []);
    await expect(monitor.execute('cont', {}, signal)).rejects.toMatchObject({
      class: 'HostError',
      data: { said: 'Resetting the Virtual Machine is required' },
    });
    await monitor.close();
  });

  it('tells of silence when an answer is owed, also when its caller gave up, and of the first sound after it', async () => {
    const answer = deferred<void>();
    await using fake = await FakeQemu.listen(async (peer) => {
      await peer.negotiate();
      const command = await peer.receive();
      await answer.promise;
      peer.reply(command, { status: 'running', running: true });
    });
    const heard: string[] = [];
    const { monitor, silent, spoke } = await openMonitor(fake, heard, { silenceAfterMs: 20 });
    const given = new AbortController();
    const waiting = monitor.execute('query-status', {}, given.signal);
    given.abort(new Error('no more patience'));
    await expect(waiting).rejects.toThrow('no more patience');
    await silent;
    expect(heard).toEqual(['silent busy']);
    let known = '';
    monitor.whenSilent((reason) => {
      known = reason;
    })();
    expect(known).toBe('busy');
    answer.resolve();
    await spoke;
    expect(heard).toEqual(['silent busy', 'heard']);
    await monitor.close();
  });

  it('rejects when no session comes up, and leaves nothing', async () => {
    await using fake = await FakeQemu.listen((peer) => peer.hangUp());
    await expect(openMonitor(fake, [])).rejects.toMatchObject({ name: 'QmpConnectError' });
  });
});
