// From a picture to what a model was trained on: light ink on dark ground, of the model's size.
//
// MNIST's digits were cut to their ink, scaled with their aspect kept into 20 of the 28 pixels each way, and put with
// their center of mass into the center (LeCun et al., 1998). Pictures are treated in the same way; one that has the
// model's size is taken as it is, but for light ground.

import { LockstepError } from '../shared/errors.js';

export interface GrayImage {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array;
}

export interface FittedImage {
  readonly pixels: Uint8Array;
  /** It was dark on light. */
  readonly isInverted: boolean;
  /** Black and white were pulled apart. */
  readonly isStretched: boolean;
  /** What lies around the ink was left away, and the ink put into the center. */
  readonly isCropped: boolean;
  readonly isScaled: boolean;
}

type Size = Pick<GrayImage, 'width' | 'height'>;
type Bytes = Size & { readonly pixels: Uint8Array | Uint8ClampedArray };

/** A rectangle, with right and bottom just outside. */
interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

/** The part of the model's input that MNIST's digits fill, each way. */
const INK_PART = 20 / 28;
/** Of a side, before anything is looked at. */
const ENOUGH_PIXELS = 2048;
/** Of gray values: where ink and ground are closer together than the first, there is no ink, than the second, faint one. */
const LEAST_CONTRAST = 16;
const GOOD_CONTRAST = 200;
/** Shares of ground and ink that may stay between black and white. */
const DARK_GROUND = 0.95;
const FULL_INK = 0.75;

/**
 * The picture in the size of the model's input. `asIs`: scaled if it must be, and nothing else.
 * @throws LOCKSTEP_IMAGE_FORMAT if it shows nothing, and is not taken as it is
 */
export function fitImage(original: GrayImage, to: Size, asIs = false): FittedImage {
  const isScaled = original.width !== to.width || original.height !== to.height;
  const image = isScaled ? shrink(original) : original;
  const untouched = { isInverted: false, isStretched: false, isCropped: false, isScaled };
  if (asIs) return { ...untouched, pixels: isScaled ? fitWhole(image, to) : image.pixels };

  const { ink, isInverted } = separate(image);
  const counts = histogram(ink);
  const groundMost = thresholdOf(counts);
  const low = quantile(
    counts.map((count, gray) => (gray <= groundMost ? count : 0)),
    DARK_GROUND,
  );
  const high = quantile(
    counts.map((count, gray) => (gray > groundMost ? count : 0)),
    FULL_INK,
  );
  if (!(high - low >= LEAST_CONTRAST)) {
    throw new LockstepError(
      'LOCKSTEP_IMAGE_FORMAT',
      'The image shows nothing: all of it has about the same gray value. (What is transparent counts as white.)',
    );
  }
  if (!isScaled) {
    const pixels = isInverted ? image.pixels.map(gray => 255 - gray) : image.pixels;
    return { ...untouched, isInverted, pixels };
  }
  const box = inkBox(image, ink, groundMost);
  const isStretched = high - low < GOOD_CONTRAST;
  // A Uint8ClampedArray rounds, and keeps what is beyond 0 and 255 there.
  const pixels = isStretched ? Uint8ClampedArray.from(ink, gray => ((gray - low) * 255) / (high - low)) : ink;
  const scaled = fitInk({ ...image, pixels }, box, to);
  return { pixels: scaled, isInverted, isStretched, isCropped: true, isScaled };
}

/** Squares of pixels to their mean, so that neither side is longer than enough: photographs have more than is used. */
function shrink({ width, height, pixels }: GrayImage): GrayImage {
  const factor = Math.ceil(Math.max(width, height) / ENOUGH_PIXELS);
  if (factor === 1) return { width, height, pixels };
  const [columns, rows] = [Math.ceil(width / factor), Math.ceil(height / factor)];
  const sums = new Uint32Array(columns * rows);
  const counts = new Uint32Array(columns * rows);
  for (let y = 0, i = 0; y < height; y++) {
    const at = Math.floor(y / factor) * columns;
    for (let x = 0; x < width; x++, i++) {
      const to = at + Math.floor(x / factor);
      sums[to] += pixels[i];
      counts[to]++;
    }
  }
  return {
    width: columns,
    height: rows,
    pixels: new Uint8Array(sums.map((sum, i) => Math.round(sum / counts[i]))),
  };
}

/**
 * How far each pixel stands out from the ground. The ground is a plane, since light falls from one side: its slopes
 * come from the medians of opposite edges, its height from the median along all four. An edge may be full of ink, so
 * ground without the slopes is tried too: the least of all that stands out is right. Ink is what stands out more, the
 * darker or the lighter.
 */
function separate({ width, height, pixels }: GrayImage): { ink: Uint8ClampedArray; isInverted: boolean } {
  const row = (y: number): number[] => Array.from({ length: width }, (_, x) => pixels[y * width + x]);
  const column = (x: number): number[] => Array.from({ length: height }, (_, y) => pixels[y * width + x]);
  const [top, bottom, left, right] = [row(0), row(height - 1), column(0), column(width - 1)];
  const slopeX = width > 1 ? (median(right) - median(left)) / (width - 1) : 0;
  const slopeY = height > 1 ? (median(bottom) - median(top)) / (height - 1) : 0;
  let excess = new Float32Array();
  let least = Infinity;
  for (const x of new Set([0, slopeX])) {
    for (const y of new Set([0, slopeY])) {
      const level = median([
        ...top.map((gray, i) => gray - x * i),
        ...bottom.map((gray, i) => gray - x * i - y * (height - 1)),
        ...left.map((gray, i) => gray - y * i),
        ...right.map((gray, i) => gray - y * i - x * (width - 1)),
      ]);
      const tried = Float32Array.from(
        pixels,
        (gray, i) => gray - level - x * (i % width) - y * Math.floor(i / width),
      );
      const sum = tried.reduce((total, value) => total + Math.abs(value), 0);
      if (sum < least) [excess, least] = [tried, sum];
    }
  }
  const balance = excess.reduce((sum, value) => sum + value * Math.abs(value), 0);
  const isInverted = balance < 0;
  return { ink: Uint8ClampedArray.from(excess, value => (isInverted ? -value : value)), isInverted };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** The gray value up to which pixels belong to the darker of two groups: Otsu's method (1979); 0 if there is one. */
function thresholdOf(counts: readonly number[]): number {
  const pixels = counts.reduce((sum, count) => sum + count, 0);
  const total = counts.reduce((sum, count, gray) => sum + count * gray, 0);
  let best = 0;
  let most = 0;
  let below = 0;
  let sumBelow = 0;
  for (let gray = 0; gray < 255; gray++) {
    below += counts[gray];
    sumBelow += counts[gray] * gray;
    const above = pixels - below;
    if (below === 0 || above === 0) continue;
    const distance = sumBelow / below - (total - sumBelow) / above;
    const between = below * above * distance * distance;
    if (between > most) [best, most] = [gray, between];
  }
  return best;
}

function histogram(pixels: Uint8ClampedArray): number[] {
  const counts = Array.from({ length: 256 }, () => 0);
  for (const gray of pixels) counts[gray]++;
  return counts;
}

/** The least gray value that `share` of the counted pixels do not exceed; NaN if none are counted. */
function quantile(counts: readonly number[], share: number): number {
  const wanted = share * counts.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  const found = counts.findIndex(count => (seen += count) >= wanted && count > 0);
  return found < 0 ? NaN : found;
}

/** Around all pixels lighter than the ground. */
function inkBox({ width, height }: Size, ink: Uint8ClampedArray, groundMost: number): Box {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (ink[y * width + x] <= groundMost) continue;
      [left, top] = [Math.min(left, x), Math.min(top, y)];
      [right, bottom] = [Math.max(right, x + 1), Math.max(bottom, y + 1)];
    }
  }
  return { left, top, right, bottom };
}

/** The whole image, as large as it can be, in the middle. */
function fitWhole(image: GrayImage, to: Size): Uint8Array {
  const { width, height } = image;
  const scale = Math.min(to.width / width, to.height / height);
  const [left, top] = [(to.width - width * scale) / 2, (to.height - height * scale) / 2];
  return resample(image, { left: 0, top: 0, right: width, bottom: height }, to, scale, left, top);
}

/** The box in its part of the new image, its center of mass in the center as far as the box stays inside. */
function fitInk(image: Bytes, box: Box, to: Size): Uint8Array {
  const [width, height] = [box.right - box.left, box.bottom - box.top];
  const scale = Math.min((to.width * INK_PART) / width, (to.height * INK_PART) / height);
  const { x, y } = centerOfMass(image, box);
  const place = (extent: number, size: number, center: number): number =>
    // MNIST's centers are those of the pixel behind the middle.
    Math.max(0, Math.min(extent - size * scale, (extent + 1) / 2 - center * scale));
  return resample(image, box, to, scale, place(to.width, width, x), place(to.height, height, y));
}

/** In pixels from the corner of the box. */
function centerOfMass({ width, pixels }: Bytes, { left, top, right, bottom }: Box) {
  let [mass, x, y] = [0, 0, 0];
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) {
      const gray = pixels[row * width + column];
      mass += gray;
      x += gray * (column - left + 0.5);
      y += gray * (row - top + 0.5);
    }
  }
  return { x: x / mass, y: y / mass };
}

/** Draws the box, scaled, with its corner at (left, top) on black: each pixel is the mean over the area it covers. */
function resample(
  { width, pixels }: Bytes,
  box: Box,
  to: Size,
  scale: number,
  left: number,
  top: number,
): Uint8Array {
  const columns = Array.from({ length: to.width }, (_, x) => covered(x, left, scale, box.left, box.right));
  const rows = Array.from({ length: to.height }, (_, y) => covered(y, top, scale, box.top, box.bottom));
  return Uint8Array.from({ length: to.width * to.height }, (_, i) => {
    let sum = 0;
    for (const [row, rowShare] of rows[Math.floor(i / to.width)])
      for (const [column, columnShare] of columns[i % to.width])
        sum += pixels[row * width + column] * rowShare * columnShare;
    return Math.round(sum);
  });
}

/** Of one pixel of the new image along one axis: which old ones it covers, and by which share of itself each. */
function covered(at: number, corner: number, scale: number, first: number, end: number): [number, number][] {
  const from = Math.max(first, first + (at - corner) / scale);
  const to = Math.min(end, first + (at + 1 - corner) / scale);
  const found: [number, number][] = [];
  for (let old = Math.floor(from); old < to; old++) {
    found.push([old, (Math.min(old + 1, to) - Math.max(old, from)) * scale]);
  }
  return found;
}
