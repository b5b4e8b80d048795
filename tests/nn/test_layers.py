import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10.nn import kernels
from cifar10.nn import layers
from cifar10.nn import summaries
from tests import numerics

pytestmark = pytest.mark.numerical
RNG = np.random.default_rng(0)


def run(fetches, session):
  session.run(tf.global_variables_initializer())
  return session.run(fetches)


@pytest.mark.parametrize('size', [2, 3])
def test_locally_connected_equals_numpy(size):
  x = RNG.normal(size=(2, 5, 4, 3))
  with tf.Graph().as_default(), tf.Session() as session:
    outputs = layers.locally_connected(
        tf.constant(x, tf.float32), size, 6,
        tf.truncated_normal_initializer(stddev=0.1), 0.5)
    found, (weights, biases) = run([outputs, tf.trainable_variables()], session)
  features = size**2 * 3
  assert weights.shape == (20, features, 6) and biases.shape == (5, 4, 6)
  # With an even size, the zero is after the image.
  padded = np.pad(x, [(0, 0), (size - 2, 1), (size - 2, 1), (0, 0)])
  for i in range(5):
    for j in range(4):
      patch = padded[:, i:i + size, j:j + size].reshape(2, features)
      numerics.assert_close(found[:, i, j], patch @ weights[4 * i + j] + 0.5,
                            features + 1)


def numpy_lrn(x, radius, bias, alpha):
  padded = np.pad(x**2, [(0, 0)] * 3 + [(radius, radius)])
  sums = sum(padded[..., i:i + x.shape[-1]] for i in range(2 * radius + 1))
  return x / (bias + alpha * sums)**0.75


def lrn_and_gradient(x, upstream, normalize, dtype=tf.float32):
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.constant(x, dtype)
    outputs = normalize(inputs)
    gradient, = tf.gradients(outputs, inputs, tf.constant(upstream, dtype))
    assert outputs.dtype == gradient.dtype == dtype
    return session.run([tf.cast(outputs, tf.float64),
                        tf.cast(gradient, tf.float64)])


@pytest.fixture(params=[False, True], ids=['cpu', 'gpu'])
def is_on_gpu(request, monkeypatch):
  """Says that operations are on a GPU, or that they are not."""
  monkeypatch.setattr(kernels, '_is_on_gpu', lambda op: request.param)


@pytest.mark.usefixtures('is_on_gpu')
@pytest.mark.parametrize('radius, channels', [(4, 64), (4, 5), (1, 3), (2, 9)])
def test_local_response_normalization_equals_tensorflows(radius, channels):
  x = RNG.normal(scale=3, size=(2, 3, 4, channels))
  upstream = RNG.normal(size=x.shape)
  found = lrn_and_gradient(
      x, upstream,
      lambda v: kernels.local_response_normalization(v, radius, 1.5, 0.2))
  expected = lrn_and_gradient(
      x, upstream, lambda v: tf.nn.lrn(v, radius, 1.5, 0.2, 0.75))
  for a, b in zip(found, expected):
    # Of the squares, twice in a gradient; and as many for a power.
    numerics.assert_close(a, b, 3 * (2 * radius + 1))


def test_the_gradient_of_local_response_normalization_is_its_slope():
  x = RNG.normal(size=(1, 2, 2, 12))
  upstream = RNG.normal(size=x.shape)
  outputs, gradient = lrn_and_gradient(
      x, upstream,
      lambda v: kernels.local_response_normalization(v, 4, 1.0, 0.3),
      tf.float64)
  numerics.assert_close(outputs, numpy_lrn(x, 4, 1.0, 0.3), 2 * 9,
                        dtype='float64')
  for index in np.ndindex(x.shape):
    step = np.zeros_like(x)
    step[index] = 1e-5
    slope = (upstream * (numpy_lrn(x + step, 4, 1.0, 0.3)
                         - numpy_lrn(x - step, 4, 1.0, 0.3))).sum() / 2e-5
    assert gradient[index] == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize('device', ['/cpu:0', '/gpu:0'])
def test_xla_is_for_cpus(device):
  with tf.Graph().as_default() as graph, tf.device(device):
    inputs = tf.zeros([1, 2, 2, 8])
    outputs = kernels.local_response_normalization(inputs, 4, 1.0, 0.3)
    tf.gradients(outputs, inputs)
  compiled = [op for op in graph.get_operations()
              if '_XlaMustCompile' in op.node_def.attr
              or '_XlaCompile' in op.node_def.attr]
  assert bool(compiled) == (device == '/cpu:0')


@pytest.mark.usefixtures('is_on_gpu')
@pytest.mark.parametrize('dtype, rounding', [(tf.bfloat16, 2**-8),
                                             (tf.float16, 2**-11)])
def test_local_response_normalization_of_16_bits_rounds_once(dtype, rounding):
  x = np.float64(RNG.integers(-100, 100, (2, 3, 3, 64))) / 8
  outputs, _ = lrn_and_gradient(
      x, x, lambda v: kernels.local_response_normalization(v, 4, 1.0, 0.01),
      dtype)
  np.testing.assert_allclose(outputs, numpy_lrn(x, 4, 1.0, 0.01),
                             rtol=1.01 * rounding, atol=1e-6)


def test_histograms_of_many_values_are_thinned_out_evenly():
  """Of a kernel, each row and each channel counts as often as any other."""
  shape = 3, 3, 256, 256
  places = np.indices(shape).reshape(4, -1)
  with tf.Graph().as_default(), tf.Session() as session:
    for axis, size in enumerate(shape):
      for i in range(0, size, size // 3):
        summaries.histogram(f'{axis} {i}', tf.constant(
            (places[axis] == i).reshape(shape), tf.float32))
    summaries.histogram('all', tf.ones([2**18 - 1, 1]))
    summary = tf.Summary.FromString(session.run(tf.summary.merge_all()))
  *parts, whole = summary.value
  assert whole.histo.num == whole.histo.sum == 2**18 - 1
  for value in parts:
    size = shape[int(value.tag[0])]
    assert value.histo.num == -(-3 * 3 * 256 * 256 // 5)
    # As evenly as places that are a multiple of 5 apart can be.
    assert abs(value.histo.sum / value.histo.num - 1 / size) < 0.01 / size


@pytest.mark.parametrize('shape', [(6, 3, 2, 4), (8, 4)])
def test_batch_norm_equals_numpy(shape):
  x = RNG.normal(3, 2, size=shape)
  axes = tuple(range(len(shape) - 1))
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.constant(x, tf.float32)
    with tf.variable_scope('a'):
      training = layers.batch_norm(inputs, True, momentum=0.9, epsilon=0.01)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    with tf.variable_scope('a', reuse=True):
      evaluation = layers.batch_norm(inputs, False, epsilon=0.01)
      layers.batch_norm(inputs, True)
    # The second tower updates nothing.
    assert tf.get_collection(tf.GraphKeys.UPDATE_OPS) == updates
    assert len(updates) == 2
    assert [v.op.name for v in tf.trainable_variables()] == [
        'a/batch_norm/scale', 'a/batch_norm/offset']
    before, trained = run([evaluation, training], session)
    session.run(updates)
    after = session.run(evaluation)
  mean, variance = x.mean(axes), x.var(axes)
  n = x.size // shape[-1]
  numerics.assert_close(before, x / np.sqrt(1.01), 3)
  numerics.assert_close(trained, (x - mean) / np.sqrt(variance + 0.01), n)
  # TensorFlow averages the unbiased estimate.
  moving = 0.9 + 0.1 * variance * n / (n - 1)
  numerics.assert_close(after, (x - 0.1 * mean) / np.sqrt(moving + 0.01), n)


def test_batch_norm_without_a_scale():
  x = RNG.normal(3, 2, size=(50, 4))
  with tf.Graph().as_default(), tf.Session() as session:
    with tf.variable_scope('a'):
      outputs = layers.batch_norm(tf.constant(x, tf.float32), True,
                                  epsilon=0, scale=False)
    assert [v.op.name for v in tf.trainable_variables()] == [
        'a/batch_norm/offset']
    found = run(outputs, session)
  numerics.assert_close(found, (x - x.mean(0)) / x.std(0), len(x))


def dropped(step=0, index=0, count=1, n=4000, scope='d', seed=1, rate=0.3):
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(seed)
    global_step = tf.train.get_or_create_global_step()
    with layers.tower(index, count), tf.variable_scope(scope):
      outputs = layers.dropout(tf.ones([n, 5]), rate, is_training=True)
    session.run(global_step.initializer)
    session.run(global_step.assign(step))
    return session.run(outputs)


def test_dropout_keeps_the_mean_and_depends_on_seed_scope_and_step_alone():
  whole = dropped()
  numerics.assert_close(np.unique(whole), [0, 1 / 0.7], terms=2)
  assert abs((whole == 0).mean() - 0.3) < 0.02
  np.testing.assert_array_equal(whole, dropped())
  for change in {'step': 1}, {'scope': 'e'}, {'seed': 2}:
    assert 0.35 < (whole != dropped(**change)).mean() < 0.5
  # Two towers drop what one does.
  np.testing.assert_array_equal(
      whole, np.concatenate([dropped(index=i, count=2, n=2000)
                             for i in range(2)]))


def test_a_scope_has_one_dropout():
  with tf.Graph().as_default():
    tf.train.get_or_create_global_step()
    for index in range(2):  # Towers use the same scope.
      with layers.tower(index, 2), tf.variable_scope('a'):
        layers.dropout(tf.ones([2]), 0.5, is_training=True)
    with tf.variable_scope('a'), pytest.raises(ValueError, match="scope 'a'"):
      layers.dropout(tf.ones([2]), 0.5, is_training=True)


def test_dropout_leaves_evaluation_alone():
  x = tf.constant([1.0])
  assert layers.dropout(x, 0.9, False) is x


def initial_value(name='v', seed=1, operations_before=0):
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(seed)
    for _ in range(operations_before):
      tf.constant(0)
    return run(layers.variable(name, [50, 4], tf.glorot_uniform_initializer()),
               session)


def test_initial_values_depend_on_seed_and_name_alone():
  value = initial_value()
  np.testing.assert_array_equal(value, initial_value(operations_before=3))
  assert (value != initial_value('w')).all()
  assert (value != initial_value(seed=2)).all()


def test_an_initializer_of_the_caller_stays_as_it_is():
  initializer = tf.glorot_uniform_initializer()
  with tf.Graph().as_default():
    layers.variable('v', [3, 3], initializer)
  assert initializer.seed is None
