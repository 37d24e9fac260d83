import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { deferred } from '../../lib/abort.ts';
import { Mailbox } from '../../lib/mailbox.ts';

describe('a mailbox', () => {
  test('does one job after another in the order of their arrival', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(3), { maxLength: 12 }), async (yields) => {
        const mailbox = new Mailbox();
        const seen: string[] = [];
        const jobs = yields.map((turns, index) =>
          mailbox.post(async () => {
            seen.push(`begin ${index}`);
            for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
            seen.push(`end ${index}`);
          }),
        );
        await Promise.all(jobs);
        expect(seen).toEqual(yields.flatMap((_, index) => [`begin ${index}`, `end ${index}`]));
      }),
    );
  });

  test('puts a job with front ahead of all that wait, not ahead of the one that runs', async () => {
    const mailbox = new Mailbox();
    const gate = deferred<void>();
    const seen: string[] = [];
    const note = (word: string) => async (): Promise<void> => {
      seen.push(word);
    };
    const first = mailbox.post(async () => {
      await gate.promise;
      seen.push('first');
    });
    const second = mailbox.post(note('second'));
    const urgent = mailbox.post(note('urgent'), { front: true });
    expect(mailbox.waiting).toBe(2);
    expect(mailbox.busy).toBe(true);
    gate.resolve();
    await Promise.all([first, second, urgent]);
    expect(seen).toEqual(['first', 'urgent', 'second']);
  });

  test("gives each poster its own job's result or failure and goes on after a failure", async () => {
    const mailbox = new Mailbox();
    const failing = mailbox.post(() => Promise.reject(new Error('no')));
    const fine = mailbox.post(async () => 7);
    await expect(failing).rejects.toThrow('no');
    await expect(fine).resolves.toBe(7);
  });

  test('goes on after a job that throws before its first await', async () => {
    const mailbox = new Mailbox();
    const failing = mailbox.post((): Promise<void> => {
      throw new Error('at once');
    });
    await expect(failing).rejects.toThrow('at once');
    await expect(mailbox.post(async () => 'next')).resolves.toBe('next');
  });

  test('is idle only when nothing runs and nothing waits', async () => {
    const mailbox = new Mailbox();
    await mailbox.idle();
    const gate = deferred<void>();
    let isIdle = false;
    const first = mailbox.post(() => gate.promise);
    const second = mailbox.post(async () => {
      expect(isIdle).toBe(false);
    });
    const idle = mailbox.idle().then(() => {
      isIdle = true;
    });
    gate.resolve();
    await Promise.all([first, second, idle]);
    expect(isIdle).toBe(true);
    expect(mailbox.busy).toBe(false);
  });
});
