/** The transcripts of all guests: one writer each, from the first word of a run until its files are cleared away. */
import type { Log } from '../../lib/log.ts';
import type { GuestPlace, Transcript } from '../driver.ts';
import { transcriptPath } from './guest-files.ts';
import { TranscriptWriter } from './transcript.ts';

export class Transcripts {
  readonly #log: Log;
  /** By state directory. */
  readonly #writers = new Map<string, TranscriptWriter>();

  constructor(log: Log) {
    this.#log = log;
  }

  of(place: GuestPlace): TranscriptWriter {
    const before = this.#writers.get(place.stateDirectory);
    if (before) return before;
    const writer = this.#open(place);
    this.#writers.set(place.stateDirectory, writer);
    return writer;
  }

  read(place: GuestPlace, range: Parameters<TranscriptWriter['read']>[0]): Promise<Transcript> {
    // Of a guest that does not run nothing is to be written.
    return (this.#writers.get(place.stateDirectory) ?? this.#open(place)).read(range);
  }

  /** Writes the last of a run. */
  async close(place: GuestPlace): Promise<void> {
    const writer = this.#writers.get(place.stateDirectory);
    this.#writers.delete(place.stateDirectory);
    await writer?.close();
  }

  #open(place: GuestPlace): TranscriptWriter {
    return new TranscriptWriter(transcriptPath(place), this.#log.child({ guest: place.id }));
  }
}
