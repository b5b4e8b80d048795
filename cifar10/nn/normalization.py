"""What is done to pixel values, in training and evaluation alike.

Normalizations take images, [n, height, width, depth], and the statistics of the
training data that they need, and return float32.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10.nn import layers
from cifar10.util.errors import UserError


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
  images = tf.cast(images, tf.float32)
  return tf.nn.conv2d(images, statistics['kernel'], 1, 'VALID') - (
      statistics['offset'])


NORMALIZATIONS = {'per_image': standardize, 'unit': to_unit,
                  'mean_image': subtract_mean_image,
                  'per_channel': standardize_channels, 'whiten': whiten}


def statistics(normalization, shape, examples=None):
  """Returns what a normalization needs to know of the training data.

  It is kept in variables, so that a checkpoint has it and evaluation needs no
  training data.

  Args:
    normalization: name of the normalization.
    shape: [size, size, depth] of the images it is for.
    examples: function that returns the training images, uint8 [n, size, size,
      depth] array; None where the variables will be restored.

  Returns:
    Dict of float32 tensors, for functions of NORMALIZATIONS.

  Raises:
    UserError: the images are too small.
  """
  depth = shape[-1]
  if normalization == 'mean_image':
    return _variables({'mean_image': shape}, _mean_image, examples)
  if normalization == 'per_channel':
    return _variables({'mean': [depth], 'stddev': [depth]}, _channels, examples)
  if normalization == 'whiten':
    if shape[0] < 2:
      raise UserError('normalization whiten: expected images of 2x2 or more')
    found = _variables({'mean': [depth], 'stddev': [depth],
                        'whitening': [2, 2, depth, 4 * depth]}, _whitening,
                       examples)
    # Of sums, so what is to be done to each channel can be done to the kernel.
    kernel = found['whitening'] / found['stddev'][:, tf.newaxis]
    return {'kernel': kernel, 'offset': tf.reduce_sum(
        kernel * found['mean'][:, tf.newaxis], [0, 1, 2])}
  return {}


def _variables(shapes, measure, examples):
  """Returns the values of variables: what tf.data does on another host cannot
  read variables here."""
  values = measure(examples()) if examples else {}
  return {name: tf.identity(layers.variable(
      f'statistics/{name}', shape,
      tf.constant_initializer(values.get(name, 0.0)), trainable=False))
      for name, shape in shapes.items()}


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
