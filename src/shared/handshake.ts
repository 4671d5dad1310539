// What both sides of a new connection must agree on before the first frame. docs/security.md tells the whole exchange.
//
// With TLS the key is proved by the TLS handshake. Without it the coordinator answers a first request with a nonce, and
// the agent asks for the upgrade with a nonce of its own and an HMAC of both; the coordinator's HMAC comes back with its
// consent. Each HMAC names who made it, so that neither side can be given its own one back.

import { createHmac, timingSafeEqual } from 'node:crypto';
import { hex256, hex64 } from './hash.js';
import { PROTOCOL_VERSION } from './messages.js';

/** The WebSocket subprotocol. */
export const SUBPROTOCOL = `lockstep.${PROTOCOL_VERSION}`;

/** Of TLS, on both sides. A higher version would have no such cipher, and would take a certificate instead of the key. */
export const TLS_CIPHER = 'ECDHE-PSK-CHACHA20-POLY1305';
export const TLS_VERSION = 'TLSv1.2';

/** Of the requests and answers before the first frame. */
export const headers = {
  identity: 'lockstep-identity',
  nonce: 'lockstep-nonce',
  proof: 'lockstep-proof',
  /** Why the coordinator refuses. */
  refusal: 'lockstep-refusal',
} as const;

export const NONCE_BYTES = 32;
export const SECRET_BYTES = 32;

/** Who connects, and with which key: the identity of TLS-PSK, a header without TLS. */
export interface Identity {
  /** 16 hexadecimal digits. */
  readonly keyId: string;
  /** 16 hexadecimal digits. */
  readonly nodeId: string;
}

export function formatIdentity({ keyId, nodeId }: Identity): string {
  return `${keyId}.${nodeId}`;
}

export function parseIdentity(text: string): Identity | undefined {
  const [keyId, nodeId, ...more] = text.split('.');
  const isIdentity = more.length === 0 && hex64.test(keyId) && nodeId !== undefined && hex64.test(nodeId);
  return isIdentity ? { keyId, nodeId } : undefined;
}

export interface Exchange {
  /** 64 hexadecimal digits each. */
  readonly coordinatorNonce: string;
  readonly agentNonce: string;
  readonly identity: string;
}

export type Role = 'agent' | 'coordinator';

/** 64 hexadecimal digits: HMAC-SHA256. All parts have a fixed length, the subprotocol and the role end with a space. */
export function proofOf(secret: Uint8Array, role: Role, exchange: Exchange): string {
  const { coordinatorNonce, agentNonce, identity } = exchange;
  return createHmac('sha256', secret)
    .update(`${SUBPROTOCOL} ${role} ${coordinatorNonce} ${agentNonce} ${identity}`)
    .digest('hex');
}

/** Takes the same time wherever `given` differs. */
export function isProof(given: unknown, secret: Uint8Array, role: Role, exchange: Exchange): boolean {
  if (!isHex256(given)) return false;
  return timingSafeEqual(Buffer.from(given, 'hex'), Buffer.from(proofOf(secret, role, exchange), 'hex'));
}

/** Whether it is a nonce or a proof by its form. */
export function isHex256(given: unknown): given is string {
  return typeof given === 'string' && hex256.test(given);
}

/** `host:port`, an IPv6 address in brackets. */
export function formatAddress(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
