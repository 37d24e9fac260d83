/** Running container images. */
import type { Verb } from '../verb.ts';

export const runningVerbs: readonly Verb[] = [
  {
    words: 'run',
    command: 'guest-create',
    uses: [
      'query-image',
      'image-build',
      'image-pull',
      'operation-wait',
      'guest-wait',
      'query-guest-log',
      'guest-attach',
      'guest-delete',
    ],
    summary: 'Run a container image as a guest of its own',
    details:
      'The image is pulled unless it is here. The guest ends with its program, whose exit code is that of roost: 125 when it could not be run, 126 when it could not be executed, 127 when it was not found, 128 and the number of the signal that ended it.',
    positionals: [
      { name: 'IMAGE', description: 'Of kind oci here, or as a registry has it', complete: 'image' },
      { name: 'CMD', variadic: true, optional: true, command: true, description: "In place of the image's" },
    ],
    flags: [
      { name: 'name', type: 'string', value: 'name', description: 'Name of the guest, run-… unless given' },
      { name: 'detach', short: 'd', description: 'Print the name once it runs, and leave it' },
      { name: 'interactive', short: 'i', description: 'Keep its standard input open, and be it' },
      { name: 'terminal', short: 't', description: 'Give it a terminal, as -it for a shell' },
      {
        name: 'rm',
        description: 'Delete the guest when it has ended; the daemon does, if this command does not live to',
      },
      {
        name: 'publish',
        short: 'p',
        type: 'strings',
        value: '[[address:]port:]port[/udp]',
        description: "Pass a port of the host on to one of the guest's",
      },
      {
        name: 'volume',
        short: 'v',
        type: 'strings',
        value: 'directory:/path[:ro|copy]',
        description:
          'Have a directory of the host at that path in the guest; with ro nobody in it can write there, with copy nothing comes back',
        complete: 'file',
      },
      { name: 'env', short: 'e', member: 'program.environment', value: 'NAME=value' },
      {
        name: 'workdir',
        short: 'w',
        member: 'program.workingDirectory',
        value: 'directory',
        description: "Working directory, in place of the image's",
      },
      { name: 'user', short: 'u', member: 'program.user', value: 'user' },
      { name: 'entrypoint', type: 'string', value: 'program', description: "In place of the image's" },
      {
        name: 'network',
        type: 'string',
        value: 'network',
        description: 'Network to be on; none unless given',
        complete: 'network',
      },
      { name: 'memory', short: 'm', member: 'memoryBytes' },
      { name: 'cpus', short: 'c', member: 'cpu.count' },
      {
        name: 'machine',
        member: 'machine',
        description: 'microvm unless given; q35 takes devices while it runs',
      },
    ],
    run: async (...given) => (await import('../run-image.ts')).runImage(...given),
  },
  {
    words: 'attach',
    command: 'guest-attach',
    uses: ['query-guest'],
    summary: "Attach to the streams of a guest's main program",
    details:
      'Of a guest that runs a container image. Its input is yours where it was made with -i, its terminal where it was made with -t: then Ctrl-] leaves, and the guest goes on. Exits as the program does.',
    positionals: [{ name: 'NAME', member: 'guest', complete: 'guest' }],
    flags: [{ name: 'no-input', description: 'Only watch' }],
    run: async (...given) => (await import('../attach.ts')).attachToGuest(...given),
  },
  {
    words: 'kill',
    command: 'guest-signal',
    summary: "Send a guest's main program a signal",
    details:
      'Of a guest that runs a container image, which ends with its main program. SIGKILL unless another is given. Other processes of a guest are signalled by its own shell: roost exec NAME sh -c "kill PID".',
    positionals: [{ name: 'NAME', member: 'guest', complete: 'guest', variadic: true }],
    flags: [
      {
        name: 'signal',
        short: 's',
        type: 'string',
        value: 'signal',
        description: 'By name, as HUP or SIGHUP, or by number',
      },
    ],
    run: async (...given) => (await import('../kill.ts')).killGuests(...given),
  },
  {
    words: 'top',
    command: 'query-guest-processes',
    summary: 'List the processes in a guest',
    details: 'As the guest tells them. Where no container image runs it needs ps(1) and the guest agent.',
    positionals: [{ name: 'NAME', member: 'guest', complete: 'guest' }],
    flags: [],
    run: async (...given) => (await import('../top.ts')).topOfGuest(...given),
  },
  {
    words: 'template create',
    command: 'template-create',
    uses: [
      'query-image',
      'image-build',
      'image-pull',
      'operation-wait',
      'guest-create',
      'guest-delete',
      'query-guest',
    ],
    details:
      'With --image the guest is made first; with --from it is made of a guest that runs, as that is now, and the guest itself goes on as the first fork of it; otherwise NAME is a stopped guest that runs a container image. `roost ls` shows templates as paused; stopping one frees its memory, deleting it needs that no fork of it is left.',
    positionals: [{ name: 'NAME', member: 'guest', description: 'Name of the template', complete: 'guest' }],
    flags: [
      {
        name: 'image',
        type: 'string',
        value: 'image',
        description: 'Of kind oci here, or as a registry has it',
        complete: 'image',
      },
      {
        name: 'network',
        type: 'string',
        value: 'network',
        description: 'Network that forks are on; none unless given',
        complete: 'network',
      },
      {
        name: 'from',
        type: 'string',
        value: 'guest',
        description: 'A guest that runs: its memory and its disks, and the program in it',
        complete: 'guest',
      },
      { name: 'memory', short: 'm', type: 'size', description: 'Memory of each fork' },
      { name: 'cpus', short: 'c', type: 'integer', description: 'Number of virtual CPUs' },
      { name: 'machine', type: 'string', value: 'machine', description: 'microvm unless given' },
    ],
    run: async (...given) => (await import('../templates.ts')).createTemplate(...given),
  },
  {
    words: 'fork',
    command: 'guest-fork',
    uses: ['operation-wait', 'query-guest', 'template-create'],
    details:
      'Prints the name of each new guest. It runs what the template would run, unless another command is given. A guest that runs is forked as it is, with all that runs in it: a template is made of it first, and it goes on as the first fork of that.',
    positionals: [
      { name: 'TEMPLATE', member: 'template', description: 'Or a guest that runs', complete: 'guest' },
      { name: 'CMD', variadic: true, optional: true, description: "In place of the image's" },
    ],
    flags: [
      {
        name: 'name',
        member: 'name',
        value: 'name',
        description: 'Name of the new guest, or with --count what names begin with',
      },
      { name: 'count', short: 'n', type: 'integer', description: 'How many; 1 unless given' },
      { name: 'env', short: 'e', member: 'program.environment', value: 'NAME=value' },
      { name: 'entrypoint', type: 'string', value: 'program', description: "In place of the image's" },
    ],
    run: async (...given) => (await import('../templates.ts')).fork(...given),
  },
];
