"""A small, fast network: three blocks of two convolutions on whitened pixels.

After airbench94 (Jordan, 2024, arXiv:2404.00498) and the speed runs before it
(cifar10-fast). What it is given are not pixels but their `whiten`
normalization: 2x2 patches, decorrelated by what the training images are like.
"""

import tensorflow.compat.v1 as tf

from cifar10.nn import layers
from cifar10.recipe import Recipe

WIDTHS = 64, 256, 256
RECIPE = Recipe(
    epochs=13, batch_size=512, normalization='whiten',
    augmentation='reflect_crop', alternating_flip=True,
    optimizer='nesterov', momentum=0.85,
    learning_rate=1.5, learning_rate_batch=1024, schedule='linear',
    knots=((0, 0.2), (2.5, 1), (13, 0.07)), weight_decay=0.00133,
    decayed_variables='.*', label_smoothing=0.2, lookahead_steps=5,
    scaled_variables='.*/batch_norm/offset', learning_rate_factor=64)
PUBLISHED = '94.0%'
MEASURED = '89.2%, 90.1% with test-time augmentation'


def inference(images, num_classes, tower=None, widths=WIDTHS):
  """Whitened patches, [n, height, width, c], to [n, num_classes] logits; with
  `widths` feature maps in the blocks."""
  with tf.variable_scope('whitened'):
    x = tf.concat([images, -images], 3)
    x = tf.nn.relu(layers.add_biases(x, 0.0))
  for i, width in enumerate(widths, 1):
    with tf.variable_scope(f'block{i}'):
      x = _block(x, width, tower)
      layers.activation_summary(x)
  with tf.variable_scope('logits'):
    x = tf.reduce_max(x, [1, 2])
    return layers.dense(x, num_classes, layers.fan_in_uniform(), bias=None) / 9


def _block(x, width, tower):
  """Halves height and width."""
  with tf.variable_scope('conv1'):
    x = layers.conv2d(x, 3, width, layers.dirac())
    x = tf.nn.max_pool2d(x, 2, 2, 'VALID')
    x = tf.nn.relu(_batch_norm(x, tower))
  with tf.variable_scope('conv2'):
    x = layers.conv2d(x, 3, width, layers.dirac())
    return tf.nn.relu(_batch_norm(x, tower))


def _batch_norm(x, tower):
  return layers.batch_norm(x, tower, momentum=0.6, epsilon=1e-12, scale=False)
