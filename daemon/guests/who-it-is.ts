/** Who a guest is to be: what it is told from inside, by our init or by its agent. Pure but for the look-ups. */
import type { GuestSetup } from '../../drivers/driver.ts';
import type { NetworkKind } from '../../protocol/network.ts';
import type { StoredProgram } from '../inventory/guest-table.ts';
import type { Guest } from './guest.ts';

/** QEMU's user-mode network (qemu(1), "-netdev user"): the guest's address there, and who answers. */
const userNetwork = { address: '10.0.2.15/24', gateway: '10.0.2.2', nameserver: '10.0.2.3' } as const;

export interface Place {
  readonly mac: string;
  readonly ipv4?: string | undefined;
  readonly kind: NetworkKind;
  readonly name: string;
  readonly subnet?: string | undefined;
  readonly gateway?: string | undefined;
}

const linkOf = ({ mac, ipv4, kind, subnet, gateway }: Place): GuestSetup['links'][number] => {
  if (kind === 'user') return { mac, addresses: [userNetwork.address], gateway: userNetwork.gateway };
  if (ipv4 === undefined || subnet === undefined) return { mac, addresses: [] };
  return {
    mac,
    addresses: [`${ipv4}/${subnet.slice(subnet.indexOf('/') + 1)}`],
    // Of the others no host passes on what goes elsewhere.
    ...(kind === 'nat' && gateway !== undefined ? { gateway } : {}),
  };
};

/** What each NIC is given. Of several the first has the way out. Pure. */
export const linksOf = (places: readonly Place[]): GuestSetup['links'] => {
  const links = places.map(linkOf);
  const wayOut = links.findIndex(({ gateway }) => gateway !== undefined);
  return links.map(({ gateway, ...link }, index) => ({
    ...link,
    ...(index === wayOut && gateway !== undefined ? { gateway } : {}),
  }));
};

export const machineIdOf = ({ id }: { readonly id: string }): string => id.replaceAll('-', '');

/** Pure. */
export const setupOf = (
  { id, name }: { readonly id: string; readonly name: string },
  program: StoredProgram,
  places: readonly Place[],
): GuestSetup => {
  const nameservers = places.flatMap(({ kind, gateway }) =>
    kind === 'user' ? [userNetwork.nameserver] : gateway === undefined ? [] : [gateway],
  );
  const own = places.find(({ ipv4 }) => ipv4 !== undefined)?.ipv4 ?? '127.0.1.1';
  const { argv, environment, workingDirectory, user, terminal, interactive } = program;
  return {
    hostname: name,
    machineId: machineIdOf({ id }),
    links: linksOf(places),
    resolver: {
      nameservers: [...new Set(nameservers)],
      search: places.filter(({ kind }) => kind !== 'user').map(({ name: network }) => network),
    },
    hosts: [`${own} ${name}`],
    program: {
      argv,
      environment: [...environment, ...(environment.some(isHostname) ? [] : [`HOSTNAME=${name}`])],
      ...(workingDirectory === undefined ? {} : { workingDirectory }),
      ...(user === undefined ? {} : { user }),
      ...(terminal === undefined ? {} : { terminal }),
      ...(interactive === undefined ? {} : { interactive }),
    },
  };
};

const isHostname = (variable: string): boolean => variable.startsWith('HOSTNAME=');

export const placesOf = ({ record, house }: Guest): readonly Place[] =>
  record.spec.nics.map(({ mac, ipv4, network }) => ({ ...house.networks.byId(network), mac, ipv4 }));

/** What a fork knows of itself while nobody has told it better; undefined for others, and once it is up. */
export const forkToSetUp = ({ status, record, house }: Guest): GuestSetup['fork'] => {
  const { forkOf } = record.spec;
  const { forked, renewed = status.process?.ready !== undefined } = status.applied ?? {};
  if (forked !== true || renewed || forkOf === undefined) return undefined;
  const template = house.inventory.guests.byId(forkOf);
  if (!template?.spec.template) return undefined;
  const { token, madeOf } = template.spec.template;
  const macs = madeOf?.macs ?? template.spec.nics.map(({ mac }) => mac);
  return { token, macs, runs: madeOf !== undefined, isItself: madeOf?.guest === record.id };
};

export const markRenewed = (guest: Guest): void => {
  const { applied } = guest.status;
  if (applied) guest.setStatus({ applied: { ...applied, renewed: true } });
};
