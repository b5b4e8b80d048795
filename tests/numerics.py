"""How far apart two ways of computing the same may come out.

Processors, versions of TensorFlow and numbers of towers add up in other orders,
and each addition rounds. The bounds here follow from that alone:

- **A sum.** An addition is wrong by up to u of its result, the unit roundoff:
  2**-24 in float32. Such errors are as often up as down, so n of them make
  sqrt(n) of one in the mean (Higham and Mary, 2019, "A new approach to
  probabilistic rounding error analysis"). One is evenly spread, so its
  deviation is u / sqrt(3), and 4 * sqrt(n) * u are seven deviations: what no
  processor reaches by chance. They are a part of what was added up, not of
  what is left of it where positive and negative terms cancel; so they count
  from the largest value of a tensor, for all of its values alike.
- **Steps.** Each adds its own error to that of the steps before.
- **Thresholds.** ReLU, max pooling and Adam's nearly constant steps are not
  continuous: the least error of a value beside the threshold changes a whole
  term of a gradient. Where values are wrong by a part e of their spread, about
  a part e of the terms change. Terms of random signs make a sum of sqrt(n) in
  the mean, so that the part e of them makes sqrt(e) of its length: of the
  tensor's, as nothing is known of a single element. And one value may always
  be that near, so e is at least one of all there are.
"""

import numpy as np
import tensorflow.compat.v1 as tf

# Half of the distance from 1 to the next number.
UNIT_ROUNDOFF = {'float64': 2**-53, 'float32': 2**-24, 'float16': 2**-11,
                 'bfloat16': 2**-8}


def rounding(terms, dtype='float32'):
  """Returns the relative error of a sum.

  Args:
    terms: how many values are added up, on all of the way to a result; or how
      often it is rounded, where sums are of a wider type.
    dtype: in what type.
  """
  return 4 * terms**0.5 * UNIT_ROUNDOFF[dtype]


def assert_close(found, expected, terms, steps=1, dtype='float32', scale=None,
                 name=''):
  """Asserts that two results of continuous functions differ by rounding only.

  Args:
    found, expected: arrays or numbers.
    terms: see `rounding()`.
    steps: how many steps, one starting from the results of the other.
    dtype: the less precise of the types in which they were computed.
    scale: the largest value that was added up; default: the largest expected.
      abs(expected), where each value has a sum of its own size.
    name: what they are called.
  """
  found, expected = (np.asarray(x, np.float64) for x in (found, expected))
  if scale is None:
    scale = abs(expected).max()
  bound = rounding(terms, dtype) * steps * scale
  error = abs(found - expected)
  assert found.shape == expected.shape and (error <= bound).all(), (
      f'{name}: {np.max(error)} apart, expected up to {np.max(bound)}\n'
      f'{found}\n{expected}')


def assert_close_in_length(found, expected, part, rest=0.0, name=''):
  """Asserts that two tensors that thresholds go into differ by rounding only.

  Args:
    found, expected: arrays.
    part: of the terms that may be others.
    rest: the length of the difference that there may be besides.
    name: what they are called.
  """
  error = np.linalg.norm(np.asarray(found, np.float64) - expected)
  bound = part**0.5 * np.linalg.norm(expected) + rest
  assert error <= bound, f'{name}: {error} apart, expected up to {bound}'


def assert_same_training(found, expected, start, terms, values, steps):
  """Asserts that two trainings in float32 differ by rounding only.

  Compares how far the variables came, since that is what the steps add up:
  beside the weights it is small. What is other in a step stays so, and starts
  the next: their parts add.

  Args:
    found, expected: the arrays of the two checkpoints, by name.
    start: those that both started from, by name: see `Start`.
    terms: how many values are added up from the images to the loss.
    values: how many the smallest layer with a threshold makes in a step.
    steps: how many they made.
  """
  assert found.keys() == expected.keys()
  part = steps * max(rounding(terms), 1 / values)
  for name, end in expected.items():
    begin = start[name]
    assert_close_in_length(found[name] - begin, end - begin, part,
                           # Each update rounds the sum too.
                           rounding(steps) * np.linalg.norm(end), name)


def assert_same_training_of_16_bits(found, expected, start, roundings, dtype):
  """Asserts that two short trainings with other numbers of towers differ by
  rounding only.

  Args:
    found, expected: the arrays of the two checkpoints, by name.
    start: those that both started from, by name: see `Start`.
    roundings: how often a value is rounded from the images to the logits.
    dtype: the type that they computed in.
  """
  # Half the images' gradients are rounded before they meet; from then on, all
  # that is rounded may be so another way, in each step by itself.
  part = rounding(roundings, dtype)
  for name, begin in start.items():
    if name.endswith('weights'):
      a, b = found[name] - begin, expected[name] - begin
      assert_close_in_length(a, b, part, name=name)
      # Along the training, what is lost is the part itself.
      share = (a * b).sum() / (b * b).sum()
      assert abs(share - 1) <= part, f'{name}: {share} of the length'


class Start(tf.train.SessionRunHook):
  """Keeps the values of the variables that a training starts from."""

  def begin(self):
    self._variables = {v.op.name: v for v in tf.global_variables()}

  def after_create_session(self, session, coord):
    self.values = session.run(self._variables)
