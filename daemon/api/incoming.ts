/** What came from a client, and what request it is. */
import { RoostError } from '../../protocol/errors.ts';
import { type ParsedRequest, parseRequest } from '../../protocol/wire.ts';

/** What a client sent, which is understood in the turn in which it is served. */
export type Incoming =
  | { readonly kind: 'value'; readonly value: unknown }
  | { readonly kind: 'text'; readonly text: Buffer }
  | { readonly kind: 'garbage'; readonly message: string };

const garbage = (message: string): ParsedRequest => ({
  kind: 'refused',
  id: undefined,
  error: new RoostError('InvalidArgument', `Not a JSON value: ${message}`, {
    hint: 'Send one JSON value after another.',
  }),
});

const readText = (text: Buffer): ParsedRequest => {
  try {
    return parseRequest(JSON.parse(text.toString('utf8')));
  } catch (error) {
    return garbage(error instanceof Error ? error.message : 'unreadable');
  }
};

export const readIncoming = (incoming: Incoming): ParsedRequest => {
  switch (incoming.kind) {
    case 'value':
      return parseRequest(incoming.value);
    case 'text':
      return readText(incoming.text);
    case 'garbage':
      return garbage(incoming.message);
  }
};
