// How the coordinator lets agents in: options of `train` that decide no bits and are no part of the run, so that they
// are given again with each resume.

import { isIPv6 } from 'node:net';
import { resolve } from 'node:path';
import * as v from 'valibot';
import { durationForm, parseDuration } from './duration.js';
import { LockstepError } from './errors.js';
import { flagOf } from './format.js';
import { formatAddress } from './handshake.js';
import { parseSettings, path, wholeNumber } from './settings.js';

export const LOOPBACK = '127.0.0.1';

const listenForm = "a text such as '7077' (on loopback), '0.0.0.0:7077' or '[::]:7077'";
const hostForm = 'the name or the address of a host, without a port';
const share = 'a number from 0 to 1';

/** By the names of the flags. */
export const listenSettingsSchema = v.strictObject({
  /** PORT, HOST:PORT or [IPv6]:PORT; a port alone is on loopback, port 0 is any that is free. */
  listen: v.optional(
    v.pipe(
      v.string(listenForm),
      v.check(text => parseListen(text) !== undefined, listenForm),
    ),
  ),
  /** The host by which agents reach the coordinator. */
  advertise: v.optional(
    v.pipe(
      v.string(hostForm),
      v.regex(/^[\w.:-]+$/, hostForm),
      v.check(text => isIPv6(text) || (!text.includes(':') && URL.canParse(`ws://${text}`)), hostForm),
    ),
  ),
  /** Remote nodes that must be there before the first step. */
  minNodes: v.optional(wholeNumber(0, 1024)),
  /** How long to wait while nobody is there to compute; without end by default. */
  patience: v.optional(
    v.pipe(
      v.string(durationForm),
      v.check(text => parseDuration(text) !== undefined, durationForm),
    ),
  ),
  /** Where the run's key is kept; by default in the user's state folder. */
  keyFile: v.optional(path),
  /** Where the join line is written to, instead of being told. */
  joinFile: v.optional(path),
  /** Without encryption. */
  insecure: v.optional(v.boolean('true or false')),
  /** The share of leases that two nodes compute. */
  audit: v.optional(v.pipe(v.number(share), v.minValue(0, share), v.maxValue(1, share))),
});

export type ListenSettings = v.InferOutput<typeof listenSettingsSchema>;

/** Settings of a coordinator that listens. */
export interface Listening {
  readonly host: string;
  readonly port: number;
  readonly advertise: string | undefined;
  readonly minNodes: number;
  readonly patienceMs: number;
  readonly keyFile: string | undefined;
  readonly joinFile: string | undefined;
  readonly isInsecure: boolean;
  /** For processes of its own: nobody is told how to join, and no key is kept. */
  readonly isPrivate: boolean;
  readonly audit: number;
}

/**
 * Undefined where the coordinator is not to listen.
 * @throws LOCKSTEP_BAD_SETTING naming the setting
 */
export function resolveListening(chosen: ListenSettings): Listening | undefined {
  const { listen, patience, ...rest } = parseSettings(listenSettingsSchema, chosen);
  const address = listen === undefined ? undefined : parseListen(listen);
  if (!address) {
    const others = Object.entries({ patience, ...rest }).filter(([, value]) => value !== undefined);
    if (others.length === 0) return undefined;
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      `Setting ${others[0][0]} is of remote nodes, and nobody listens for them: set listen as well.`,
    );
  }
  const { advertise, minNodes = 0, keyFile, joinFile, insecure = false, audit = 0.001 } = rest;
  if (joinFile !== undefined && keyFile !== undefined && resolve(joinFile) === resolve(keyFile)) {
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      `Settings joinFile and keyFile are the same file, ${joinFile}: the one would replace the other.`,
    );
  }
  const patienceMs = patience === undefined ? Infinity : parseDuration(patience)!;
  return {
    ...address,
    advertise,
    minNodes,
    patienceMs,
    keyFile,
    joinFile,
    isInsecure: insecure,
    isPrivate: false,
    audit,
  };
}

/** For processes of the coordinator's own where nobody else is listened for. */
export function privateListening(): Listening {
  return { ...resolveListening({ listen: '0' })!, isPrivate: true, audit: 0 };
}

/** Undefined if the text is neither a port nor an address with one. */
export function parseListen(text: string): { readonly host: string; readonly port: number } | undefined {
  const [, inner, name, digits] = /^(?:(?:\[([\dA-Fa-f:.]+)\]|([^[\]:\s/]+)):)?(\d{1,5})$/.exec(text) ?? [];
  if (digits === undefined || Number(digits) > 65_535) return undefined;
  return { host: inner ?? name ?? LOOPBACK, port: Number(digits) };
}

/** The flags that have a coordinator listen as before, at the port that it had. */
export function listenFlags(chosen: ListenSettings, { host }: Listening, port: number): string[] {
  const again = { ...chosen, listen: formatAddress(host, port) };
  return Object.entries(again).flatMap(([name, value]) => {
    if (value === undefined || value === false) return [];
    return value === true ? [`--${flagOf(name)}`] : [`--${flagOf(name)}`, String(value)];
  });
}

/** Whether only this machine reaches it. */
export function isLoopback(host: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|::1)$/.test(host);
}

/** Every address that the machine has. */
export function isWildcard(host: string): boolean {
  return /^(0\.0\.0\.0|[0:]*:[0:]*)$/.test(host);
}

/** An address of a machine, as `os.networkInterfaces` gives it. */
export interface InterfaceAddress {
  readonly address: string;
  readonly family: string;
  readonly internal: boolean;
}

/**
 * The host of the join line: what was advertised, or listened on, or the machine's first outside address, an IPv4 one if
 * it has any, of those that are listened on. Undefined where it has none.
 */
export function outsideHost(
  { host, advertise }: Pick<Listening, 'host' | 'advertise'>,
  addresses: readonly InterfaceAddress[],
): string | undefined {
  if (advertise !== undefined) return advertise;
  if (!isWildcard(host)) return host;
  // An address of the link alone (fe80::/10) means nothing without the name of an interface of the other machine.
  const outside = addresses.filter(({ address, internal }) => !internal && !/^fe[89ab]/i.test(address));
  const first = (family: string) => outside.find(address => address.family === family)?.address;
  return first('IPv4') ?? (host.includes(':') ? first('IPv6') : undefined);
}
