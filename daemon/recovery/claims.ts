/** What only one can have: whoever claims it first. */
export class Claims {
  readonly #holders = new Map<string, string>();

  /** Takes every claim, each with the name of who makes it, or none and says which is taken and by whom. */
  refusal(claims: Readonly<Record<string, string>>): string | undefined {
    const seen = Object.entries(claims);
    for (const [claim] of seen) {
      const holder = this.#holders.get(claim);
      if (holder !== undefined) return `its ${claim} is that of ${holder}`;
    }
    for (const [claim, holder] of seen) this.#holders.set(claim, holder);
    return undefined;
  }
}
