/** How far mmdebstrap is, from what it, apt and dpkg print; a text of any cut goes in. Pure. */

/** Parts of the whole that the phases take, measured: the lists and packages come by the network, the rest is work. */
const phases: readonly (readonly [heading: RegExp, start: number, doing: string])[] = [
  [/^I: running apt-get update/, 0, 'Fetching package lists'],
  [/^I: downloading packages/, 0.05, 'Fetching packages'],
  [/^I: extracting archives/, 0.1, 'Unpacking packages'],
  [/^I: installing essential/, 0.15, 'Installing packages'],
  [/^I: installing remaining/, 0.2, 'Installing packages'],
  [/^I: cleaning package lists/, 0.98, 'Cleaning up'],
];

/** In apt's last run each package is fetched, unpacked and set up: three lines. */
const LINES_PER_PACKAGE = 3;

export class PackageProgress {
  #rest = '';
  #phase = 0;
  #packages = 0;
  #lines = 0;
  #fraction = 0;
  doing = phases[0]?.[2] ?? '';

  /** The fraction of the whole, when it has grown. */
  hear(text: string): number | undefined {
    const before = this.#fraction;
    const lines = (this.#rest + text).split('\n');
    this.#rest = (lines.pop() ?? '').slice(-4096);
    for (const line of lines) this.#line(line);
    return this.#fraction > before ? this.#fraction : undefined;
  }

  #line(line: string): void {
    const phase = phases.findIndex(([heading]) => heading.test(line));
    if (phase !== -1) {
      this.#phase = phase;
      this.#packages = 0;
      this.#lines = 0;
      this.doing = phases[phase]?.[2] ?? this.doing;
    }
    const newly = /(\d+) newly installed/.exec(line)?.[1];
    if (newly !== undefined) this.#packages = Number(newly);
    if (/^(Get:\d|Unpacking |Setting up )/.test(line)) this.#lines += 1;
    const start = phases[this.#phase]?.[1] ?? 0;
    const end = phases[this.#phase + 1]?.[1] ?? 1;
    const within = this.#packages === 0 ? 0 : this.#lines / (this.#packages * LINES_PER_PACKAGE);
    this.#fraction = Math.max(this.#fraction, start + (end - start) * Math.min(1, within));
  }
}
