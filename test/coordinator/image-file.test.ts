// Image files: every kind of PNG and JPEG gives its gray values, everything else a coded error.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { deflateSync } from 'node:zlib';
import jpeg from 'jpeg-js';
import { readImage } from '#dist/coordinator/image-file.js';
import { LockstepError } from '#dist/shared/errors.js';
import { pngFile, type PngOptions } from '../support/png.js';
import { randomTest } from '../support/random.js';

const dir = mkdtempSync(join(tmpdir(), 'lockstep-image-'));
after(() => rmSync(dir, { recursive: true }));
let files = 0;

function fileOf(bytes: Uint8Array): string {
  const path = join(dir, `image-${files++}`);
  writeFileSync(path, bytes);
  return path;
}

function read(bytes: Uint8Array) {
  return readImage(fileOf(bytes));
}

function isFormatError(error: unknown): boolean {
  return error instanceof LockstepError && error.code === 'LOCKSTEP_IMAGE_FORMAT';
}

const width = 13;
const height = 9;
/** All kinds below can show these exactly: black, white and two grays. */
const grays = Array.from({ length: width * height }, (_, i) => ((i * i + (i >> 2)) % 4) * 85);
const paletteOfFour = [0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255];
const indexes = grays.map(gray => gray / 85);

const kinds: Record<string, Omit<PngOptions, 'width' | 'height'>> = {
  '8 bits': { samples: grays },
  '16 bits': { samples: grays.map(gray => gray * 257), depth: 16 },
  '4 bits': { samples: grays.map(gray => gray / 17), depth: 4 },
  '2 bits': { samples: indexes, depth: 2 },
  'red, green and blue': { samples: grays.flatMap(gray => [gray, gray, gray]), color: 'rgb' },
  'colors of 16 bits': {
    samples: grays.flatMap(gray => [gray * 257, gray * 257, gray * 257]),
    color: 'rgb',
    depth: 16,
  },
  'black that is more or less opaque': {
    samples: grays.flatMap(gray => [0, 255 - gray]),
    color: 'grayAlpha',
  },
  'colors with alpha': {
    samples: grays.flatMap(gray => (gray === 255 ? [9, 99, 200, 0] : [gray, gray, gray, 255])),
    color: 'rgba',
  },
  'a palette of 8 bits': { samples: indexes, color: 'palette', palette: paletteOfFour },
  'a palette of 4 bits': { samples: indexes, color: 'palette', palette: paletteOfFour, depth: 4 },
  'a palette of 2 bits': { samples: indexes, color: 'palette', palette: paletteOfFour, depth: 2 },
  'a palette with transparency': {
    samples: indexes,
    color: 'palette',
    palette: [0, 0, 0, 85, 85, 85, 170, 170, 170, 1, 2, 3],
    transparency: [255, 255, 255, 0],
  },
  'one transparent gray value': {
    samples: grays.map(gray => (gray === 255 ? 7 : gray)),
    transparency: [0, 7],
  },
};

for (const [kind, options] of Object.entries(kinds)) {
  for (const isInterlaced of [false, true]) {
    test(`PNG: ${kind}${isInterlaced ? ', interlaced' : ''}`, async () => {
      const image = await read(pngFile({ width, height, isInterlaced, ...options }));
      assert.deepEqual([image.width, image.height, image.isTurned], [width, height, false]);
      assert.deepEqual([...image.pixels], grays);
    });
  }
}

test('PNG: one bit a pixel, and one pixel', async () => {
  const bits = grays.map(gray => (gray > 100 ? 1 : 0));
  const image = await read(pngFile({ width, height, samples: bits, depth: 1 }));
  assert.deepEqual(
    [...image.pixels],
    bits.map(bit => 255 * bit),
  );
  for (const isInterlaced of [false, true]) {
    const single = await read(pngFile({ width: 1, height: 1, samples: [77], isInterlaced }));
    assert.deepEqual(single, { width: 1, height: 1, pixels: Uint8Array.of(77), isTurned: false });
  }
});

test('colors give their luma', async () => {
  const samples = [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0];
  const { pixels } = await read(pngFile({ width: 4, height: 1, samples, color: 'rgb' }));
  assert.deepEqual([...pixels], [76, 150, 29, 226]);
});

test('a PNG that is cut off anywhere is an error', async () => {
  for (const isInterlaced of [false, true]) {
    const file = pngFile({ width, height, samples: grays, isInterlaced });
    for (let length = 0; length < file.length; length++) {
      await assert.rejects(
        read(file.subarray(0, length)),
        isFormatError,
        `${length} of ${file.length} bytes`,
      );
    }
  }
});

test('one wrong bit anywhere in a PNG is an error', async () => {
  const file = pngFile({ width, height, samples: grays });
  for (let at = 0; at < file.length; at++) {
    const bytes = Buffer.from(file);
    bytes[at] ^= 1 << (at % 8);
    await assert.rejects(read(bytes), isFormatError, `byte ${at} of ${file.length}`);
  }
});

test('a PNG with too few, too many or no data is an error', async () => {
  const whole = { width, height, samples: grays };
  for (const isInterlaced of [false, true]) {
    for (const bytes of [0, 1, 20, 125]) {
      const packed = deflateSync(Buffer.alloc(bytes));
      await assert.rejects(
        read(pngFile({ ...whole, isInterlaced, packed })),
        isFormatError,
        `${bytes} bytes`,
      );
    }
    // A bomb: 64 MiB in 64 KiB.
    const packed = deflateSync(Buffer.alloc(2 ** 26));
    await assert.rejects(read(pngFile({ ...whole, isInterlaced, packed })), isFormatError);
  }
});

test('sizes that no picture has are refused before they take memory', async () => {
  for (const saidSize of [
    [0, 5],
    [5, 0],
    [2 ** 31 - 1, 2 ** 31 - 1],
    [50_000_001, 1],
  ] as const) {
    await assert.rejects(read(pngFile({ width, height, samples: grays, saidSize })), {
      code: 'LOCKSTEP_IMAGE_FORMAT',
      message: /its header says \d+ x \d+ pixels, and 1 to 50000000 are possible\.$/,
    });
  }
});

/** Smooth and without symmetry. */
function jpegFile(columns = 32, rows = 16): Buffer {
  const data = Buffer.alloc(columns * rows * 4, 255);
  for (let i = 0; i < columns * rows; i++) {
    const gray = Math.floor((200 * (i % columns)) / columns + (50 * Math.floor(i / columns)) / rows);
    data.fill(gray, 4 * i, 4 * i + 3);
  }
  return jpeg.encode({ width: columns, height: rows, data }, 95).data;
}

function assertNear(pixels: Uint8Array, expected: (i: number) => number, tolerance: number): void {
  for (const [i, gray] of pixels.entries()) {
    assert.ok(Math.abs(gray - expected(i)) <= tolerance, `pixel ${i}: ${gray}, expected ${expected(i)}`);
  }
}

test('JPEG: baseline', async () => {
  const image = await read(jpegFile());
  assert.deepEqual([image.width, image.height, image.isTurned], [32, 16, false]);
  assertNear(image.pixels, i => (200 * (i % 32)) / 32 + (50 * Math.floor(i / 32)) / 16, 4);
});

/** By another program: 16 x 12 pixels, 10 x + 8 y. */
const progressive = Buffer.from(
  '/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDAsK' +
    'DAkKCgr/wgALCAAMABABAREA/8QAFQABAQAAAAAAAAAAAAAAAAAACAb/2gAIAQEAAAABPqgi1B//xAAWEAEBAQAAAAAAAAAAAAAAAAAGAAT/2gAI' +
    'AQEAAQUCJG4kbiWHNEsOa//EABYQAAMAAAAAAAAAAAAAAAAAAAACIv/aAAgBAQAGPwJYFgWBYP/EABYQAQEBAAAAAAAAAAAAAAAAAPEAEP/aAAgB' +
    'AQABPyE+P3Wv/9oACAEBAAAAEA//xAAZEAABBQAAAAAAAAAAAAAAAAAAAUGRodH/2gAIAQEAAT8QoRQiAumEBdMP/9k=',
  'base64',
);

test('JPEG: progressive, of one component', async () => {
  const image = await read(progressive);
  assert.deepEqual([image.width, image.height], [16, 12]);
  assertNear(image.pixels, i => 10 * (i % 16) + 8 * Math.floor(i / 16), 4);
});

/** An APP1 segment behind the first marker, with one entry: the orientation. */
function withOrientation(file: Buffer, orientation: number, isLittle: boolean): Buffer {
  const tiff = Buffer.alloc(26);
  tiff.write(isLittle ? 'II' : 'MM', 'latin1');
  const u16 = (value: number, at: number) =>
    isLittle ? tiff.writeUInt16LE(value, at) : tiff.writeUInt16BE(value, at);
  const u32 = (value: number, at: number) =>
    isLittle ? tiff.writeUInt32LE(value, at) : tiff.writeUInt32BE(value, at);
  u16(42, 2);
  u32(8, 4);
  u16(1, 8);
  u16(0x112, 10);
  u16(3, 12);
  u32(1, 14);
  u16(orientation, 18);
  const body = Buffer.concat([Buffer.from('Exif\0\0', 'latin1'), tiff]);
  const head = Buffer.of(0xff, 0xe1, 0, body.length + 2);
  return Buffer.concat([file.subarray(0, 2), head, body, file.subarray(2)]);
}

/** For each orientation, where the picture's upper left and upper right corners are in the stored pixels. */
const corners: Record<number, [[number, number], [number, number]]> = {
  1: [
    [0, 0],
    [31, 0],
  ],
  2: [
    [31, 0],
    [0, 0],
  ],
  3: [
    [31, 15],
    [0, 15],
  ],
  4: [
    [0, 15],
    [31, 15],
  ],
  5: [
    [0, 0],
    [0, 15],
  ],
  6: [
    [0, 15],
    [0, 0],
  ],
  7: [
    [31, 15],
    [31, 0],
  ],
  8: [
    [31, 0],
    [31, 15],
  ],
};

test('JPEG: turned as the camera was held', async () => {
  const file = jpegFile();
  const stored = await read(file);
  for (const [name, [upperLeft, upperRight]] of Object.entries(corners)) {
    const orientation = Number(name);
    for (const isLittle of [true, false]) {
      const image = await read(withOrientation(file, orientation, isLittle));
      assert.deepEqual([image.width, image.height], orientation >= 5 ? [16, 32] : [32, 16], name);
      assert.equal(image.isTurned, orientation !== 1);
      const at = ([x, y]: [number, number]): number => stored.pixels[y * 32 + x];
      assert.deepEqual(
        [image.pixels[0], image.pixels[image.width - 1]],
        [at(upperLeft), at(upperRight)],
        `orientation ${name}`,
      );
    }
  }
  for (const nonsense of [0, 9, 65_535]) {
    assert.equal((await read(withOrientation(file, nonsense, true))).isTurned, false);
  }
});

test('a JPEG that is cut off anywhere is an error', async () => {
  for (const file of [jpegFile(), progressive]) {
    for (let length = 0; length < file.length; length++) {
      await assert.rejects(
        read(file.subarray(0, length)),
        isFormatError,
        `${length} of ${file.length} bytes`,
      );
    }
  }
});

randomTest('whatever is wrong in a file, it is read or refused', async random => {
  const sources = [
    jpegFile(),
    progressive,
    withOrientation(jpegFile(), 6, true),
    pngFile({ width, height, samples: grays, isInterlaced: true }),
  ];
  for (let round = 0; round < 400; round++) {
    const bytes = Buffer.from(sources[round % sources.length]);
    for (let change = 0; change <= random.integer(4); change++) {
      bytes[random.integer(bytes.length)] = random.integer(256);
    }
    try {
      const image = await read(bytes);
      assert.equal(image.pixels.length, image.width * image.height);
    } catch (error) {
      assert.ok(isFormatError(error), String(error));
    }
  }
});

test('a JPEG that says to be huge is refused', async () => {
  const file = jpegFile();
  const frame = file.indexOf(Buffer.of(0xff, 0xc0));
  file.writeUInt16BE(65_535, frame + 5);
  file.writeUInt16BE(65_535, frame + 7);
  await assert.rejects(read(file), isFormatError);
});

const others: Record<string, [string, RegExp]> = {
  'a GIF': ['GIF89a\x01\0\x01\0', / is a GIF: a PNG or a JPEG is needed\.$/],
  'a WebP': ['RIFF\x24\0\0\0WEBPVP8 ', / is a WebP: /],
  'a BMP': ['BM\x46\0\0\0', / is a BMP: /],
  'a TIFF': ['II*\0\x08\0\0\0', / is a TIFF: /],
  'an HEIC': ['\0\0\0\x18ftypheic', / is an HEIC or AVIF: /],
  'an SVG': ['<svg xmlns="http://www.w3.org/2000/svg"/>', / is an SVG: /],
  text: ['seven', / is no image: /],
  nothing: ['', / is empty\.$/],
};

for (const [kind, [content, message]] of Object.entries(others)) {
  test(`${kind} is named and refused`, async () => {
    await assert.rejects(read(Buffer.from(content, 'latin1')), { code: 'LOCKSTEP_IMAGE_FORMAT', message });
  });
}

test('a file that is not there, and a folder, cannot be read', async () => {
  const code = 'LOCKSTEP_IMAGE_MISSING';
  await assert.rejects(readImage(join(dir, 'none.png')), { code, message: /none\.png: ENOENT/ });
  await assert.rejects(readImage(dir), { code, message: /it is no file\.$/ });
});
