/** References to images, `NAME` or `NAME@VERSION`. Loads no schema, for programs in a hurry. */

/** A reference in its parts; an id is a name here. */
export interface ImageReferenceParts {
  readonly name: string;
  readonly version?: string;
}

/** `debian/12@20261125` as name and version. Neither may hold an `@`, so the first one parts them. */
export const parseImageReference = (reference: string): ImageReferenceParts => {
  const at = reference.indexOf('@');
  return at < 0 ? { name: reference } : { name: reference.slice(0, at), version: reference.slice(at + 1) };
};

/** The exact reference of a version. */
export const imageLabel = (image: { readonly name: string; readonly version: string }): string =>
  `${image.name}@${image.version}`;
