"""Summaries for TensorBoard, collected under exactly the tag they are given.

tf.summary.* would put the name scope into the tag, `tower_0/`, and replace all
but letters and digits. They are made on the CPU, where their kernels are.
"""

import tensorflow.compat.v1 as tf

_HISTOGRAM_VALUES = 2**17


def scalar(tag, value):
  """Collects a scalar summary under exactly this tag."""
  _collect(tf.raw_ops.ScalarSummary, tags=tag, values=value)


def histogram(tag, values):
  """Collects a histogram summary under exactly this tag.

  Args:
    tag: the tag.
    values: float tensor, [n, ...]. Of very many values, the n parts are thinned
      out evenly: counting a million takes longer than a training step. What is
      not finite counts as 0: it would end the training, without saying why.
  """
  size = values.shape.num_elements() or tf.size(values)
  values = values[::1 + size // _HISTOGRAM_VALUES]
  values = tf.where(tf.is_finite(values), values, tf.zeros_like(values))
  _collect(tf.raw_ops.HistogramSummary, tag=tag, values=values)


def image(tag, images, max_images=3):
  """Collects the first pictures of an [n, height, width, depth] batch, each
  scaled to its own range, under `tag/image/0` and so on."""
  with tf.device('/cpu:0'):
    images = tf.cast(images[:max_images], tf.float32)
  _collect(tf.raw_ops.ImageSummary, tag=tag, tensor=images,
           max_images=max_images)


def _collect(summary, **arguments):
  with tf.device('/cpu:0'):
    tf.add_to_collection(tf.GraphKeys.SUMMARIES, summary(**arguments))
