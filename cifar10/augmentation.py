"""What happens to images on their way to a network, whole batches at a time.

Random functions take a seed, int64 [2], and draw all their numbers from it:
equal seeds give equal results, whatever ran before.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10 import layers

# Augmentations: uint8 [n, height, width, depth] images, crop size and seed to
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
  crop, flip, brightness, contrast = tf.unstack(tf.random.split(seed, 4))
  images = random_crop(images, size, crop, flip)
  images = random_brightness(tf.cast(images, tf.float32), 63.0, brightness)
  return random_contrast(images, 0.2, 1.8, contrast)


def pad_crop_and_color(images, size, seed):
  """4 pixels of black on each side, then as the tutorial."""
  return crop_and_color(pad(images, 4), size, seed)


def pad_crop(images, size, seed):
  """4 pixels of black on each side, crop, flip."""
  crop, flip = tf.unstack(tf.random.split(seed, 2))
  return random_crop(pad(images, 4), size, crop, flip)


def reflect_crop(images, size, seed):
  """2 pixels of mirrored image on each side, crop."""
  return random_crop(pad(images, 2, 'REFLECT'), size, seed)


def affine(images, size, seed):
  """Rotation by up to 15 degrees, shift and zoom by up to 10%, flip."""
  affine_seed, flip = tf.unstack(tf.random.split(seed, 2))
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
  padded = pad(images, 1, 'REFLECT')
  views = []
  for image in (images, padded[:, :height, :width],
                padded[:, 2:2 + height, 2:2 + width]):
    views += [image, image[:, :, ::-1]]
  return tf.concat(views, 0)


AUGMENTATIONS = {'none': central_crop, 'crop_and_color': crop_and_color,
                 'pad_crop_and_color': pad_crop_and_color,
                 'pad_crop': pad_crop, 'reflect_crop': reflect_crop,
                 'affine': affine}


def pad(images, margin, mode='CONSTANT'):
  """Adds `margin` pixels of 0, or as tf.pad() otherwise has them, on each side.
  """
  return tf.pad(images, [[0, 0], [margin, margin], [margin, margin], [0, 0]],
                mode)


def random_crop(images, size, seed, flip_seed=None):
  """Cuts a size x size window out of each image, at any place alike; with a
  second seed, half of them are mirrored, as by `random_flip()`."""
  n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
  row_seed, column_seed = tf.unstack(tf.random.split(seed, 2))
  rows = _random_windows(n, height, size, row_seed)
  columns = _random_windows(n, width, size, column_seed)
  if flip_seed is not None:
    columns = tf.where_v2(_half(images, flip_seed)[:, tf.newaxis],
                          columns[:, ::-1], columns)
  images = tf.gather(images, rows, axis=1, batch_dims=1)
  return tf.gather(images, columns, axis=2, batch_dims=1)


def _random_windows(n, length, size, seed):
  starts = tf.random.stateless_uniform([n, 1], seed, 0, length - size + 1,
                                       tf.int32)
  return starts + tf.range(size)


def random_flip(images, seed):
  """Mirrors each image, left to right, with probability 1/2."""
  return flip(images, _half(images, seed))


def _half(images, seed):
  """Returns bool [n], true with probability 1/2."""
  return tf.random.stateless_uniform([tf.shape(images)[0], 1], seed)[
      :, 0] < 0.5


def flip(images, which):
  """Mirrors those images for which the bool [n] tensor `which` says so."""
  # Gathering columns is faster than to choose between an image and its mirror.
  width = images.shape[2]
  columns = tf.where_v2(which[:, tf.newaxis], tf.range(width)[::-1],
                        tf.range(width))
  return tf.gather(images, columns, axis=2, batch_dims=1)


def random_brightness(images, max_delta, seed):
  """Adds to each float image a number from [-max_delta, max_delta)."""
  return images + _uniform_per_image(images, -max_delta, max_delta, seed)


def random_contrast(images, lower, upper, seed):
  """Multiplies each float image's distance from the means of its channels by a
  number from [lower, upper)."""
  means = tf.reduce_mean(images, [1, 2], keepdims=True)
  factors = _uniform_per_image(images, lower, upper, seed)
  return images * factors + means * (1 - factors)


def random_affine(images, max_degrees, max_shift, max_zoom, seed):
  """Rotates, zooms and shifts each float image, around its centre.

  Args:
    images: float32 [n, height, width, depth].
    max_degrees: rotation, either way.
    max_shift: shift along each axis, either way, as a fraction of the side.
    max_zoom: zoom along each axis, as a fraction, in or out.
    seed: int64 [2].

  Returns:
    Images of the same shape, bilinearly interpolated; what comes from outside
    is the nearest pixel's.
  """
  n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
  draws = tf.unstack(tf.random.stateless_uniform([5, n], seed, -1.0, 1.0))
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


def _uniform_per_image(images, lower, upper, seed):
  return tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed,
                                     lower, upper)


# Normalizations: images and the statistics of the training data to float32.


def standardize(images, statistics=None):
  """Brings each image to mean 0 and variance 1.

  The divisor is at least 1 / sqrt(number of values), which keeps a uniform
  image finite, as tf.image.per_image_standardization does.
  """
  del statistics
  images = tf.cast(images, tf.float32)
  num_values = images.shape[1] * images.shape[2] * images.shape[3]
  means, variances = tf.nn.moments(images, [1, 2, 3], keepdims=True)
  factors = 1 / tf.maximum(tf.sqrt(variances), num_values**-0.5)
  return images * factors - means * factors


def to_unit(images, statistics=None):
  """Brings pixel values from 0 to 255 to 0 to 1."""
  del statistics
  return tf.cast(images, tf.float32) / 255


def subtract_mean_image(images, statistics):
  """Subtracts the mean of all training images, pixel by pixel."""
  return tf.cast(images, tf.float32) - statistics['mean_image']


def standardize_channels(images, statistics):
  """Brings each channel to mean 0 and variance 1 over the training data."""
  images = tf.cast(images, tf.float32)
  return (images - statistics['mean']) / statistics['stddev']


def whiten(images, statistics):
  """Makes 2x2 patches of standardized channels, decorrelated over the training
  data: [n, height - 1, width - 1, 4 * depth], each of variance 1."""
  # Of sums, so what is to be done to each channel can be done to the kernel.
  kernel = statistics['whitening'] / statistics['stddev'][:, tf.newaxis]
  offset = tf.reduce_sum(kernel * statistics['mean'][:, tf.newaxis], [0, 1, 2])
  return tf.nn.conv2d(tf.cast(images, tf.float32), kernel, 1, 'VALID') - offset


NORMALIZATIONS = {'per_image': standardize, 'unit': to_unit,
                  'mean_image': subtract_mean_image,
                  'per_channel': standardize_channels, 'whiten': whiten}


def statistics_variables(normalization, shape, examples=None):
  """Returns what a normalization needs to know of the training data.

  They are variables, so that a checkpoint has them and evaluation needs no
  training data.

  Args:
    normalization: name of the normalization.
    shape: [size, size, depth] of the images it is for.
    examples: function that returns the training images, uint8 [n, height,
      width, depth] array; None where the variables will be restored.

  Returns:
    Dict of float32 variables, for functions of NORMALIZATIONS.
  """
  if normalization == 'mean_image':
    shapes, measure = {'mean_image': shape}, _mean_image
  elif normalization == 'per_channel':
    shapes, measure = {'mean': shape[-1:], 'stddev': shape[-1:]}, _channels
  elif normalization == 'whiten':
    depth = shape[-1]
    shapes, measure = {'mean': [depth], 'stddev': [depth],
                       'whitening': [2, 2, depth, 4 * depth]}, _whitening
  else:
    return {}
  values = measure(central_crop(examples(), shape[0])) if examples else {}
  return {name: layers.variable(
      f'statistics/{name}', size,
      tf.constant_initializer(values.get(name, 0.0)), trainable=False)
      for name, size in shapes.items()}


def _mean_image(images):
  return {'mean_image': images.mean(0, dtype=np.float64)}


def _whitening(images):
  """Patches' eigenvectors, divided by the roots of their eigenvalues."""
  statistics = _channels(images)
  images = np.float32((images[:5000] - statistics['mean'])
                      / statistics['stddev'])
  patches = np.stack([images[:, y:y - 1 or None, x:x - 1 or None]
                      for y in (0, 1) for x in (0, 1)], 3)
  flat = patches.reshape(-1, 4 * images.shape[-1])
  values, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
  # The largest first; where there is no variance, noise is not to be made any.
  vectors = (vectors / np.sqrt(values + 5e-4))[:, ::-1]
  return {**statistics, 'whitening': vectors.reshape(
      2, 2, images.shape[-1], -1)}


def _channels(images):
  mean = images.mean((0, 1, 2), dtype=np.float64)
  # In parts, as float64 takes eight times the room.
  squares = sum(((part - mean)**2).sum((0, 1, 2))
                for part in np.array_split(images, len(images) // 1000 + 1))
  return {'mean': mean, 'stddev': (squares / images[..., 0].size)**0.5}
