"""The Keras how-to's first network: three convolutions, two dense layers."""

import tensorflow.compat.v1 as tf

from cifar10.nn import layers
from cifar10.recipe import Recipe

# Published with a fifth of the training images held out (--holdout=10000).
RECIPE = Recipe(epochs=20, batch_size=64, learning_rate=1e-3, optimizer='adam',
                normalization='unit')
PUBLISHED = '65-70%'
MEASURED = '68.3%'
# U(-x, x), x = sqrt(6 / (fan-in + fan-out)) (Glorot and Bengio, 2010).
_GLOROT = tf.glorot_uniform_initializer()


def inference(images, num_classes, is_training=False):
  """Returns [n, num_classes] logits of [n, height, width, depth] images."""
  del is_training
  x = images
  for i, channels in enumerate((32, 64, 64), 1):
    if i > 1:
      x = tf.nn.max_pool2d(x, 2, 2, 'VALID')
    with tf.variable_scope(f'conv{i}'):
      x = tf.nn.relu(layers.conv2d(x, 3, channels, _GLOROT,
                                   bias=0.0, padding='VALID'))
      layers.activation_summary(x)
  with tf.variable_scope('dense'):
    x = tf.nn.relu(layers.dense(x, 64, _GLOROT))
    layers.activation_summary(x)
  with tf.variable_scope('softmax_linear'):
    return layers.dense(x, num_classes, _GLOROT)
