// Pictures as addresses that hold them: data: with a PNG.

import { PNG } from 'pngjs';
import type { Shape } from '../shared/shape.js';

/** `pixels`: height x width x channels bytes; of one channel gray, of three red, green and blue, of others the first. */
export function pictureAddress({ height, width, channels }: Shape, pixels: Uint8Array): string {
  const png = new PNG({ width, height });
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let color = 0; color < 3; color++) {
      png.data[pixel * 4 + color] = pixels[pixel * channels + (channels === 3 ? color : 0)];
    }
    png.data[pixel * 4 + 3] = 255;
  }
  return `data:image/png;base64,${PNG.sync.write(png, { colorType: 2 }).toString('base64')}`;
}
