"""Local response normalization, with a gradient of its own."""

import functools
import uuid

import tensorflow.compat.v1 as tf


def local_response_normalization(inputs, radius, bias, alpha):
  """Divides each value by (bias + alpha * sum of squares)**0.75, the sum being
  over the channels up to `radius` away (Krizhevsky et al., 2012).

  The function of tf.nn.lrn, and its gradient, in fewer passes over memory and
  for bfloat16 too: XLA makes one loop of all that happens to a value. The sums
  are made anew for the gradient, as that takes less time than to keep them.

  Args:
    inputs: [n, height, width, channels].
    radius: how many channels on either side to take in.
    bias, alpha: see above.

  Returns:
    Tensor of the shape of `inputs`.
  """
  with tf.xla.experimental.jit_scope():
    x = _widen(inputs)
    _, powers = _scales_and_powers(x, radius, bias, alpha)
    outputs = tf.cast(x * powers, inputs.dtype)
  with tf.get_default_graph().gradient_override_map({
      'IdentityN': _register_lrn_gradient(radius, bias, alpha)}):
    return tf.identity_n([outputs, inputs])[0]


@functools.lru_cache(maxsize=None)
def _register_lrn_gradient(radius, bias, alpha):
  """Returns the name of the gradient for tf.identity_n([outputs, inputs]).

  It is registered once. tf.custom_gradient registers one at each call, which
  keeps the graph it was called in for as long as the process lives.
  """
  def gradient(identity, upstream, _):
    inputs = identity.inputs[1]
    with tf.xla.experimental.jit_scope():
      x, dy = _widen(inputs), _widen(upstream)
      scales, powers = _scales_and_powers(x, radius, bias, alpha)
      sums = _window_sums(dy * x * powers / scales, radius)
      return None, tf.cast(dy * powers - 1.5 * alpha * x * sums, inputs.dtype)

  name = f'LocalResponseNormalization-{uuid.uuid4()}'
  tf.RegisterGradient(name)(gradient)
  return name


def _widen(x):
  return tf.cast(x, tf.float32) if x.dtype.size < 4 else x


def _scales_and_powers(x, radius, bias, alpha):
  scales = bias + alpha * _window_sums(tf.square(x), radius)
  return scales, tf.rsqrt(scales * tf.sqrt(scales))  # tf.pow takes longer.


def _window_sums(x, radius):
  x = tf.pad(x, [[0, 0], [0, 0], [0, 0], [radius, radius]])
  return _sums_of_neighbours(x, 2 * radius + 1)


def _sums_of_neighbours(x, count):
  """Sums each `count` values in a row along the last axis: [..., c] to
  [..., c - count + 1], in about 2 log2(count) additions a value."""
  if count == 1:
    return x
  half = count // 2
  halves = _sums_of_neighbours(x, half)
  sums = halves[..., :-half] + halves[..., half:]
  return sums[..., :-1] + x[..., count - 1:] if count % 2 else sums
