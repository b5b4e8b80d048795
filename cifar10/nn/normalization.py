"""Normalizations of pixel values, in training and evaluation alike.

Each is a function of the shape of the images, [size, size, depth], and of
`examples`: a function that yields training images in parts, uint8 [n, *shape]
arrays, or None where a checkpoint will be restored. It returns a function of
images, [n, *shape], that returns them normalized, in float32.

Statistics of the training data are variables, so that they are in checkpoints
and evaluation needs no training data.
"""

import functools

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10.nn import layers
from cifar10.util.errors import UserError


def _per_image(shape, examples):
  """Mean 0 and variance 1 of each image (tutorial: "Model Inputs").

  The divisor is at least 1 / sqrt(number of values), which keeps a uniform
  image finite, as in tf.image.per_image_standardization.
  """
  del examples

  def normalize(images):
    images = tf.cast(images, tf.float32)
    means, variances = tf.nn.moments(images, [1, 2, 3], keepdims=True)
    factors = 1 / tf.maximum(tf.sqrt(variances), np.prod(shape)**-0.5)
    return images * factors - means * factors

  return normalize


def _unit(shape, examples):
  """Pixel values from 0 to 1."""
  del shape, examples
  return lambda images: tf.cast(images, tf.float32) / 255


def _mean_image(shape, examples):
  """Subtracts the mean of all training images, pixel by pixel."""
  mean, = _statistics({'mean_image': shape}, examples, _mean)
  return lambda images: tf.cast(images, tf.float32) - mean


def _per_channel(shape, examples):
  """Mean 0 and variance 1 of each channel over the training data."""
  mean, stddev = _statistics({'mean': shape[2:], 'stddev': shape[2:]}, examples,
                             _channels)
  return lambda images: (tf.cast(images, tf.float32) - mean) / stddev


def _whiten(shape, examples):
  """2x2 patches of standardized channels, decorrelated over the training data:
  [n, height - 1, width - 1, 4 * depth], each of variance 1."""
  depth = shape[2]
  if shape[0] < 2:
    raise UserError('normalization whiten: expected images of 2x2 or more')
  mean, stddev, whitening = _statistics(
      {'mean': [depth], 'stddev': [depth],
       'whitening': [2, 2, depth, 4 * depth]}, examples, _whitening)
  # The patches are sums, so the kernel can standardize the channels.
  kernel = whitening / stddev[:, tf.newaxis]
  offset = tf.reduce_sum(kernel * mean[:, tf.newaxis], [0, 1, 2])
  return lambda images: tf.nn.conv2d(
      tf.cast(images, tf.float32), kernel, 1, 'VALID') - offset


NORMALIZATIONS = {'per_image': _per_image, 'unit': _unit,
                  'mean_image': _mean_image, 'per_channel': _per_channel,
                  'whiten': _whiten}


def _statistics(shapes, examples, measure):
  """Returns the values of variables that hold statistics of the training data.

  Values, as tf.data cannot read variables of another host.

  Args:
    shapes: the variables' shapes by name.
    examples: see above.
    measure: function of `examples` to the statistics by name.
  """
  measured = functools.cache(lambda: measure(examples) if examples else {})

  def initial_value(name):
    return lambda shape, dtype, partition_info=None: tf.constant(
        measured().get(name, 0.0), dtype, shape)

  # Hosts share them.
  with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
    return [tf.identity(layers.variable(
        f'statistics/{name}', shape, initial_value(name), trainable=False))
            for name, shape in shapes.items()]


def _mean(examples):
  total, count = 0, 0
  for images in examples():
    total = total + images.sum(0, dtype=np.int64)
    count += len(images)
  return {'mean_image': total / count}


def _channels(examples):
  # How often each channel has each value.
  counts = sum(np.array([np.bincount(channel.ravel(), minlength=256)
                         for channel in np.moveaxis(images, -1, 0)])
               for images in examples())
  values, size = np.arange(256), counts[0].sum()
  mean = counts @ values / size
  squares = (counts * (values - mean[:, np.newaxis])**2).sum(1)
  if not squares.all():
    raise UserError('normalization: expected training images with different '
                    'values in each channel')
  return {'mean': mean, 'stddev': (squares / size)**0.5}


def _whitening(examples):
  """Eigenvectors of patches, divided by the square roots of their eigenvalues,
  the largest first. Of 5,000 images of 32x32, or fewer larger ones."""
  statistics, images = _channels(examples), []
  for part in examples():
    images.extend(part)
    most = min(5000, 5000 * 32**2 // part[0, ..., 0].size + 1)
    if len(images) >= most:
      break
  images = np.float32((np.array(images[:most]) - statistics['mean'])
                      / statistics['stddev'])
  patches = np.stack([images[:, y:y - 1 or None, x:x - 1 or None]
                      for y in (0, 1) for x in (0, 1)], 3)
  flat = patches.reshape(-1, 4 * images.shape[-1])
  values, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
  # The constant keeps directions without variance from amplifying noise.
  vectors = (vectors / np.sqrt(values + 5e-4))[:, ::-1]
  return {**statistics, 'whitening': vectors.reshape(
      2, 2, images.shape[-1], -1)}
