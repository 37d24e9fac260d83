/** What a session of bytes writes, for programs that have no terminal to show it on. */
import type { Socket } from 'node:net';
import { ChannelFrameReader } from '../lib/channel-frames.ts';
import { MAX_SESSION_PAYLOAD_BYTES, type SessionEnd, sessionChannels } from '../protocol/byte-session.ts';

/** Both outputs as they come. Returns the end, undefined where the connection ended without one; leaving it closes that. */
export async function* sessionOutput(socket: Socket): AsyncGenerator<Buffer, SessionEnd | undefined> {
  const reader = new ChannelFrameReader(MAX_SESSION_PAYLOAD_BYTES);
  for await (const chunk of socket)
    for (const { channel, payload } of reader.push(chunk as Buffer)) {
      if (channel === sessionChannels.end) return JSON.parse(payload.toString()) as SessionEnd;
      yield payload;
    }
  return undefined;
}
