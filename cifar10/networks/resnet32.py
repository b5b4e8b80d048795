"""ResNet-32: three stages of five pre-activation basic blocks.

Identity Mappings in Deep Residual Networks (He et al., 2016), with the recipe
of a demo on four GPUs.
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


def inference(images, num_classes, tower=None):
  """float32 [n, height, width, depth] to logits, float32 [n, num_classes]."""
  with tf.variable_scope('conv1'):
    x = layers.conv2d(images, 3, 16, layers.he_normal())
  for stage, channels in enumerate((16, 32, 64), 1):
    for block in range(1, 6):
      strides = 2 if stage > 1 and block == 1 else 1
      with tf.variable_scope(f'stage{stage}/block{block}'):
        x = _block(x, channels, strides, tower)
        layers.activation_summary(x)
  with tf.variable_scope('softmax_linear'):
    x = _batch_norm_relu(x, tower)
    x = tf.reduce_mean(x, [1, 2])
    return layers.dense(x, num_classes, layers.he_normal())


def _block(x, channels, strides, tower):
  """Two convolutions, each after normalization and ReLU, and a shortcut."""
  with tf.variable_scope('conv1'):
    active = _batch_norm_relu(x, tower)
    residual = layers.conv2d(active, 3, channels, layers.he_normal(),
                             strides=strides)
  with tf.variable_scope('conv2'):
    residual = _batch_norm_relu(residual, tower)
    residual = layers.conv2d(residual, 3, channels, layers.he_normal())
  if strides > 1:
    with tf.variable_scope('shortcut'):
      x = layers.conv2d(active, 1, channels, layers.he_normal(),
                        strides=strides)
  return x + residual


def _batch_norm_relu(x, tower):
  return tf.nn.relu(layers.batch_norm(x, tower, momentum=0.997, epsilon=1e-5))
