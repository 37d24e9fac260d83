/** Types of build-native.mjs, for the tests that use it. */

/** Builds what is missing or old; returns the paths that were built. */
export function buildNative(): string[];

/** The init of microVMs under the sanitizers; returns its path. */
export function buildSanitizedInit(): string;

/** The warden of containers under the sanitizers; returns its path. */
export function buildSanitizedWarden(): string;

/** A program of the tests out of one C source of theirs and the parts of the init; returns its path. */
export function buildGuestTest(source: string): string;
