/** The manual pages roost(1) and roostd(8), from the table of verbs and the daemon's own help. Pure: roff(7) as text. */
import { positionalDescription, verbSummary } from '../../cli/contract-texts.ts';
import { flagForms, flagSyntax, globalFlags, helpText } from '../../cli/flags.ts';
import type { Positional, Verb } from '../../cli/verb.ts';
import { verbs } from '../../cli/verbs.ts';
import { usage } from '../../daemon/config.ts';
import { versionText } from '../../protocol/version.ts';

/** Text as roff takes it: no line begins a request, and hyphens are those that can be typed. */
const escaped = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll(/^([.'])/gm, '\\&$1');

const heading = (name: string, section: number): string =>
  `.TH ${name.toUpperCase()} ${section} "" "Roost ${versionText}" "Roost"`;

const tagged = (tag: string, text: string): readonly string[] => ['.TP', `.B ${escaped(tag)}`, escaped(text)];

const placeOf = ({ name, optional }: Positional): string => (optional === true ? `[${name}]` : name);

const verbText = (verb: Verb): readonly string[] => [
  `.SS roost ${escaped([verb.words, ...verb.positionals.map(placeOf)].join(' '))}`,
  escaped([`${verbSummary(verb)}.`, verb.details].filter(Boolean).join(' ')),
  ...verb.positionals.flatMap((positional) =>
    tagged(positional.name, positionalDescription(verb, positional)),
  ),
  ...flagForms(verb).flatMap((form) => tagged(flagSyntax(form), helpText(form))),
];

export const roostPage = (): string =>
  [
    heading('roost', 1),
    '.SH NAME',
    'roost \\- command line of the hypervisor management daemon roostd',
    '.SH SYNOPSIS',
    '.B roost',
    '[\\fIoptions\\fR] \\fIcommand\\fR [\\fIarguments\\fR]',
    '.SH OPTIONS',
    ...globalFlags.flatMap(({ syntax, description }) => tagged(syntax, description)),
    '.SH COMMANDS',
    ...verbs.filter((verb) => verb.hidden !== true).flatMap(verbText),
    '.SH FILES',
    ...tagged(
      '/run/roost/roost.sock',
      'The socket of the daemon; root and members of the group roost may use it.',
    ),
    '.SH SEE ALSO',
    '.BR roostd (8)',
    '',
  ].join('\n');

export const roostdPage = (): string =>
  [
    heading('roostd', 8),
    '.SH NAME',
    'roostd \\- hypervisor management daemon',
    '.SH SYNOPSIS',
    '.nf',
    escaped(usage.trimEnd()),
    '.fi',
    '.SH DESCRIPTION',
    'Keeps an inventory of guests with their disks and networks, and runs them with QEMU. Guests run on while it is',
    'restarted, upgraded or killed, and are taken over by the next one.',
    '.SH UNITS',
    ...tagged('roostd.service', 'The daemon. To stop or restart it touches no guest.'),
    ...tagged('roostd.socket', 'Its socket, for which clients wait while the daemon is restarted.'),
    ...tagged(
      'roost-guests.service',
      'Shuts guests down when the host stops, in the reverse order of autostart.',
    ),
    ...tagged('roost.slice', 'Each guest has a scope of its own in it.'),
    '.SH FILES',
    ...tagged('/etc/roost/roostd.yaml', 'Configuration; see configuration.md in /usr/share/doc/roost.'),
    ...tagged('/var/lib/roost', 'Inventory, images and disks.'),
    ...tagged('/run/roost', 'Sockets and locks.'),
    '.SH EXIT STATUS',
    '0 after a stop that was asked for, 78 when the configuration is wrong, 65 when data is lost, 1 otherwise.',
    '.SH SEE ALSO',
    '.BR roost (1)',
    '',
  ].join('\n');
