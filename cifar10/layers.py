"""What networks are made of: variables on the CPU, layers, summaries.

Towers share one set of variables, so these live on the CPU, beside the place
where the towers' gradients meet (tutorial: "Training a Model Using Multiple GPU
Cards").
"""

import zlib

import tensorflow.compat.v1 as tf


def truncated_normal(name, shape, stddev):
  """Returns a float32 variable drawn from a truncated normal distribution.

  Its values depend on the graph's seed and on its full name alone: not on how
  many towers there are or what was built before it.

  Args:
    name: name within the current variable scope.
    shape: list of ints.
    stddev: standard deviation before truncation at two of them.
  """
  full_name = f'{tf.get_variable_scope().name}/{name}'
  initializer = tf.truncated_normal_initializer(
      stddev=stddev, seed=zlib.crc32(full_name.encode()))
  return _variable_on_cpu(name, shape, initializer)


def constant(name, shape, value):
  """Returns a float32 variable filled with `value`."""
  return _variable_on_cpu(name, shape, tf.constant_initializer(value))


def _variable_on_cpu(name, shape, initializer):
  with tf.device('/cpu:0'):
    return tf.get_variable(name, shape, tf.float32, initializer)


def conv2d(inputs, kernel_size, channels, stddev, bias):
  """Convolution, stride 1, zero padding to keep the size, and ReLU.

  Variables `weights` and `biases` belong to the current variable scope.

  Args:
    inputs: float32 [n, height, width, c].
    kernel_size: side of the square kernel.
    channels: how many feature maps to make.
    stddev: of the initial weights.
    bias: initial value of the biases.

  Returns:
    float32 [n, height, width, channels].
  """
  kernel = truncated_normal(
      'weights', [kernel_size, kernel_size, inputs.shape[-1], channels], stddev)
  biases = constant('biases', [channels], bias)
  products = tf.nn.conv2d(inputs, kernel, strides=1, padding='SAME')
  return tf.nn.relu(tf.nn.bias_add(products, biases))


def dense(inputs, units, stddev, bias):
  """Fully connected layer, without activation.

  Variables `weights` and `biases` belong to the current variable scope.

  Args:
    inputs: float32 [n, features].
    units: how many outputs to make.
    stddev: of the initial weights.
    bias: initial value of the biases.

  Returns:
    float32 [n, units].
  """
  weights = truncated_normal('weights', [inputs.shape[-1], units], stddev)
  biases = constant('biases', [units], bias)
  return tf.nn.bias_add(tf.matmul(inputs, weights), biases)


def activation_summary(activations):
  """Adds a histogram and the sparsity (fraction of zeros) of `activations`.

  Tags carry the name of the variable scope, `conv1/activations`, whatever
  tower this is. Only the tower that creates the variables adds them: the
  others, which reuse them, compute the same on other images.

  Args:
    activations: float tensor of any shape.
  """
  scope = tf.get_variable_scope()
  if scope.reuse:
    return
  histogram_summary(f'{scope.name}/activations', activations)
  scalar_summary(f'{scope.name}/sparsity', tf.nn.zero_fraction(activations))


# Summaries, on the CPU, where their kernels are. tf.summary.* would put the
# name scope into the tag, `tower_0/`, and replace all but letters and digits.


def scalar_summary(tag, value):
  """Collects a scalar summary under exactly this tag."""
  _collect(tf.raw_ops.ScalarSummary, tags=tag, values=value)


def histogram_summary(tag, values):
  """Collects a histogram summary under exactly this tag."""
  _collect(tf.raw_ops.HistogramSummary, tag=tag, values=values)


def image_summary(tag, images, max_images=3):
  """Collects the first pictures of an [n, height, width, depth] batch, each
  scaled to its own range, under `tag/image/0` and so on."""
  _collect(tf.raw_ops.ImageSummary, tag=tag, tensor=images,
           max_images=max_images)


def _collect(summary, **arguments):
  with tf.device('/cpu:0'):
    tf.add_to_collection(tf.GraphKeys.SUMMARIES, summary(**arguments))
