"""The Keras how-to's second network: six convolutions with batch normalization,
dropout, and random rotations, shifts, zooms and flips of the images."""

import tensorflow.compat.v1 as tf

from cifar10.nn import layers
from cifar10.recipe import Recipe

RECIPE = Recipe(epochs=50, batch_size=64, learning_rate=1e-3, optimizer='adam',
                normalization='unit', augmentation='affine')
PUBLISHED = '80-85%'
MEASURED = '82.5%'
# U(-x, x), x = sqrt(6 / (fan-in + fan-out)) (Glorot and Bengio, 2010).
_GLOROT = tf.glorot_uniform_initializer()


def inference(images, num_classes, is_training=False):
  """Returns [n, num_classes] logits of [n, height, width, depth] images."""
  x = images
  for i, (channels, rate) in enumerate(((32, 0.2), (64, 0.3), (128, 0.4)), 1):
    for j in 'ab':
      with tf.variable_scope(f'conv{i}{j}'):
        x = tf.nn.relu(layers.conv2d(x, 3, channels, _GLOROT,
                                     bias=0.0))
        layers.activation_summary(x)
        x = layers.batch_norm(x, is_training)
    with tf.variable_scope(f'pool{i}'):
      x = layers.dropout(tf.nn.max_pool2d(x, 2, 2, 'VALID'), rate, is_training)
  with tf.variable_scope('dense'):
    x = tf.nn.relu(layers.dense(x, 128, _GLOROT))
    layers.activation_summary(x)
    x = layers.dropout(layers.batch_norm(x, is_training), 0.5, is_training)
  with tf.variable_scope('softmax_linear'):
    return layers.dense(x, num_classes, _GLOROT)
