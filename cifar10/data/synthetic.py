"""Generates images of ten classes of shapes, to try programs without the data.

A class is a shape (disc, square, triangle, ring or cross) and a texture (plain
or striped). Position, size, both colors, background, stripes and noise are
random, so that the colors of single pixels do not determine the class.
"""

import numpy as np

SHAPES = ('disc', 'square', 'triangle', 'ring', 'cross')
TEXTURES = ('plain', 'striped')
CLASS_NAMES = tuple(
    f'{texture} {shape}' for shape in SHAPES for texture in TEXTURES)


def make(num_examples, seed, size=32):
  """Generates images, equally distributed over the classes, in random order.

  Args:
    num_examples: number of images.
    seed: int. Equal seeds give equal images.
    size: height and width, in pixels.

  Returns:
    images: uint8 [num_examples, size, size, 3] array.
    labels: uint8 [num_examples] array, indices of CLASS_NAMES.
  """
  rng = np.random.default_rng(seed)
  labels = rng.permutation(np.arange(num_examples) % len(CLASS_NAMES))

  def draw(low, high, *shape):
    return rng.uniform(low, high, (num_examples, *(shape or (1, 1)))).astype(
        np.float32)

  # Coordinates relative to the center of the shape, in units of its radius.
  radius = draw(0.22, 0.36) * size
  y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
  y = (y - draw(0.38, 0.62) * size) / radius
  x = (x - draw(0.38, 0.62) * size) / radius

  inside = np.select(
      list((labels // len(TEXTURES))[:, None, None] == np.arange(
          len(SHAPES))[:, None, None, None]),
      [x**2 + y**2 < 1,
       np.maximum(abs(x), abs(y)) < 0.85,
       (y < 0.8) & (y > 2 * abs(x) - 1),
       (x**2 + y**2 < 1) & (x**2 + y**2 > 0.3),
       (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1)])

  angle, phase = draw(0, np.pi), draw(0, 2 * np.pi)
  wave = np.cos(angle) * x + np.sin(angle) * y
  stripes = np.sin(wave * radius * draw(1.4, 1.8) + phase) > 0
  inside &= ~stripes | (labels % len(TEXTURES) == 0)[:, None, None]

  # Each channel of the shape is lighter than a dark background, and darker than
  # a light one. Brightness varies linearly across the image.
  background = draw(0, 255, 1, 1, 3)
  contrast = draw(50, 120, 1, 1, 3) * np.where(background < 128, 1, -1)
  shade = x * draw(-20, 20) + y * draw(-20, 20)
  images = background + shade[..., None] + contrast * inside[..., None]
  images += draw(4, 16, 1, 1, 1) * rng.standard_normal(
      images.shape, np.float32)
  return images.clip(0, 255).astype(np.uint8), labels.astype(np.uint8)
