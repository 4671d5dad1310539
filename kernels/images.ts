// Bytes of images to normalized floats.

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
