/** Handlers of operations, images, networks, the host and the daemon. */
import { deadline } from '../../../lib/abort.ts';
import { RoostError } from '../../../protocol/errors.ts';
import type { OperationView } from '../../../protocol/operation.ts';
import type { Handlers } from '../call.ts';
import { afterName, pageOf } from '../page.ts';
import type { Services } from './services.ts';

type OperationCommands = 'query-operations' | 'query-operation' | 'operation-cancel' | 'operation-wait';
type ImageCommands =
  | 'image-import'
  | 'image-pull'
  | 'image-build'
  | 'image-delete'
  | 'image-prune'
  | 'image-alias-set'
  | 'image-alias-delete'
  | 'query-image'
  | 'query-images';
type NetworkCommands = 'network-create' | 'network-delete' | 'query-networks';
type HostCommands = 'query-host' | 'query-daemon' | 'query-pools' | 'host-shutdown-guests';

/** Operations in a page at most, however many a client would take: each has steps, and everybody waits meanwhile. */
const MAX_OPERATIONS = 200;

export const operationHandlers = ({ operations }: Services): Pick<Handlers, OperationCommands> => ({
  'query-operations': ({ ids, subject, states, limit, after }) => {
    const before = after === undefined ? undefined : Number(after);
    if (before !== undefined && !Number.isSafeInteger(before))
      throw new RoostError('InvalidArgument', `'${after}' is no place in the list of operations`, {
        hint: 'Give the `next` of the page before.',
      });
    const most = Math.min(limit ?? MAX_OPERATIONS, MAX_OPERATIONS);
    const records = operations.query({
      limit: most + 1,
      ...(ids === undefined ? {} : { ids }),
      ...(subject === undefined ? {} : { subject }),
      ...(states === undefined ? {} : { states }),
      ...(before === undefined ? {} : { before }),
    });
    function* views(): Generator<OperationView> {
      for (const record of records) yield operations.view(record);
    }
    const page = pageOf(views(), limit === undefined ? undefined : most);
    const last = records[page.items.length - 1];
    return { operations: page.items, ...(page.more && last ? { next: String(last.sequence) } : {}) };
  },
  'query-operation': ({ operation }) => operations.journal(operation),
  'operation-cancel': ({ operation }) => operations.cancel(operation),
  'operation-wait': async ({ operation, timeoutMs }, call) => {
    using limit = deadline(timeoutMs ?? Number.POSITIVE_INFINITY, call.signal);
    try {
      return operations.view(await operations.wait(operation, limit.signal));
    } catch (error) {
      if (!limit.signal.aborted || call.signal.aborted) throw error;
      throw new RoostError(
        'DeadlineExceeded',
        `Operation ${operation} has not ended within ${timeoutMs} ms; it goes on`,
        {
          data: { operation },
          hint: 'Wait again, or cancel it with operation-cancel.',
        },
      );
    }
  },
});

export const imageHandlers = ({
  images,
  imageBuilds,
  imagePulls,
}: Services): Pick<Handlers, ImageCommands> => ({
  'image-import': (args, call) => (args.kind === 'oci' ? imagePulls : images).import(args, call.actor),
  'image-pull': (args, call) => imagePulls.pull(args, call.actor),
  'image-build': (args, call) => imageBuilds.accept(args, call.actor, call.signal),
  'image-delete': (args, call) => images.delete(args, call.actor),
  'image-prune': (args, call) => images.prune(args, call.actor),
  'image-alias-set': (args, call) => images.aliases.set(args, call.actor),
  'image-alias-delete': (args, call) => images.aliases.delete(args, call.actor),
  'query-image': ({ image }) => imagePulls.show(image),
  'query-images': ({ names, limit, after }) => {
    const page = pageOf(images.views(names, after), limit);
    const last = page.items.at(-1);
    return { images: page.items, ...(page.more && last ? { next: images.placeOf(last) } : {}) };
  },
});

export const networkHandlers = ({ networks }: Services): Pick<Handlers, NetworkCommands> => ({
  'network-create': (args, call) => networks.create(args, call.actor),
  'network-delete': (args, call) => networks.delete(args, call.actor),
  'query-networks': ({ names, limit, after }) => {
    const page = pageOf(afterName(networks.views(names), after), limit);
    const last = page.items.at(-1);
    return { networks: page.items, ...(page.more && last ? { next: last.name } : {}) };
  },
});

export const hostHandlers = ({
  hostShutdown,
  describeHost,
  describeDaemon,
  describePools,
}: Services): Pick<Handlers, HostCommands> => ({
  'query-host': (_args, call) => describeHost(call.signal),
  'query-daemon': () => describeDaemon(),
  'host-shutdown-guests': (args, call) => hostShutdown.accept(args, call.actor),
  'query-pools': async () => ({ pools: await describePools() }),
});
