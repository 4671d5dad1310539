// What this package says of itself.

import { readFileSync } from 'node:fs';

export function readPackage(): { readonly version: string; readonly engines: { readonly node: string } } {
  return JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
}
