/**
 * One job after another, in order of arrival. The owner of a mailbox changes its state only from inside a job, so no
 * lock is needed and nobody ever sees half a change. `front` is for what cannot wait its turn, as the news of an end.
 */
type Job = () => Promise<void>;

export class Mailbox {
  #jobs: Job[] = [];
  #draining = false;
  #idle: (() => void)[] = [];

  /** Number of jobs that wait, the running one not counted. */
  get waiting(): number {
    return this.#jobs.length;
  }

  get busy(): boolean {
    return this.#draining;
  }

  /** Runs `job` when its turn comes. The promise is the job's own. */
  post<T>(job: () => Promise<T>, options: { readonly front?: boolean } = {}): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const run: Job = async () => {
        try {
          resolve(await job());
        } catch (error) {
          reject(error);
        }
      };
      if (options.front) this.#jobs.unshift(run);
      else this.#jobs.push(run);
      if (!this.#draining) void this.#drain();
    });
  }

  /** Resolves when nothing runs and nothing waits. */
  idle(): Promise<void> {
    return this.#draining ? new Promise((resolve) => this.#idle.push(resolve)) : Promise.resolve();
  }

  async #drain(): Promise<void> {
    this.#draining = true;
    for (let job = this.#jobs.shift(); job; job = this.#jobs.shift()) await job();
    this.#draining = false;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}
