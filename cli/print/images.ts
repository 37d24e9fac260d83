/** Images for people. */
import type { ImageSource, ImageView } from '../../protocol/image.ts';
import { formatAge, formatSize } from '../units.ts';
import { usersText } from './lists.ts';
import { renderTable } from './table.ts';

const sourceText = (source: ImageSource): string => {
  switch (source.kind) {
    case 'file':
      return source.path;
    case 'url':
      return source.url;
    case 'build':
      return `built: ${source.recipe}`;
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
