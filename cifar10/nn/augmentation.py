"""Distorts batches of training images.

Random functions take a `Seed`, from which they compute all their random
numbers. Equal seeds give equal results, independently of earlier calls.
"""

from typing import NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10.util.errors import UserError


class Seed(NamedTuple):
  """The seed of the random numbers for a batch, or for a part of a batch.

  Random numbers are always computed for the whole batch. So the numbers of an
  image do not depend on the part in which it is processed.
  """
  value: tf.Tensor  # int64 [2].
  first: int = 0  # Index of the part's first image in the batch.
  total: Optional[int] = None  # Images in the batch. None: part is the batch.

  def split(self, count):
    """Returns a list of `count` independent seeds."""
    return [self._replace(value=value)
            for value in tf.unstack(tf.random.split(self.value, count))]

  def uniform(self, images, shape=(), low=0.0, high=1.0, dtype=tf.float32):
    """Returns random numbers from [low, high) for n images: [n, *shape]."""
    n = tf.shape(images)[0]
    total = n if self.total is None else self.total
    draws = tf.random.stateless_uniform([total, *shape], self.value, low, high,
                                        dtype)
    return draws[self.first:self.first + n]


# Augmentations: functions of uint8 [n, height, width, depth] images, the crop
# size and a `Seed`. They return [n, size, size, depth] images of any type.


def central_crop(images, size, seed=None):
  """Crops the central size x size pixels of each image."""
  del seed
  top = (images.shape[1] - size) // 2
  left = (images.shape[2] - size) // 2
  return images[:, top:top + size, left:left + size]


def crop_and_color(images, size, seed):
  """Crops, flips, and changes brightness and contrast, as in the tutorial.

  Brightness changes by up to 63 (of 255), contrast by a factor from 0.2 to 1.8.
  (Standardization then undoes the change of brightness, which is kept because
  the tutorial has it.)
  """
  crop, flip, brightness, contrast = seed.split(4)
  images = random_crop(images, size, crop, flip)
  images = random_brightness(tf.cast(images, tf.float32), 63.0, brightness)
  return random_contrast(images, 0.2, 1.8, contrast)


def pad_crop_and_color(images, size, seed):
  """Adds 4 black pixels on each side, then applies `crop_and_color()`."""
  return crop_and_color(pad(images, 4), size, seed)


def pad_crop(images, size, seed):
  """Adds 4 black pixels on each side, crops and flips."""
  crop, flip = seed.split(2)
  return random_crop(pad(images, 4), size, crop, flip)


def reflect_crop(images, size, seed):
  """Adds 2 mirrored pixels on each side, and crops."""
  return random_crop(pad(images, 2, 'REFLECT'), size, seed)


def reflect_crop_cutout(images, size, seed):
  """Adds 4 mirrored pixels on each side, crops, and cuts out 3/8 of a side."""
  crop, hole = seed.split(2)
  images = random_crop(pad(images, 4, 'REFLECT'), size, crop)
  return cutout(images, 3 * size // 8, hole)


def affine(images, size, seed):
  """Rotates by up to 15 degrees, shifts and zooms by up to 10%, and flips."""
  affine_seed, flip = seed.split(2)
  images = tf.cast(central_crop(images, size), tf.float32)
  return random_flip(random_affine(images, 15.0, 0.1, 0.1, affine_seed), flip)


_TEST_VIEW_WEIGHTS = 0.25, 0.25, 0.125, 0.125, 0.125, 0.125


def test_views(images):
  """Returns six views of images, for test-time augmentation (as in airbench94).

  The views are the images, the images shifted diagonally by a pixel in two
  opposite directions, and the mirror images of these three.

  Args:
    images: [n, height, width, depth].

  Returns:
    [6 * n, height, width, depth], with all images of the first view first.
  """
  height, width = images.shape[1:3]
  padded = pad(images, 1, 'REFLECT' if min(height, width) > 1 else 'SYMMETRIC')
  views = []
  for image in (images, padded[:, :height, :width],
                padded[:, 2:2 + height, 2:2 + width]):
    views += [image, image[:, :, ::-1]]
  return tf.concat(views, 0)


def mean_over_views(logits):
  """Returns the weighted means of the logits of `test_views()`.

  Args:
    logits: float32 [6 * n, classes].

  Returns:
    float32 [n, classes].
  """
  weights = tf.reshape(_TEST_VIEW_WEIGHTS, [-1, 1, 1])
  views = tf.reshape(logits, [weights.shape[0], -1, logits.shape[1]])
  return tf.reduce_sum(weights * views, 0)


def pad(images, margin, mode='CONSTANT'):
  """Adds `margin` pixels on each side, with values by the `mode` of tf.pad().

  Raises:
    UserError: mode is 'REFLECT', and the images are too small to be mirrored.
  """
  height, width = images.shape[1:3]
  if mode == 'REFLECT' and min(height, width) <= margin:
    raise UserError(f'images of {height}x{width} are too small to add {margin} '
                    'mirrored pixels on each side')
  return tf.pad(images, [[0, 0], [margin, margin], [margin, margin], [0, 0]],
                mode)


def random_crop(images, size, seed, flip_seed=None):
  """Crops size x size pixels of each image at a uniformly random position.

  With `flip_seed`, also mirrors images as `random_flip()` does.
  """
  row_seed, column_seed = seed.split(2)
  rows = _random_windows(images, images.shape[1], size, row_seed)
  columns = _random_windows(images, images.shape[2], size, column_seed)
  if flip_seed is not None:
    columns = tf.where_v2(_half(images, flip_seed)[:, tf.newaxis],
                          columns[:, ::-1], columns)
  images = tf.gather(images, rows, axis=1, batch_dims=1)
  return tf.gather(images, columns, axis=2, batch_dims=1)


def _random_windows(images, length, size, seed):
  starts = seed.uniform(images, [1], 0, length - size + 1, tf.int32)
  return starts + tf.range(size)


def random_flip(images, seed):
  """Mirrors each image, left to right, with probability 1/2."""
  return flip(images, _half(images, seed))


def _half(images, seed):
  """Returns bool [n], true with probability 1/2."""
  return seed.uniform(images) < 0.5


def flip(images, which):
  """Mirrors the images for which the bool [n] tensor `which` is true."""
  # Gathering columns is faster than selecting images or mirror images.
  width = images.shape[2]
  columns = tf.where_v2(which[:, tf.newaxis], tf.range(width)[::-1],
                        tf.range(width))
  return tf.gather(images, columns, axis=2, batch_dims=1)


def cutout(images, size, seed):
  """Makes a random size x size square of each image gray (DeVries and Taylor,
  2017). The square is always inside the image."""
  def inside(length, seed):
    starts = seed.uniform(images, [1], 0, length - size + 1, tf.int32)
    places = tf.range(length)
    return (places >= starts) & (places < starts + size)

  row_seed, column_seed = seed.split(2)
  rows = inside(images.shape[1], row_seed)[:, :, tf.newaxis, tf.newaxis]
  columns = inside(images.shape[2], column_seed)[:, tf.newaxis, :, tf.newaxis]
  return tf.where_v2(rows & columns, tf.constant(128, images.dtype), images)


def random_brightness(images, max_delta, seed):
  """Adds a random number from [-max_delta, max_delta) to each float image."""
  return images + seed.uniform(images, [1, 1, 1], -max_delta, max_delta)


def random_contrast(images, lower, upper, seed):
  """Multiplies the contrast of each float image by a random number from [lower,
  upper), and preserves the means of its channels."""
  means = tf.reduce_mean(images, [1, 2], keepdims=True)
  factors = seed.uniform(images, [1, 1, 1], lower, upper)
  return images * factors + means * (1 - factors)


def random_affine(images, max_degrees, max_shift, max_zoom, seed):
  """Randomly rotates, zooms and shifts each float image around its center.

  Args:
    images: float32 [n, height, width, depth].
    max_degrees: maximum rotation in either direction.
    max_shift: maximum shift along each axis in either direction, as a fraction
      of the side.
    max_zoom: maximum zoom along each axis, in or out, as a fraction.
    seed: the `Seed`.

  Returns:
    Bilinearly interpolated images of the same shape. Pixels from outside of an
    image have the value of its nearest pixel.
  """
  height, width = images.shape[1], images.shape[2]
  draws = tf.unstack(seed.uniform(images, [5], -1.0, 1.0), axis=1)
  angle = draws[0] * np.float32(np.radians(max_degrees))
  zoom_y, zoom_x = 1 + max_zoom * draws[1], 1 + max_zoom * draws[2]
  # Pixel (x, y) of the result comes from this position in the original:
  # (xx * x + xy * y + x0, yx * x + yy * y + y0).
  xx, xy = zoom_x * tf.cos(angle), -zoom_y * tf.sin(angle)
  yx, yy = zoom_x * tf.sin(angle), zoom_y * tf.cos(angle)
  centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
  x0 = (1 - xx) * centre_x - xy * centre_y + max_shift * width * draws[3]
  y0 = (1 - yy) * centre_y - yx * centre_x + max_shift * height * draws[4]
  zeros = tf.zeros_like(xx)
  return tf.raw_ops.ImageProjectiveTransformV3(
      images=images, output_shape=[height, width], fill_value=0.0,
      transforms=tf.stack([xx, xy, x0, yx, yy, y0, zeros, zeros], 1),
      interpolation='BILINEAR', fill_mode='NEAREST')


AUGMENTATIONS = {'none': central_crop, 'crop_and_color': crop_and_color,
                 'pad_crop_and_color': pad_crop_and_color,
                 'pad_crop': pad_crop, 'reflect_crop': reflect_crop,
                 'reflect_crop_cutout': reflect_crop_cutout, 'affine': affine}
