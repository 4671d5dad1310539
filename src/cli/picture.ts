// Images as text: half blocks, two rows of pixels in a line, each pixel ink or none.

/** By upper and lower pixel. */
const blocks = [
  [' ', '▄'],
  ['▀', '█'],
] as const;

/**
 * An image of gray bytes, row by row, as lines of equal width. Wider than `maxColumns`, it is shrunk by a whole factor,
 * squares of pixels to their mean. Ink is what is brighter than halfway between the darkest and the brightest, so faint
 * images show too.
 */
export function drawImage(bytes: Uint8Array, width: number, height: number, maxColumns: number): string {
  const factor = Math.ceil(width / Math.max(1, maxColumns));
  const columns = Math.ceil(width / factor);
  const rows = Math.ceil(height / factor);
  const grays = Float64Array.from({ length: columns * rows }, (_, i) =>
    meanGray(bytes, width, height, (i % columns) * factor, Math.floor(i / columns) * factor, factor),
  );
  const darkest = grays.reduce((least, gray) => Math.min(least, gray), Infinity);
  const brightest = grays.reduce((most, gray) => Math.max(most, gray), -Infinity);
  const ink = (row: number, column: number): 0 | 1 =>
    row < rows && grays[row * columns + column] > (darkest + brightest) / 2 ? 1 : 0;
  const lines = Array.from({ length: Math.ceil(rows / 2) }, (_, line) =>
    Array.from(
      { length: columns },
      (__, column) => blocks[ink(2 * line, column)][ink(2 * line + 1, column)],
    ).join(''),
  );
  return lines.join('\n');
}

/** Of the square of `side` pixels at (x, y), as far as it lies in the image. */
function meanGray(
  bytes: Uint8Array,
  width: number,
  height: number,
  x: number,
  y: number,
  side: number,
): number {
  const [right, bottom] = [Math.min(x + side, width), Math.min(y + side, height)];
  let sum = 0;
  for (let row = y; row < bottom; row++)
    for (let column = x; column < right; column++) sum += bytes[row * width + column];
  return sum / ((right - x) * (bottom - y));
}
