/** Images for people. */
import type { CommandReturn } from '../../protocol/commands.ts';
import type { ImageSource, ImageView } from '../../protocol/image.ts';
import type { OciConfig } from '../../protocol/oci.ts';
import { formatAge, formatSize } from '../units.ts';
import { usersText } from './lists.ts';
import { renderFields, renderTable } from './table.ts';

const sourceText = (source: ImageSource): string => {
  switch (source.kind) {
    case 'file':
      return source.path;
    case 'url':
      return source.url;
    case 'registry':
      return source.reference;
    case 'build':
      return `built: ${source.recipe}`;
    case 'guest':
      return source.image === undefined
        ? `saved: ${source.guest}`
        : `saved: ${source.guest}, of ${source.image}`;
  }
};

export const printImages = (images: readonly ImageView[], nowMs: number): string[] =>
  renderTable(
    ['name', 'version', 'aliases', 'kind', 'state', 'size', 'virtual', 'used by', 'created', 'source'],
    images.map((image) => [
      image.name,
      image.newest ? `${image.version} *` : image.version,
      image.aliases.join(', '),
      image.kind,
      image.state,
      formatSize(image.sizeBytes),
      formatSize(image.virtualSizeBytes),
      usersText(image.usedBy),
      formatAge(image.createdAt, nowMs),
      image.source && sourceText(image.source),
    ]),
  );

/** Words of a command line, those with blanks in quotes. */
const wordsText = (words: readonly string[]): string | undefined =>
  words.length === 0
    ? undefined
    : words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word))).join(' ');

type Field = readonly [string, string | number | undefined];

const configFields = (config: OciConfig): readonly Field[] => [
  ['entrypoint', wordsText(config.entrypoint)],
  ['command', wordsText(config.cmd)],
  ['user', config.user],
  ['directory', config.workingDir],
  ...config.env.map((entry): Field => ['environment', entry]),
  ['ports', config.exposedPorts.join(', ') || undefined],
  ['volumes', config.volumes.join(', ') || undefined],
  ['stop signal', config.stopSignal],
  ['health check', config.healthcheck && wordsText(config.healthcheck.test)],
  ...Object.entries(config.labels).map(([key, value]): Field => ['label', `${key}=${value}`]),
];

export const printImage = (image: CommandReturn<'query-image'>, nowMs: number): readonly string[] => {
  const { oci, config } = image;
  const fields: readonly Field[] = [
    ['name', image.name],
    ['version', image.version],
    ['aliases', image.aliases.join(', ') || undefined],
    ['id', image.id],
    ['kind', image.kind],
    ['state', image.state],
    ['size', `${formatSize(image.sizeBytes)}, ${formatSize(image.virtualSizeBytes)} as a disk`],
    ['platform', oci?.platform],
    ['digest', oci?.digest],
    ['layers', oci?.layers],
    ['source', image.source && sourceText(image.source)],
    ['sha256', image.sha256],
    ['used by', image.usedBy.length === 0 ? undefined : usersText(image.usedBy)],
    ['created', formatAge(image.createdAt, nowMs)],
    ...(config ? configFields(config) : []),
  ];
  return renderFields(fields);
};
