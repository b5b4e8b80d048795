"""The Keras how-to's second network: six convolutions, batch normalization,
dropout, and images rotated, shifted, zoomed and flipped."""

import tensorflow.compat.v1 as tf

from cifar10.nn import layers
from cifar10.recipe import Recipe

RECIPE = Recipe(epochs=50, batch_size=64, learning_rate=1e-3, optimizer='adam',
                normalization='unit', augmentation='affine')
PUBLISHED = '80-85%'
MEASURED = '82.5%'


def inference(images, num_classes, tower=None):
  """float32 [n, height, width, depth] to logits, float32 [n, num_classes]."""
  x = images
  for i, (channels, rate) in enumerate(((32, 0.2), (64, 0.3), (128, 0.4)), 1):
    for j in 'ab':
      with tf.variable_scope(f'conv{i}{j}'):
        x = tf.nn.relu(layers.conv2d(x, 3, channels, layers.glorot_uniform(),
                                     bias=0.0))
        layers.activation_summary(x)
        x = layers.batch_norm(x, tower)
    with tf.variable_scope(f'pool{i}'):
      x = layers.dropout(tf.nn.max_pool2d(x, 2, 2, 'VALID'), rate, tower)
  with tf.variable_scope('dense'):
    x = tf.nn.relu(layers.dense(x, 128, layers.glorot_uniform()))
    layers.activation_summary(x)
    x = layers.dropout(layers.batch_norm(x, tower), 0.5, tower)
  with tf.variable_scope('softmax_linear'):
    return layers.dense(x, num_classes, layers.glorot_uniform())
