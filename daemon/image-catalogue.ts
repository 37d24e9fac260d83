/** The images of the inventory as users name and see them: references, versions, aliases, views. Changes nothing. */
import { RoostError } from '../protocol/errors.ts';
import type { ImageKind, ImageView } from '../protocol/image.ts';
import { type ImageReferenceParts, imageLabel, parseImageReference } from '../protocol/image-reference.ts';
import type { StoredImage } from '../storage/pool.ts';
import type { ImageRecord, ImageTable } from './inventory/image-table.ts';

export type ReadyImage = ImageRecord & { readonly stored: StoredImage };

/** Users of an image that an error names; there may be thousands. */
const MAX_NAMED_USERS = 100;

const isReady = (image: ImageRecord): image is ReadyImage =>
  image.state === 'ready' && image.stored !== undefined;

/** What a bare name means: the newest version that is ready, else the newest at all. Versions the newest first. */
export const newestOf = (versions: readonly ImageRecord[]): ImageRecord | undefined =>
  versions.find(isReady) ?? versions[0];

/** The version of an import that names none: the date (UTC), with a number from the second of a day on. */
export const datedVersion = (nowMs: number, taken: readonly string[]): string => {
  const date = new Date(nowMs).toISOString().slice(0, 10).replaceAll('-', '');
  let version = date;
  for (let count = 2; taken.includes(version); count += 1) version = `${date}.${count}`;
  return version;
};

/** Versions that `image-prune` deletes, those among them that an earlier deletion left half gone: pure. */
export const prunable = (
  versions: readonly ImageRecord[],
  keep: number,
  isNeeded: (image: ImageRecord) => boolean,
): readonly ImageRecord[] => {
  const kept = new Set(versions.filter(({ state }) => state === 'ready').slice(0, keep));
  return versions.filter((image) => image.state !== 'importing' && !kept.has(image) && !isNeeded(image));
};

const behind = (place: string): ((image: ImageRecord) => boolean) => {
  const [name = '', number] = place.split(' ');
  return (image) => image.name > name || (image.name === name && image.number < Number(number ?? 0));
};

export class ImageCatalogue {
  readonly #table: ImageTable;

  constructor(table: ImageTable) {
    this.#table = table;
  }

  /** Errors: NotFound. */
  find(reference: string): ImageRecord {
    const image = this.#table.byId(reference) ?? this.#named(this.partsOf(reference));
    if (image) return image;
    throw new RoostError('NotFound', `There is no image called ${reference}`, {
      data: { image: reference },
      hint: 'query-images lists them.',
    });
  }

  /** The newest version of a name that is complete. */
  newestReady(name: string): ReadyImage | undefined {
    return this.#table.versions(name).find(isReady);
  }

  /** Errors: NotFound; FailedPrecondition while it is imported; InvalidArgument for another kind. */
  require(reference: string, kind?: ImageKind): ReadyImage {
    const image = this.find(reference);
    const label = imageLabel(image);
    if (!isReady(image))
      throw new RoostError(
        'FailedPrecondition',
        `Image ${label} is ${image.state === 'deleting' ? 'being deleted' : 'still being imported'}`,
        { data: { image: label }, hint: 'Wait for its operation to end.' },
      );
    if (kind !== undefined && image.kind !== kind)
      throw new RoostError(
        'InvalidArgument',
        `Image ${label} is a ${image.kind}, and a ${kind} is needed here`,
        { data: { image: label, kind: image.kind, needed: kind } },
      );
    return image;
  }

  /** A reference with its alias looked up. An alias of one version has no other versions: then it stays a name. */
  partsOf(reference: string): ImageReferenceParts {
    const parts = parseImageReference(reference);
    const alias = this.#table.aliases().find((each) => each.alias === parts.name);
    if (!alias || (alias.version !== undefined && parts.version !== undefined)) return parts;
    const version = alias.version ?? parts.version;
    return { name: alias.name, ...(version === undefined ? {} : { version }) };
  }

  isAlias(name: string): boolean {
    return this.#table.aliases().some((alias) => alias.alias === name);
  }

  /** Whether an alias means this very version, whatever the newest is. */
  isPinned(image: ImageRecord): boolean {
    return this.#table
      .aliases()
      .some((alias) => alias.name === image.name && alias.version === image.version);
  }

  /** Errors: FailedPrecondition. */
  refuseWhileImported(image: ImageRecord): void {
    if (image.state !== 'importing') return;
    const label = imageLabel(image);
    throw new RoostError('FailedPrecondition', `Image ${label} is still being imported`, {
      data: { image: label },
      hint: 'Wait for its operation to end, or cancel it.',
    });
  }

  /** A file that is anyone's base is never removed. Errors: FailedPrecondition naming who needs it. */
  refuseWhileUsed(image: ImageRecord): void {
    const usedBy = this.#table.users(image.id);
    if (usedBy.length === 0) return;
    const label = imageLabel(image);
    throw new RoostError(
      'FailedPrecondition',
      `Image ${label} is needed by ${usedBy.slice(0, 5).join(', ')}${usedBy.length > 5 ? ` and ${usedBy.length - 5} more` : ''}`,
      {
        data: { image: label, users: usedBy.length, usedBy: usedBy.slice(0, MAX_NAMED_USERS) },
        hint: 'Delete those guests first.',
      },
    );
  }

  /** By name, the newest version first, each once; those behind a place in that order. Errors: NotFound. */
  views(references?: readonly string[], after?: string): readonly ImageView[] {
    const all = this.#table.all();
    const aliases = this.#table.aliases();
    const wanted = references && new Set(references.flatMap((reference) => this.#idsOf(reference)));
    const isBehind = after === undefined ? () => true : behind(after);
    const byName = new Map<string, ImageRecord[]>();
    for (const image of all) byName.set(image.name, [...(byName.get(image.name) ?? []), image]);
    return [...byName.values()].flatMap((versions) => {
      const newest = newestOf(versions);
      return versions
        .filter((image) => (wanted?.has(image.id) ?? true) && isBehind(image))
        .map((image) => {
          const meaning = aliases.filter(
            ({ name, version = newest?.version }) => name === image.name && version === image.version,
          );
          return {
            ...this.#view(image),
            newest: image === newest,
            aliases: meaning.map(({ alias }) => alias),
          };
        });
    });
  }

  /** Where an image stands among all, for the next page. */
  placeOf({ id, name }: Pick<ImageView, 'id' | 'name'>): string {
    return `${name} ${this.#table.byId(id)?.number ?? 0}`;
  }

  #view(image: ImageRecord): Omit<ImageView, 'newest' | 'aliases'> {
    const { stored, source } = image;
    return {
      id: image.id,
      name: image.name,
      version: image.version,
      kind: image.kind,
      state: image.state,
      format: stored?.format ?? 'raw',
      sizeBytes: stored?.sizeBytes ?? 0,
      virtualSizeBytes: stored?.virtualSizeBytes ?? 0,
      ...(stored === undefined ? {} : { sha256: stored.sha256 }),
      ...(stored?.oci === undefined ? {} : { oci: stored.oci }),
      ...(source === undefined ? {} : { source }),
      usedBy: [...this.#table.users(image.id)],
      createdAt: image.createdAt,
    };
  }

  #named({ name, version }: ImageReferenceParts): ImageRecord | undefined {
    const versions = this.#table.versions(name);
    return version === undefined ? newestOf(versions) : versions.find((image) => image.version === version);
  }

  /** Every version of a plain name, else the one that is meant. */
  #idsOf(reference: string): readonly string[] {
    const found = this.find(reference);
    const plain = reference === found.name;
    return plain ? this.#table.versions(found.name).map(({ id }) => id) : [found.id];
  }
}
