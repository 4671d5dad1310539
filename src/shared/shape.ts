// Shapes of images and activations.

/** Height, width, channels; a vector of n features is 1 x 1 x n. */
export interface Shape {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
}

export function sizeOf({ height, width, channels }: Shape): number {
  return height * width * channels;
}

export function formatShape(shape: Shape): string {
  return isVector(shape) ? `${shape.channels}` : `${shape.height} x ${shape.width} x ${shape.channels}`;
}

export function isVector({ height, width }: Shape): boolean {
  return height === 1 && width === 1;
}
