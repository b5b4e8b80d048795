"""A small, fast network: three blocks of two convolutions on whitened pixels.

The network follows airbench94 (Jordan, 2024, arXiv:2404.00498) and the earlier
cifar10-fast. Its input is the `whiten` normalization: 2x2 patches of pixels,
decorrelated with statistics of the training images. airnet95 and airnet96 are
larger ones.
"""

import tensorflow.compat.v1 as tf

from cifar10.nn import layers
from cifar10.recipe import Recipe

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


def _fan_in_uniform():
  """Returns an initializer for U(-x, x), where x = 1 / sqrt(fan-in).

  This is the default of PyTorch's layers.
  """
  return tf.variance_scaling_initializer(1 / 3, 'fan_in', 'uniform')


class Dirac:
  """Initializes kernels so that their first outputs equal their inputs.

  This is the Dirac initialization of Zagoruyko and Komodakis (2017). The
  weights of the other outputs are initialized by `_fan_in_uniform()`.
  """
  seed = None

  def __call__(self, shape, dtype=tf.float32, partition_info=None):
    del partition_info
    height, width, inputs, outputs = shape
    identity = tf.pad(tf.eye(inputs, outputs, dtype=dtype)[None, None], [
        [height // 2, (height - 1) // 2], [width // 2, (width - 1) // 2],
        [0, 0], [0, 0]])
    uniform = _fan_in_uniform()
    uniform.seed = self.seed
    return tf.where_v2(tf.range(outputs) < inputs, identity,
                       uniform(shape, dtype))


def inference(images, num_classes, is_training=False, widths=(64, 256, 256),
              depth=2, momentum=0.6):
  """Builds the network.

  Args:
    images: [n, height, width, c] whitened patches.
    num_classes: number of classes.
    is_training: whether batches are normalized with their own statistics.
    widths: numbers of channels of the blocks.
    depth: number of convolutions of a block. The result of the first is added
      to that of the last, if there are three or more.
    momentum: share of the moving statistics that a step keeps.

  Returns:
    [n, num_classes] logits.
  """
  with tf.variable_scope('whitened'):
    x = tf.concat([images, -images], 3)
    x = tf.nn.relu(layers.add_biases(x, 0.0))
  for i, width in enumerate(widths, 1):
    with tf.variable_scope(f'block{i}'):
      x = _block(x, width, depth, is_training, momentum)
      layers.activation_summary(x)
  with tf.variable_scope('logits'):
    x = tf.reduce_max(x, [1, 2])
    return layers.dense(x, num_classes, _fan_in_uniform(), bias=None) / 9


def _block(x, width, depth, is_training, momentum):
  """Halves height and width."""
  def batch_norm(x):
    return layers.batch_norm(x, is_training, momentum, epsilon=1e-12,
                             scale=False)

  with tf.variable_scope('conv1'):
    x = layers.conv2d(x, 3, width, Dirac())
    x = tf.nn.max_pool2d(x, 2, 2, 'VALID')
    first = x = tf.nn.relu(batch_norm(x))
  for i in range(2, depth + 1):
    with tf.variable_scope(f'conv{i}'):
      x = batch_norm(layers.conv2d(x, 3, width, Dirac()))
      x = tf.nn.relu(x + first if i == depth > 2 else x)
  return x
