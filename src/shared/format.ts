// How numbers are put into words, and chosen values into options.

/** Rounded, with commas: 12,345. */
export function integer(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

export function percent(fraction: number, digits = 2): string {
  return `${(fraction * 100).toFixed(digits)} %`;
}

/** Rounded up: for what is needed. */
export function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 1_048_576)} MiB`;
}

/** Rounded up, of a million bytes each: as files to download are told, and disks. */
export function megabytes(bytes: number): string {
  return `${integer(Math.ceil(bytes / 1e6))} MB`;
}

export function plural(count: number, noun: string, nouns = `${noun}s`): string {
  return `${integer(count)} ${count === 1 ? noun : nouns}`;
}

/** `maxSteps` is the flag `--max-steps`. */
export function flagOf(setting: string): string {
  return setting.replaceAll(/[A-Z]/g, letter => `-${letter.toLowerCase()}`);
}

type Defined<T> = { [Key in keyof T]?: Exclude<T[Key], undefined> };

export function withoutUndefined<T extends object>(values: T): Defined<T> {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- fromEntries loses the key types
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>;
}
