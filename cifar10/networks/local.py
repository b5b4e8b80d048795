"""The tutorial's exercise: its network with two locally connected layers.

They have 64 and 32 channels and 3x3 kernels, with a separate kernel for each
position, as in cuda-convnet's layers-conv-local-11pct. They replace the two
dense layers of the tutorial.
"""

import tensorflow.compat.v1 as tf

from cifar10 import model
from cifar10.nn import layers

RECIPE = model.RECIPE
PUBLISHED = '-'
MEASURED = '72.6% after 4,000 steps'


def inference(images, num_classes, is_training=False):
  """Returns [n, num_classes] logits of [n, height, width, depth] images."""
  del is_training
  x = model.convolutions(images)
  for scope, channels in ('local3', 64), ('local4', 32):
    with tf.variable_scope(scope):
      x = tf.nn.relu(layers.locally_connected(
          x, 3, channels, tf.truncated_normal_initializer(stddev=0.04),
          bias=0.1))
      layers.activation_summary(x)
  with tf.variable_scope('softmax_linear'):
    logits = layers.dense(
        x, num_classes, tf.truncated_normal_initializer(stddev=1 / 192.0))
    layers.activation_summary(logits)
  return logits
