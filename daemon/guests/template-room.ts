/** Which templates give their memory up so that another has room. Pure. */

export interface TemplateMemory {
  readonly name: string;
  readonly bytes: number;
  /** When somebody last asked for a fork of it, or it was made; in milliseconds since the epoch. */
  readonly lastAskedAt: number;
  /** Whether it could be made anew when somebody asks again. */
  readonly mayGo: boolean;
}

/** The fewest that were asked for the longest ago; undefined where there would be no room even then. */
export const givingRoom = <T extends TemplateMemory>(
  neededBytes: number,
  budgetBytes: number,
  templates: readonly T[],
): readonly T[] | undefined => {
  let left = budgetBytes - neededBytes - templates.reduce((sum, { bytes }) => sum + bytes, 0);
  const given: T[] = [];
  for (const template of templates.toSorted((one, other) => one.lastAskedAt - other.lastAskedAt)) {
    if (left >= 0) break;
    if (!template.mayGo) continue;
    given.push(template);
    left += template.bytes;
  }
  return left >= 0 ? given : undefined;
};
