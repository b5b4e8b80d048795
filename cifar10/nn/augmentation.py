"""How training images are distorted, whole batches at a time.

Random functions take a `Seed`, and draw all their numbers from it: equal seeds
give equal results, whatever ran before.
"""

from typing import NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10.util.errors import UserError


class Seed(NamedTuple):
  """Where the random numbers for images of a batch come from.

  They are drawn for all images of the batch, and given to those that are here:
  so an image's do not depend on which others are computed beside it.
  """
  value: tf.Tensor  # int64 [2].
  first: int = 0  # Which image of the batch the first one here is...
  total: Optional[int] = None  # ...of so many; None: all of them are here.

  def split(self, count):
    """Returns a list of seeds, independent of each other."""
    return [self._replace(value=value)
            for value in tf.unstack(tf.random.split(self.value, count))]

  def uniform(self, images, shape=(), low=0.0, high=1.0, dtype=tf.float32):
    """Returns numbers from [low, high) for these images, [n, *shape]."""
    n = tf.shape(images)[0]
    total = n if self.total is None else self.total
    draws = tf.random.stateless_uniform([total, *shape], self.value, low, high,
                                        dtype)
    return draws[self.first:self.first + n]


# Augmentations: uint8 [n, height, width, depth] images, crop size and `Seed` to
# images of [n, size, size, depth] and any type.


def central_crop(images, size, seed=None):
  """Cuts the middle size x size pixels out of each image."""
  del seed
  top = (images.shape[1] - size) // 2
  left = (images.shape[2] - size) // 2
  return images[:, top:top + size, left:left + size]


def crop_and_color(images, size, seed):
  """The tutorial's: crop, flip, brightness up to 63 (of 255) up or down, and
  contrast times 0.2 to 1.8. (What brightness adds, the standardization that
  follows takes away again; it is here because the tutorial has it.)"""
  crop, flip, brightness, contrast = seed.split(4)
  images = random_crop(images, size, crop, flip)
  images = random_brightness(tf.cast(images, tf.float32), 63.0, brightness)
  return random_contrast(images, 0.2, 1.8, contrast)


def pad_crop_and_color(images, size, seed):
  """4 pixels of black on each side, then as the tutorial."""
  return crop_and_color(pad(images, 4), size, seed)


def pad_crop(images, size, seed):
  """4 pixels of black on each side, crop, flip."""
  crop, flip = seed.split(2)
  return random_crop(pad(images, 4), size, crop, flip)


def reflect_crop(images, size, seed):
  """2 pixels of mirrored image on each side, crop."""
  return random_crop(pad(images, 2, 'REFLECT'), size, seed)


def reflect_crop_cutout(images, size, seed):
  """4 pixels of mirrored image on each side, crop, cutout of 3/8 of a side."""
  crop, hole = seed.split(2)
  images = random_crop(pad(images, 4, 'REFLECT'), size, crop)
  return cutout(images, 3 * size // 8, hole)


def affine(images, size, seed):
  """Rotation by up to 15 degrees, shift and zoom by up to 10%, flip."""
  affine_seed, flip = seed.split(2)
  images = tf.cast(central_crop(images, size), tf.float32)
  return random_flip(random_affine(images, 15.0, 0.1, 0.1, affine_seed), flip)


# The weights of `test_views()`.
TEST_VIEW_WEIGHTS = 0.25, 0.25, 0.125, 0.125, 0.125, 0.125


def test_views(images):
  """Returns the images as they are, mirrored, and both shifted by a pixel to
  either corner, for test-time augmentation (after airbench94).

  Args:
    images: [n, height, width, depth].

  Returns:
    [6 * n, height, width, depth], one view of all images after the other.
  """
  height, width = images.shape[1:3]
  padded = pad(images, 1, 'REFLECT' if min(height, width) > 1 else 'SYMMETRIC')
  views = []
  for image in (images, padded[:, :height, :width],
                padded[:, 2:2 + height, 2:2 + width]):
    views += [image, image[:, :, ::-1]]
  return tf.concat(views, 0)


AUGMENTATIONS = {'none': central_crop, 'crop_and_color': crop_and_color,
                 'pad_crop_and_color': pad_crop_and_color,
                 'pad_crop': pad_crop, 'reflect_crop': reflect_crop,
                 'reflect_crop_cutout': reflect_crop_cutout, 'affine': affine}


def pad(images, margin, mode='CONSTANT'):
  """Adds `margin` pixels of 0, or as tf.pad() otherwise has them, on each side.

  Raises:
    UserError: mode is 'REFLECT', and the images have no pixels to mirror.
  """
  height, width = images.shape[1:3]
  if mode == 'REFLECT' and min(height, width) <= margin:
    raise UserError(f'images of {height}x{width} are too small to add {margin} '
                    'mirrored pixels on each side')
  return tf.pad(images, [[0, 0], [margin, margin], [margin, margin], [0, 0]],
                mode)


def random_crop(images, size, seed, flip_seed=None):
  """Cuts a size x size window out of each image, at any place alike; with a
  second seed, half of them are mirrored, as by `random_flip()`."""
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
  """Mirrors those images for which the bool [n] tensor `which` says so."""
  # Gathering columns is faster than to choose between an image and its mirror.
  width = images.shape[2]
  columns = tf.where_v2(which[:, tf.newaxis], tf.range(width)[::-1],
                        tf.range(width))
  return tf.gather(images, columns, axis=2, batch_dims=1)


def cutout(images, size, seed):
  """Makes a size x size square of each image grey (DeVries and Taylor, 2017),
  at any place where all of it is inside."""
  def inside(length, seed):
    starts = seed.uniform(images, [1], 0, length - size + 1, tf.int32)
    places = tf.range(length)
    return (places >= starts) & (places < starts + size)

  row_seed, column_seed = seed.split(2)
  rows = inside(images.shape[1], row_seed)[:, :, tf.newaxis, tf.newaxis]
  columns = inside(images.shape[2], column_seed)[:, tf.newaxis, :, tf.newaxis]
  return tf.where_v2(rows & columns, tf.constant(128, images.dtype), images)


def random_brightness(images, max_delta, seed):
  """Adds to each float image a number from [-max_delta, max_delta)."""
  return images + seed.uniform(images, [1, 1, 1], -max_delta, max_delta)


def random_contrast(images, lower, upper, seed):
  """Multiplies each float image's distance from the means of its channels by a
  number from [lower, upper)."""
  means = tf.reduce_mean(images, [1, 2], keepdims=True)
  factors = seed.uniform(images, [1, 1, 1], lower, upper)
  return images * factors + means * (1 - factors)


def random_affine(images, max_degrees, max_shift, max_zoom, seed):
  """Rotates, zooms and shifts each float image, around its centre.

  Args:
    images: float32 [n, height, width, depth].
    max_degrees: rotation, either way.
    max_shift: shift along each axis, either way, as a fraction of the side.
    max_zoom: zoom along each axis, as a fraction, in or out.
    seed: the `Seed`.

  Returns:
    Images of the same shape, bilinearly interpolated; what comes from outside
    is the nearest pixel's.
  """
  height, width = images.shape[1], images.shape[2]
  draws = tf.unstack(seed.uniform(images, [5], -1.0, 1.0), axis=1)
  angle = draws[0] * np.float32(np.radians(max_degrees))
  zoom_y, zoom_x = 1 + max_zoom * draws[1], 1 + max_zoom * draws[2]
  # Where in the original a pixel (x, y) of the result is from:
  # (xx * x + xy * y + x0, yx * x + yy * y + y0).
  xx, xy = zoom_x * tf.cos(angle), -zoom_y * tf.sin(angle)
  yx, yy = zoom_x * tf.sin(angle), zoom_y * tf.cos(angle)
  centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
  x0 = (1 - xx) * centre_x - xy * centre_y + max_shift * width * draws[3]
  y0 = (1 - yy) * centre_y - yx * centre_x + max_shift * height * draws[4]
  zeros = tf.zeros_like(xx)
  return tf.raw_ops.ImageProjectiveTransformV3(
      images=images, output_shape=tf.shape(images)[1:3], fill_value=0.0,
      transforms=tf.stack([xx, xy, x0, yx, yy, y0, zeros, zeros], 1),
      interpolation='BILINEAR', fill_mode='NEAREST')
