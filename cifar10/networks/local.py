"""The tutorial's exercise: its top two layers locally connected.

As in cuda-convnet's layers-conv-local-11pct: 64 and 32 maps of 3x3 kernels, of
their own at each place, in place of the tutorial's dense layers.
"""

import tensorflow.compat.v1 as tf

from cifar10 import model
from cifar10.nn import layers

RECIPE = model.RECIPE
PUBLISHED = '-'
MEASURED = '72.6% after 4,000 steps'


def inference(images, num_classes, tower=None):
  """float32 [n, height, width, depth] to logits, float32 [n, num_classes]."""
  del tower
  x = model.convolutions(images)
  for scope, channels in ('local3', 64), ('local4', 32):
    with tf.variable_scope(scope):
      x = tf.nn.relu(layers.locally_connected(
          x, 3, channels, layers.truncated_normal(0.04), bias=0.1))
      layers.activation_summary(x)
  with tf.variable_scope('softmax_linear'):
    logits = layers.dense(x, num_classes, layers.truncated_normal(1 / 192.0))
    layers.activation_summary(logits)
  return logits
