/** A real terminal: a pty made by script(1) of util-linux. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** Runs a command line in a terminal and types into it when the expected text has appeared. */
export class Terminal {
  output = '';
  readonly #child;
  #check: () => void = () => undefined;

  constructor(commandLine: string) {
    this.#child = spawn('script', ['-qec', commandLine, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdout.on('data', (chunk: Buffer) => {
      this.output += chunk.toString();
      this.#check();
    });
  }

  async seen(text: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#check = () => {
        if (this.output.includes(text)) resolve();
      };
      this.#child.once('close', () => reject(new Error(`Ended without '${text}':\n${this.output}`)));
      this.#check();
    });
  }

  type(text: string): void {
    this.#child.stdin.write(text);
  }

  async ended(): Promise<void> {
    if (this.#child.exitCode === null) await once(this.#child, 'close');
    this.#child.stdin.destroy();
  }
}
