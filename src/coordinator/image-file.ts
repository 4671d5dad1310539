// Image files: PNG and JPEG of any kind, as gray values. Whatever is wrong with one is a coded error.

import { readFileSync, statSync } from 'node:fs';
import { inflateSync } from 'node:zlib';
import { LockstepError, messageOf } from '../shared/errors.js';
import type { GrayImage } from './fit-image.js';

/** Four bytes a pixel, not multiplied by alpha. */
interface RgbaImage {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** Larger ones are taken for a mistake, or for a file that is made to fill the memory. */
const MOST_PIXELS = 50_000_000;
const MOST_FILE_BYTES = 268_435_456;
const MOST_JPEG_MIB = 1536;

export interface ImageFile extends GrayImage {
  /** The camera was held another way than the pixels lie, and they were turned as the file says. */
  readonly isTurned: boolean;
}

/**
 * The gray values of a PNG or JPEG file; what is transparent shows white.
 * @throws LOCKSTEP_IMAGE_MISSING, LOCKSTEP_IMAGE_FORMAT
 */
export async function readImage(path: string): Promise<ImageFile> {
  const file = readFile(path);
  const kind = kindOf(file);
  if (kind !== 'PNG' && kind !== 'JPEG') {
    throw formatError(path, `is ${kind ?? 'no image'}: a PNG or a JPEG is needed`);
  }
  try {
    if (kind === 'PNG') {
      checkPng(file);
      const { PNG } = await import('pngjs');
      return { ...grayOf(PNG.sync.read(file)), isTurned: false };
    }
    const { decode } = (await import('jpeg-js')).default;
    const image: RgbaImage & { exifBuffer?: Uint8Array } = decode(file, {
      useTArray: true,
      tolerantDecoding: false,
      maxResolutionInMP: MOST_PIXELS / 1_000_000,
      maxMemoryUsageInMB: MOST_JPEG_MIB,
    });
    return turn(grayOf(image), orientationOf(image.exifBuffer));
  } catch (cause) {
    throw formatError(path, `cannot be read as a ${kind}: ${messageOf(cause)}`, cause);
  }
}

function formatError(path: string, what: string, cause?: unknown): LockstepError {
  return new LockstepError('LOCKSTEP_IMAGE_FORMAT', `${path} ${what}.`, { cause });
}

function readFile(path: string): Buffer {
  const missing = (why: string, cause?: unknown): LockstepError =>
    new LockstepError('LOCKSTEP_IMAGE_MISSING', `Cannot read the image ${path}: ${why}.`, { cause });
  try {
    const stat = statSync(path);
    if (!stat.isFile()) throw missing('it is no file');
    if (stat.size === 0) throw formatError(path, 'is empty');
    if (stat.size > MOST_FILE_BYTES)
      throw formatError(path, `has ${stat.size} bytes, too many for a picture`);
    return readFileSync(path);
  } catch (error) {
    throw error instanceof LockstepError ? error : missing(messageOf(error), error);
  }
}

/** By the bytes that files of a kind begin with, as hexadecimal digits; what counts for nothing is a dot. */
const kinds: readonly (readonly [string, RegExp])[] = [
  ['PNG', /^89504e470d0a1a0a/],
  ['JPEG', /^ffd8ff/],
  ['a GIF', /^47494638/],
  ['a WebP', /^52494646.{8}57454250/],
  ['a BMP', /^424d/],
  ['a TIFF', /^(49492a00|4d4d002a)/],
  ['an HEIC or AVIF', /^.{8}66747970/],
  ['an SVG', /^3c(3f786d6c|737667)/],
  ['a PDF', /^25504446/],
];

function kindOf(file: Buffer): string | undefined {
  const head = file.toString('hex', 0, 16);
  return kinds.find(([, pattern]) => pattern.test(head))?.[0];
}

/** Of each pass of an interlaced PNG: first column and row, and the steps to the next. */
const passes = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;
/** By the color type. */
const channelsOf: Record<number, number> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
/** What may lie behind the pixels: some programs write a little too much. */
const EXCESS_BYTES = 65_536;

/** What the decoder does not look at: the size, before it takes memory, and how much the data unpack to. */
function checkPng(file: Buffer): void {
  if (file.length < 33 || file.toString('latin1', 12, 16) !== 'IHDR')
    throw new Error('its header is cut off');
  const [width, height] = [file.readUInt32BE(16), file.readUInt32BE(20)];
  if (width === 0 || height === 0 || width * height > MOST_PIXELS) {
    throw new Error(`its header says ${width} x ${height} pixels, and 1 to ${MOST_PIXELS} are possible`);
  }
  const data: Buffer[] = [];
  for (let at = 8; at + 8 <= file.length;) {
    const length = file.readUInt32BE(at);
    if (file.toString('latin1', at + 4, at + 8) === 'IDAT') data.push(file.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  const bitsPerPixel = file[24] * (channelsOf[file[25]] ?? 0);
  const isInterlaced = file[28] !== 0;
  let expected = 0;
  for (const [left, top, stepX, stepY] of isInterlaced ? passes : ([[0, 0, 1, 1]] as const)) {
    const [columns, rows] = [Math.ceil((width - left) / stepX), Math.ceil((height - top) / stepY)];
    if (columns > 0 && rows > 0) expected += rows * (1 + Math.ceil((columns * bitsPerPixel) / 8));
  }
  const { length } = inflateSync(Buffer.concat(data), { maxOutputLength: expected + EXCESS_BYTES });
  if (length < expected) throw new Error(`its pixels have ${length} bytes, expected ${expected}`);
}

/** Luma of ITU-R BT.601, in integers: equal red, green and blue give themselves. */
function grayOf({ width, height, data }: RgbaImage): GrayImage {
  const pixels = new Uint8Array(width * height);
  for (let i = 0, at = 0; i < pixels.length; i++, at += 4) {
    const gray = Math.floor((299 * data[at] + 587 * data[at + 1] + 114 * data[at + 2] + 500) / 1000);
    const alpha = data[at + 3];
    pixels[i] = Math.round((gray * alpha + 255 * (255 - alpha)) / 255);
  }
  return { width, height, pixels };
}

/** EXIF 2.32, tag 0x112 of the first directory: 1 to 8; 1, as it lies, where nothing sensible is said. */
function orientationOf(exif: Uint8Array | undefined): number {
  if (exif === undefined) return 1;
  const at = exif.findIndex((byte, i) => byte === exif[i + 1] && (byte === 0x49 || byte === 0x4d));
  if (at < 0) return 1;
  const tiff = new DataView(exif.buffer, exif.byteOffset + at, exif.length - at);
  const isLittle = tiff.getUint8(0) === 0x49;
  try {
    const directory = tiff.getUint32(4, isLittle);
    for (let entry = 0; entry < tiff.getUint16(directory, isLittle); entry++) {
      const entryAt = directory + 2 + 12 * entry;
      if (tiff.getUint16(entryAt, isLittle) !== 0x112) continue;
      const orientation = tiff.getUint16(entryAt + 8, isLittle);
      return orientation >= 1 && orientation <= 8 ? orientation : 1;
    }
  } catch {
    // A directory that is cut off says nothing about the picture.
  }
  return 1;
}

/** By orientation, where the pixel at (x, y) of the turned image lies; right and bottom are the last column and row. */
const sources: Record<number, (x: number, y: number, right: number, bottom: number) => [number, number]> = {
  1: (x, y) => [x, y],
  2: (x, y, right) => [right - x, y],
  3: (x, y, right, bottom) => [right - x, bottom - y],
  4: (x, y, _, bottom) => [x, bottom - y],
  5: (x, y) => [y, x],
  6: (x, y, _, bottom) => [y, bottom - x],
  7: (x, y, right, bottom) => [right - y, bottom - x],
  8: (x, y, right) => [right - y, x],
};

function turn(image: GrayImage, orientation: number): ImageFile {
  if (orientation === 1) return { ...image, isTurned: false };
  const { width, height, pixels } = image;
  const [turnedWidth, turnedHeight] = orientation >= 5 ? [height, width] : [width, height];
  const turned = Uint8Array.from({ length: pixels.length }, (_, i) => {
    const [x, y] = sources[orientation](i % turnedWidth, Math.floor(i / turnedWidth), width - 1, height - 1);
    return pixels[y * width + x];
  });
  return { width: turnedWidth, height: turnedHeight, pixels: turned, isTurned: true };
}
