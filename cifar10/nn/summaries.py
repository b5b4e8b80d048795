"""Summaries for TensorBoard, in the graph.

Each is collected under exactly the tag that it is given: tf.summary.* would add
the name scope, `tower_0/`, and replace all but letters and digits. They are
computed on the CPU, which has their kernels.
"""

import math

import tensorflow.compat.v1 as tf

_HISTOGRAM_VALUES = 2**17


def scalar(tag, value):
  """Collects a scalar summary under exactly this tag."""
  _collect(tf.raw_ops.ScalarSummary, tags=tag, values=value)


def histogram(tag, values):
  """Collects a histogram summary under exactly this tag.

  Args:
    tag: the tag.
    values: float tensor. Of 2**18 values or more, only every k-th counts: a
      million values take longer than a training step. Values that are not
      finite count as 0; they would end the training without a clear message.
  """
  size = values.shape.num_elements() or tf.size(values)
  # An odd k, so that each channel counts: they are a power of two, mostly.
  values = tf.reshape(values, [-1])[::(size // _HISTOGRAM_VALUES) | 1]
  values = tf.where(tf.is_finite(values), values, tf.zeros_like(values))
  _collect(tf.raw_ops.HistogramSummary, tag=tag, values=values)


def image(tag, images):
  """Collects the first images of a batch, each scaled to its own range.

  Args:
    tag: the tag, to which TensorFlow adds `/image/0` and so on.
    images: [n, height, width, depth]. Only the first three, and of them the
      first three channels, are shown.
  """
  with tf.device('/cpu:0'):
    images = tf.cast(images[:3, ..., :3], tf.float32)
  _collect(tf.raw_ops.ImageSummary, tag=tag, tensor=images)


def filters(tag, weights):
  """Collects a picture of the weights of a first layer.

  Args:
    tag: the tag.
    weights: [height, width, depth, n] of a convolution, or [height**2 * depth,
      n] of a dense layer, of depth 1 or 3. Other shapes have no picture.
  """
  if weights.shape.rank == 2:
    for depth in 3, 1:
      side = math.isqrt(weights.shape[0] // depth)
      if side**2 * depth == weights.shape[0]:
        weights = tf.reshape(weights, [side, side, depth, -1])
        break
  if weights.shape.rank != 4 or weights.shape[2] not in (1, 3):
    return
  with tf.device('/cpu:0'):
    # A part of very many weights, as each summary has the picture.
    weights = weights[..., :max(
        1, 2**14 // (weights.shape[0] * weights.shape[1]))]
    height, width, depth, count = weights.shape.as_list()
    low, high = tf.reduce_min(weights), tf.reduce_max(weights)
    tiles = (weights - low) * 255 / tf.maximum(high - low, 1e-12)
    # Each weight is a square of pixels, large enough to see.
    scale = 1 + 24 // max(height, width)
    tiles = tf.repeat(tf.repeat(tiles, scale, 0), scale, 1)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tiles = tf.pad(tiles, [[1, 1], [1, 1], [0, 0], [0, rows * columns - count]],
                   constant_values=255)
    height, width = height * scale + 2, width * scale + 2
    tiles = tf.reshape(tiles, [height, width, depth, rows, columns])
    grid = tf.reshape(tf.transpose(tiles, [3, 0, 4, 1, 2]),
                      [1, rows * height, columns * width, depth])
    grid = tf.saturate_cast(grid, tf.uint8)
  _collect(tf.raw_ops.ImageSummary, tag=tag, tensor=grid, max_images=1)


def variables(variables, gradients, norms):
  """Collects histograms of variables and gradients, and the gradients' norms.

  Args:
    variables: list of variables.
    gradients: list of their gradients.
    norms: dict of scalars by name of the variable.
  """
  for name, norm in norms.items():
    scalar(f'training/gradient_norm/{name}', norm)
  for variable, gradient in zip(variables, gradients):
    histogram(variable.op.name, variable.read_value())
    histogram(f'{variable.op.name}/gradients', gradient)


def _collect(summary, **arguments):
  with tf.device('/cpu:0'):
    tf.add_to_collection(tf.GraphKeys.SUMMARIES, summary(**arguments))
