import { describe, expect, it } from 'vitest';
import { defaultDirectories } from '../../lib/default-directories.ts';

describe('default directories', () => {
  it("are the file system hierarchy's for root, whatever the environment says", () => {
    expect(defaultDirectories({ uid: 0, env: { XDG_RUNTIME_DIR: '/run/user/0', HOME: '/root' } })).toEqual({
      stateDirectory: '/var/lib/roost',
      runDirectory: '/run/roost',
      configFile: '/etc/roost/roostd.yaml',
    });
  });

  it('are those of XDG for a user', () => {
    const env = { XDG_RUNTIME_DIR: '/run/user/7', XDG_STATE_HOME: '/s', XDG_CONFIG_HOME: '/c', HOME: '/h' };
    expect(defaultDirectories({ uid: 7, env })).toEqual({
      stateDirectory: '/s/roost',
      runDirectory: '/run/user/7/roost',
      configFile: '/c/roost/roostd.yaml',
    });
  });

  it('fall back to the home directory, also when a variable is empty or relative', () => {
    const expected = {
      stateDirectory: '/h/.local/state/roost',
      runDirectory: '/h/.local/state/roost/run',
      configFile: '/h/.config/roost/roostd.yaml',
    };
    expect(defaultDirectories({ uid: 7, env: { HOME: '/h' } })).toEqual(expected);
    const env = { HOME: '/h', XDG_RUNTIME_DIR: '', XDG_STATE_HOME: 'x', XDG_CONFIG_HOME: 'y' };
    expect(defaultDirectories({ uid: 7, env })).toEqual(expected);
  });
});
