import { describe, expect, it } from 'vitest';
import {
  changeCloudInit,
  storedCloudInit,
  withoutCloudInitTexts,
} from '../../../daemon/cloud-init/change-cloud-init.ts';

const before = storedCloudInit({ user: 'alice', userData: '#!/bin/sh\n' });

describe('changeCloudInit', () => {
  it('leaves all as it is without a change', () => {
    expect(changeCloudInit(before, undefined)).toBe(before);
    expect(changeCloudInit(undefined, undefined)).toBeUndefined();
  });

  it('changes what is given, takes away what is null, and keeps the instance', () => {
    const after = changeCloudInit(before, { hostname: 'www', userData: null });
    expect(after).toMatchObject({ user: 'alice', hostname: 'www', instance: 1 });
    expect(after).not.toHaveProperty('userData');
    expect(after?.digest).not.toBe(before.digest);
  });

  it('has the same digest for the same settings, in whatever order they came', () => {
    const there = changeCloudInit(before, { hostname: 'www' });
    expect(changeCloudInit(there, { hostname: null })).toEqual(before);
    expect(storedCloudInit({ userData: '#!/bin/sh\n', user: 'alice' }).digest).toBe(before.digest);
  });

  it('gives a new instance only when it is asked for, and that is a change', () => {
    const second = changeCloudInit(before, { newInstance: true });
    expect(second?.instance).toBe(2);
    expect(second?.digest).not.toBe(before.digest);
    expect(changeCloudInit(second, { user: 'bob' })?.instance).toBe(2);
    expect(changeCloudInit(undefined, { newInstance: true })?.instance).toBe(1);
  });

  it('refuses a new instance where the meta-data names it', () => {
    const own = storedCloudInit({ metaData: 'instance-id: mine\n' });
    expect(() => changeCloudInit(own, { newInstance: true })).toThrow(
      expect.objectContaining({ class: 'InvalidArgument' }),
    );
    expect(changeCloudInit(own, { newInstance: true, metaData: null })?.instance).toBe(2);
  });

  it('ends with null, and begins afresh after it', () => {
    expect(changeCloudInit(before, null)).toBeUndefined();
    expect(changeCloudInit(undefined, {})).toEqual(storedCloudInit({}));
  });
});

describe('withoutCloudInitTexts', () => {
  it('tells what was given and not what it was', () => {
    const args = { guest: 'web1', cloudInit: { userData: 'secret', passwordHash: '$6$hash' } };
    expect(withoutCloudInitTexts(args)).toEqual({
      guest: 'web1',
      cloudInit: { given: ['userData', 'passwordHash'] },
    });
    const taken = { guest: 'web1', cloudInit: null };
    expect(withoutCloudInitTexts(taken)).toEqual(taken);
    const without: { guest: string; cloudInit?: object } = { guest: 'web1' };
    expect(withoutCloudInitTexts(without)).toEqual(without);
  });
});
