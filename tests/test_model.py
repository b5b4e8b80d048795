import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import model
from cifar10.recipe import Recipe
from tests import numerics
from tests.nn.test_layers import numpy_lrn

SHAPES = {
    'conv1/weights': [5, 5, 3, 64], 'conv1/biases': [64],
    'conv2/weights': [5, 5, 64, 64], 'conv2/biases': [64],
    'local3/weights': [2304, 384], 'local3/biases': [384],
    'local4/weights': [384, 192], 'local4/biases': [192],
    'softmax_linear/weights': [192, 10], 'softmax_linear/biases': [10]}
# What is added up on the way from the images to a logit.
TERMS = 75 + 1600 + 2304 + 384 + 192
pytestmark = pytest.mark.numerical


def test_variables_are_the_tutorials():
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    model.inference(tf.zeros([1, 24, 24, 3]), 10)
    variables = {v.op.name: v for v in tf.trainable_variables()}
    assert {name: v.shape.as_list() for name, v in variables.items()} == SHAPES
    assert sum(np.prod(shape) for shape in SHAPES.values()) == 1068298
    assert all(v.device == '/device:CPU:0' for v in variables.values())
    session.run(tf.global_variables_initializer())
    values = session.run(variables)
  for scope, stddev, bias in (('conv1', 0.05, 0), ('conv2', 0.05, 0.1),
                              ('local3', 0.04, 0.1), ('local4', 0.04, 0.1),
                              ('softmax_linear', 1 / 192, 0)):
    weights = values[f'{scope}/weights']
    assert abs(weights).max() <= 2 * stddev
    # What cutting off at two deviations leaves of the deviation.
    np.testing.assert_allclose(weights.std(), 0.88 * stddev, rtol=0.05)
    assert (values[f'{scope}/biases'] == np.float32(bias)).all()


def test_initial_values_depend_on_seed_and_name_alone():
  def initial(seed, ops_before):
    with tf.Graph().as_default(), tf.Session() as session:
      tf.set_random_seed(seed)
      for _ in range(ops_before):
        tf.random_uniform([])
      model.inference(tf.zeros([1, 24, 24, 3]), 10)
      session.run(tf.global_variables_initializer())
      return session.run(tf.trainable_variables()[2])

  np.testing.assert_array_equal(initial(1, 0), initial(1, 3))
  assert (initial(1, 0) != initial(2, 0)).any()


def test_inference_equals_numpy_for_any_batch_size():
  # So large that local response normalization divides by more than 1.
  images = np.random.default_rng(0).normal(scale=30, size=(3, 24, 24, 3))
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    placeholder = tf.placeholder(tf.float32, [None, 24, 24, 3])
    logits = model.inference(placeholder, 10)
    session.run(tf.global_variables_initializer())
    weights = session.run({v.op.name: v for v in tf.trainable_variables()})
    found = session.run(logits, {placeholder: images})
    one = session.run(logits, {placeholder: images[:1]})
  numerics.assert_close(found[:1], one, TERMS)

  def conv(x, scope):
    padded = np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)])
    size, kernel = x.shape[1], weights[f'{scope}/weights']
    x = sum(padded[:, i:i + size, j:j + size] @ kernel[i, j]
            for i in range(5) for j in range(5))
    return np.maximum(x + weights[f'{scope}/biases'], 0)

  def pool(x):
    # 'SAME' with stride 2 over an even size pads at the end only.
    padded = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)],
                    constant_values=-np.inf)
    size = x.shape[1]
    return np.max([padded[:, i:i + size:2, j:j + size:2]
                   for i in range(3) for j in range(3)], axis=0)

  def normalize(x):
    return numpy_lrn(x, 4, 1, 0.001 / 9)

  def dense(x, scope):
    return x @ weights[f'{scope}/weights'] + weights[f'{scope}/biases']

  x = normalize(pool(conv(images, 'conv1')))
  x = pool(normalize(conv(x, 'conv2'))).reshape(3, -1)
  x = np.maximum(dense(x, 'local3'), 0)
  x = np.maximum(dense(x, 'local4'), 0)
  numerics.assert_close(found, dense(x, 'softmax_linear'), TERMS)


def test_metrics():
  logits = np.float32([[2, 1, 0], [0, 0, 0], [0, 5, 1], [9, 9, 1]])
  labels = np.int32([0, 1, 1, 0])
  with tf.Graph().as_default(), tf.Session() as session:
    found = session.run(model.metrics(tf.constant(logits), labels))
    means = session.run(model.loss(tf.constant(logits), labels))
  probabilities = np.exp(np.float64(logits))
  probabilities /= probabilities.sum(1, keepdims=True)
  expected = -np.log(probabilities[range(4), labels])
  # Three powers are added up, of logits up to 9; and four images' values.
  numerics.assert_close(found['cross_entropy'], expected, 3, scale=9)
  # Of equal logits the first counts.
  assert found['Precision @ 1'].tolist() == [1, 0, 1, 1]
  numerics.assert_close(means['cross_entropy'], expected.mean(), 3 + 4, scale=9)
  assert means['Precision @ 1'] == 0.75


def test_steps_equal_numpys():
  """Update, weight decay, schedule, moving averages and averaged losses."""
  rng = np.random.default_rng(0)
  x, labels = rng.normal(size=(6, 5)), rng.integers(0, 3, 6)
  recipe = Recipe(epochs=1, batch_size=6, learning_rate=0.5,
                  schedule='exponential', decay_factor=0.1, epochs_per_decay=2,
                  weight_decay=0.3, moving_average_decay=0.25)
  steps = 8
  with tf.Graph().as_default(), tf.Session() as session:
    with tf.variable_scope('linear'):
      weights = tf.get_variable('weights', [5, 3], initializer=(
          tf.random_normal_initializer(seed=1)))
      biases = tf.get_variable('biases', [3], initializer=(
          tf.constant_initializer(0.1)))
    logits = tf.matmul(tf.constant(x, tf.float32), weights) + biases
    losses = model.loss(logits, tf.constant(labels, tf.int32))
    gradients = tf.gradients(losses['cross_entropy'], [weights, biases])
    # 14 examples an epoch, 6 a step: the rate falls at images 28 and 56.
    step = model.train(losses, gradients, recipe, 6, 14)
    summaries = tf.summary.merge_all()
    session.run(tf.global_variables_initializer())
    w, b = session.run([weights, biases])
    found, texts = zip(*[session.run([step, summaries]) for _ in range(steps)])
    final = session.run({v.op.name: v for v in tf.global_variables()})

  w_average, b_average, averaged_loss = w, b, 0.0
  # Products of five features, three powers, six images; fifteen weights'
  # squares; and the update.
  terms = 5 + 3 + 6 + 15 + 1
  for n in range(steps):
    rate = 0.5 * 0.1**(n * 6 // 28)
    logits = x @ w + b
    p = np.exp(logits)
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[range(6), labels]).mean() + 0.3 * (w**2).sum() / 2
    delta = (p - np.eye(3)[labels]) / 6
    w_gradient, b_gradient = x.T @ delta + 0.3 * w, delta.sum(0)

    assert found[n].step == n
    numerics.assert_close(found[n].learning_rate, rate, 1)
    numerics.assert_close(found[n].losses['total_loss'], loss, terms, n + 1)
    for name, gradient in ('weights', w_gradient), ('biases', b_gradient):
      numerics.assert_close(found[n].gradient_norms[f'linear/{name}'],
                            np.linalg.norm(gradient), terms, n + 1, name=name)
    averaged_loss = 0.9 * averaged_loss + 0.1 * loss
    values = {v.tag: v for v in tf.Summary.FromString(texts[n]).value}
    numerics.assert_close(values['loss/total_loss/raw'].simple_value, loss,
                          terms, n + 1)
    numerics.assert_close(values['loss/total_loss'].simple_value,
                          averaged_loss / (1 - 0.9**(n + 1)), terms, n + 1)

    w, b = w - rate * w_gradient, b - rate * b_gradient
    decay = min(0.25, (1 + n + 1) / (10 + n + 1))
    w_average = decay * w_average + (1 - decay) * w
    b_average = decay * b_average + (1 - decay) * b
    # The histogram is of the weights after the update.
    numerics.assert_close(values['linear/weights'].histo.sum, w.sum(), terms,
                          n + 1, scale=abs(w).sum())

  for name, expected in (
      ('linear/weights', w), ('linear/biases', b),
      ('linear/weights/ExponentialMovingAverage', w_average),
      ('linear/biases/ExponentialMovingAverage', b_average),
      ('total_loss/avg', averaged_loss), ('global_step', steps)):
    numerics.assert_close(final[name], expected, terms, steps, name=name)
  assert set(final) == {
      'linear/weights', 'linear/biases', 'global_step',
      'linear/weights/ExponentialMovingAverage',
      'linear/biases/ExponentialMovingAverage',
      'total_loss/avg', 'cross_entropy/avg'}


@pytest.mark.parametrize('num_examples, batch, steps', [
    (50000, 128, 100000), (100, 10, 2560), (3, 2, 384)])
def test_number_of_steps(num_examples, batch, steps):
  assert model.RECIPE.num_steps(num_examples, batch) == steps


def test_label_smoothing():
  logits = np.random.default_rng(0).normal(size=(6, 4)) * 3
  labels = np.arange(6) % 4
  with tf.Graph().as_default(), tf.Session() as session:
    losses = model.loss(tf.constant(logits, tf.float32),
                        tf.constant(labels, tf.int32), 0.2)
    assert model.objective(losses) is losses['smoothed_cross_entropy']
    found = session.run(losses)
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  wanted = 0.8 * np.eye(4)[labels] + 0.2 / 4
  for name, expected in (
      ('smoothed_cross_entropy', -(wanted * log_p).sum(1).mean()),
      ('cross_entropy', -log_p[range(6), labels].mean())):
    numerics.assert_close(found[name], expected, 4 + 4 + 6,
                          scale=abs(logits).max(), name=name)


def test_averages_of_losses_leave_out_what_is_not_finite():
  with tf.Graph().as_default(), tf.Session() as session:
    loss, step = tf.placeholder(tf.float32, []), tf.placeholder(tf.int64, [])
    averages = model._average_losses(
        {'cross_entropy': loss, 'total_loss': loss}, step)
    session.run(tf.global_variables_initializer())
    found = [session.run(averages['total_loss'], {loss: value, step: i})
             for i, value in enumerate([2.0, np.nan, 4.0, np.inf, 4.0])]
  kept = 0.1 * 2
  after_third = 0.9 * kept + 0.4
  numerics.assert_close(found, [
      2, kept / (1 - 0.9**2), after_third / (1 - 0.9**3),
      after_third / (1 - 0.9**4), (0.9 * after_third + 0.4) / (1 - 0.9**5)],
      terms=2, steps=5)
