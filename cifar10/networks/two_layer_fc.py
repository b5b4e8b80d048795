"""120 hidden units on pixels minus their means."""

import tensorflow.compat.v1 as tf

from cifar10.nn import layers
from cifar10.recipe import Recipe

# Published: 2,000 steps of 400 images of 50,000.
RECIPE = Recipe(epochs=16, batch_size=400, learning_rate=0.001,
                normalization='mean_image', weight_decay=0.1)
PUBLISHED = '46.3% in 98 s'
MEASURED = '46.1% +- 0.5 after 2,000 steps'


def inference(images, num_classes, tower=None):
  """float32 [n, height, width, depth] to logits, float32 [n, num_classes]."""
  del tower
  features = images.shape[1:].num_elements()
  with tf.variable_scope('hidden'):
    hidden = tf.nn.relu(layers.dense(
        images, 120, layers.truncated_normal(features**-0.5)))
    layers.activation_summary(hidden)
  with tf.variable_scope('softmax_linear'):
    logits = layers.dense(hidden, num_classes,
                          layers.truncated_normal(120**-0.5))
    layers.activation_summary(logits)
  return logits
