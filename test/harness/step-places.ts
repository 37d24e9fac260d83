/** Places in an operation at which a test lets it fail, or the daemon die: a step's name and the moment of it. */

/** Before each step, which is after the one before it, and after the last. */
export const placesBetween = (steps: readonly string[]): readonly string[] => [
  ...steps.map((step) => `${step}/before`),
  `${steps.at(-1) ?? ''}/after`,
];
