// PNG files of every kind, written chunk by chunk as the specification says (ISO/IEC 15948).

import { deflateSync } from 'node:zlib';

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

export function chunk(type: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const frame = Buffer.alloc(8);
  frame.writeUInt32BE(data.length, 0);
  frame.writeUInt32BE(crc32(body), 4);
  return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
}

export const colorTypes = { gray: 0, rgb: 2, palette: 3, grayAlpha: 4, rgba: 6 } as const;
const channelsOf = { gray: 1, rgb: 3, palette: 1, grayAlpha: 2, rgba: 4 } as const;

export interface PngOptions {
  readonly width: number;
  readonly height: number;
  readonly color?: keyof typeof colorTypes;
  readonly depth?: 1 | 2 | 4 | 8 | 16;
  readonly isInterlaced?: boolean;
  /** One number for each channel of each pixel, row by row. */
  readonly samples: ArrayLike<number>;
  readonly palette?: readonly number[];
  readonly transparency?: readonly number[];
  /** What is said of the size, if it is not true; and in the place of the packed data. */
  readonly saidSize?: readonly [number, number];
  readonly packed?: Uint8Array;
}

/** First column and row of each pass of Adam7, and the steps to the next. */
const passes = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

export function pngFile(options: PngOptions): Buffer {
  const { width, height, color = 'gray', depth = 8, isInterlaced = false, samples } = options;
  const channels = channelsOf[color];
  const rows: Buffer[] = [];
  for (const [left, top, stepX, stepY] of isInterlaced ? passes : ([[0, 0, 1, 1]] as const)) {
    if (left >= width) continue;
    for (let y = top; y < height; y += stepY) {
      const row: number[] = [];
      for (let x = left; x < width; x += stepX) {
        for (let c = 0; c < channels; c++) row.push(samples[(y * width + x) * channels + c]);
      }
      rows.push(packRow(row, depth));
    }
  }
  const [saidWidth, saidHeight] = options.saidSize ?? [width, height];
  const header = Buffer.alloc(13);
  header.writeUInt32BE(saidWidth, 0);
  header.writeUInt32BE(saidHeight, 4);
  header.set([depth, colorTypes[color], 0, 0, isInterlaced ? 1 : 0], 8);
  const packed = options.packed ?? deflateSync(Buffer.concat(rows));
  const half = packed.length >> 1;
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', header),
    ...(options.palette ? [chunk('PLTE', Uint8Array.from(options.palette))] : []),
    ...(options.transparency ? [chunk('tRNS', Uint8Array.from(options.transparency))] : []),
    chunk('IDAT', packed.subarray(0, half)),
    chunk('IDAT', packed.subarray(half)),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

/** Filter type none, then the samples, most significant bits first. */
function packRow(row: readonly number[], depth: number): Buffer {
  const bytes = Buffer.alloc(1 + Math.ceil((row.length * depth) / 8));
  for (const [i, sample] of row.entries()) {
    if (depth === 16) bytes.writeUInt16BE(sample, 1 + 2 * i);
    else bytes[1 + ((i * depth) >> 3)] |= sample << (8 - depth - ((i * depth) & 7));
  }
  return bytes;
}
