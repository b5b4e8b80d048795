"""ResNet-32: three stages of five pre-activation basic blocks.

From Identity Mappings in Deep Residual Networks (He et al., 2016). The recipe
is that of a demo on four GPUs.
"""

import tensorflow.compat.v1 as tf

from cifar10.nn import layers
from cifar10.recipe import Recipe

RECIPE = Recipe(
    epochs=100, batch_size=256, learning_rate=0.5, learning_rate_batch=1024,
    optimizer='momentum', momentum=0.9, schedule='piecewise',
    knots=((50, 0.1), (75, 0.01), (90, 0.001)), weight_decay=2e-4,
    decayed_variables='.*/(weights|biases)',
    augmentation='pad_crop_and_color')
PUBLISHED = '92% in 100 epochs'
MEASURED = '86.4%'
# Truncated normal of variance 2 / fan-in (He et al., 2015).
_HE = tf.variance_scaling_initializer(2.0, 'fan_in', 'truncated_normal')


def inference(images, num_classes, is_training=False):
  """Returns [n, num_classes] logits of [n, height, width, depth] images."""
  with tf.variable_scope('conv1'):
    x = layers.conv2d(images, 3, 16, _HE)
  for stage, channels in enumerate((16, 32, 64), 1):
    for block in range(1, 6):
      strides = 2 if stage > 1 and block == 1 else 1
      with tf.variable_scope(f'stage{stage}/block{block}'):
        x = _block(x, channels, strides, is_training)
        layers.activation_summary(x)
  with tf.variable_scope('softmax_linear'):
    x = _batch_norm_relu(x, is_training)
    x = tf.reduce_mean(x, [1, 2])
    return layers.dense(x, num_classes, _HE)


def _block(x, channels, strides, is_training):
  """Adds two convolutions, each after normalization and ReLU, to a shortcut."""
  with tf.variable_scope('conv1'):
    active = _batch_norm_relu(x, is_training)
    residual = layers.conv2d(active, 3, channels, _HE, strides=strides)
  with tf.variable_scope('conv2'):
    residual = _batch_norm_relu(residual, is_training)
    residual = layers.conv2d(residual, 3, channels, _HE)
  if strides > 1:
    with tf.variable_scope('shortcut'):
      x = layers.conv2d(active, 1, channels, _HE, strides=strides)
  return x + residual


def _batch_norm_relu(x, is_training):
  return tf.nn.relu(layers.batch_norm(x, is_training, momentum=0.997,
                                      epsilon=1e-5))
