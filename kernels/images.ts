// Bytes of images to floats, and to lists of live pixels.

import { TERM_BYTES } from './vector';

/**
 * x[s][i] = f32(images[positions[s]][i]) * scale - shift, each operation rounded.
 * images: u8 [all][size]; positions: u32 [samples]; x: f32 [samples][size].
 */
export function unpackImages(
  images: usize,
  positions: usize,
  samples: i32,
  size: i32,
  x: usize,
  scale: f32,
  shift: f32,
): void {
  const scales = f32x4.splat(scale);
  const shifts = f32x4.splat(shift);
  for (let s = 0; s < samples; s++) {
    let from = images + usize(load<u32>(positions + (usize(s) << 2))) * usize(size);
    let i = 0;
    for (; i + 8 <= size; i += 8) {
      const words = v128.load_ext<u8>(from);
      const low = f32x4.convert_i32x4_u(i32x4.extend_low_i16x8_u(words));
      const high = f32x4.convert_i32x4_u(i32x4.extend_high_i16x8_u(words));
      v128.store(x, f32x4.sub(f32x4.mul(low, scales), shifts));
      v128.store(x, f32x4.sub(f32x4.mul(high, scales), shifts), 16);
      from += 8;
      x += 32;
    }
    for (; i < size; i++) {
      store<f32>(x, f32(load<u8>(from)) * scale - shift);
      from += 1;
      x += 4;
    }
  }
}

/**
 * For each sample the terms (i * offsetStep, f32(image[i]) * scale) of the pixels that are not zero, i ascending.
 * The lists lie behind each other from `list` on; ends: u32 [samples], the address behind each.
 * Sixteen pixels at once give a bit mask of the live ones, and its bits are walked.
 */
export function listPixels(
  images: usize,
  positions: usize,
  samples: i32,
  size: i32,
  scale: f32,
  offsetStep: i32,
  list: usize,
  ends: usize,
): void {
  const zero = i8x16.splat(0);
  let end = list;
  for (let s = 0; s < samples; s++) {
    const image = images + usize(load<u32>(positions + (usize(s) << 2))) * usize(size);
    let i = 0;
    for (; i + 16 <= size; i += 16) {
      const live = i8x16.bitmask(i8x16.ne(v128.load(image + usize(i)), zero));
      if (live) end = listBits(live, image + usize(i), scale, i * offsetStep, offsetStep, end);
    }
    for (; i < size; i++) {
      const pixel = load<u8>(image + usize(i));
      if (pixel) end = listBits(1, image + usize(i), scale, i * offsetStep, offsetStep, end);
    }
    store<u32>(ends + (usize(s) << 2), u32(end));
  }
}

function listBits(live: i32, pixels: usize, scale: f32, offset: i32, offsetStep: i32, end: usize): usize {
  do {
    const bit = ctz(live);
    store<u32>(end, offset + bit * offsetStep);
    store<f32>(end, f32(load<u8>(pixels + usize(bit))) * scale, 4);
    end += TERM_BYTES;
    live &= live - 1;
  } while (live);
  return end;
}
