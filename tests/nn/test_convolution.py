"""Convolution, its gradients, and when they are of images put together."""

import collections

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import multi_gpu_train
from cifar10.nn import kernels
from cifar10.runs import preparation

pytestmark = pytest.mark.numerical


@pytest.fixture
def onednn(monkeypatch):
  """Says that oneDNN computes all types, to tests that do not run any."""
  monkeypatch.setattr(kernels, '_onednn_computes', lambda dtype: True)


def numpy_kernel_gradient(inputs, upstream, size):
  n, height, width, _ = inputs.shape
  margin = size // 2
  padded = np.pad(inputs, [(0, 0), (margin,) * 2, (margin,) * 2, (0, 0)])
  return np.array([[np.einsum(
      'nyxi,nyxo->io', padded[:, y:y + height, x:x + width], upstream)
      for x in range(size)] for y in range(size)])


def convolve(images_shape, size, channels, dtype='bfloat16', strides=1,
              padding='SAME'):
  """Returns our results and gradients, tf.nn.conv2d()'s, what they are of, and
  the graph."""
  rng = np.random.default_rng(0)
  with tf.Graph().as_default() as graph, tf.Session() as session:
    # Small integers, whose sums bfloat16 represents: there is no rounding.
    inputs, kernel = (
        tf.constant(rng.integers(-1, 2, shape), dtype)
        for shape in (images_shape, [size, size, images_shape[-1], channels]))
    fetches = []
    for function in kernels.conv2d, tf.nn.conv2d:
      outputs = function(inputs, kernel, strides, padding)
      upstream = tf.constant(
          np.random.default_rng(1).integers(-1, 2, outputs.shape), dtype)
      fetches += [outputs, *tf.gradients(outputs, [inputs, kernel], upstream)]
    ours, theirs = fetches[:3], fetches[3:]
    values = session.run([[tf.cast(x, tf.float32) for x in xs] for xs in (
        ours, theirs, (inputs, upstream))])
  return *values, graph


def types_of(graph):
  return {op.type for op in graph.get_operations()}


def types_of_convolutions(graph):
  """Returns the types that the first convolution and its gradients compute
  in."""
  first = {}
  for op in graph.get_operations():
    if op.type.startswith('Conv2D'):
      first.setdefault(op.type, op.get_attr('T'))
  assert len(first) == 3
  return set(first.values())


def check_equals_numpys(ours, theirs, arguments, size):
  """Checks the gradient of the kernel with numpy, as TensorFlow's own can be
  the same code."""
  for our, their in zip(ours[:2], theirs[:2]):
    np.testing.assert_array_equal(our, their)
  np.testing.assert_array_equal(
      ours[2], numpy_kernel_gradient(*arguments, size))


SMALL_IMAGES = pytest.mark.parametrize('shape, size, channels', [
    ([8, 7, 7, 5], 3, 6), ([6, 4, 5, 3], 5, 2), ([30, 3, 3, 4], 3, 4),
    ([3, 8, 8, 2], 1, 3)])


@SMALL_IMAGES
def test_convolution_of_images_put_together(shape, size, channels):
  if not kernels._onednn_computes(tf.bfloat16):
    pytest.skip('oneDNN does not compute bfloat16 here')
  *values, graph = convolve(shape, size, channels)
  assert 'Transpose' in types_of(graph)
  assert types_of_convolutions(graph) == {tf.bfloat16}
  check_equals_numpys(*values, size)


@SMALL_IMAGES
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_without_onednn_convolutions_are_of_float32(
    monkeypatch, shape, size, channels, dtype):
  monkeypatch.setattr(kernels, '_onednn_computes', lambda dtype: False)
  *values, graph = convolve(shape, size, channels, dtype)
  assert 'Transpose' not in types_of(graph)
  assert types_of_convolutions(graph) == {tf.float32}
  check_equals_numpys(*values, size)


@pytest.mark.usefixtures('onednn')
@pytest.mark.parametrize('shape, arguments', [
    ([8, 7, 7, 5], {'dtype': 'float32'}), ([7, 7, 7, 5], {}),
    ([2, 3, 3, 5], {}), ([8, 15, 15, 2], {}), ([8, 7, 7, 5], {'strides': 2}),
    ([8, 7, 7, 5], {'padding': 'VALID'})])
def test_other_convolutions_are_tensorflows(shape, arguments):
  ours, theirs, _, graph = convolve(shape, 3, 4, **arguments)
  assert 'Transpose' not in types_of(graph)
  for our, their in zip(ours, theirs):
    np.testing.assert_array_equal(our, their)


@pytest.mark.parametrize('onednn', [True, False])
@pytest.mark.parametrize('device', ['/gpu:0', None])
def test_on_gpus_convolutions_and_gradients_are_tensorflows(
    monkeypatch, onednn, device):
  monkeypatch.setattr(kernels, '_onednn_computes', lambda dtype: onednn)
  monkeypatch.setattr(tf.config, 'list_physical_devices',
                      lambda kind: [] if device else [kind])
  with tf.Graph().as_default() as graph, tf.device(device):
    inputs = tf.zeros([8, 7, 7, 5], tf.bfloat16)
    kernel = tf.zeros([3, 3, 5, 6], tf.bfloat16)
    tf.gradients(kernels.conv2d(inputs, kernel, 1, 'SAME'), [inputs, kernel])
  assert 'Transpose' not in types_of(graph)
  assert types_of_convolutions(graph) == {tf.bfloat16}


@pytest.mark.usefixtures('onednn')
def test_which_of_airnets_images_are_put_together(make_run):
  run, data = preparation.prepare(make_run(network='airnet', dtype='bfloat16',
                                        batch_size=16))
  with tf.Graph().as_default() as graph:
    multi_gpu_train.build(run, data, ['/cpu:0'])
  dilations = collections.Counter(
      (op.name.split('tower_0/')[-1].partition('/Conv2D')[0],
       op.get_attr('dilations')[2])
      for op in graph.get_operations() if op.type.startswith('Conv2D'))
  # Each convolution has two gradients.
  assert dilations == dict.fromkeys(
      [('block1/conv1', 1), ('block1/conv2', 1), ('block2/conv1', 1),
       ('block2/conv2', 4), ('block3/conv1', 4), ('block3/conv2', 8)], 3)
