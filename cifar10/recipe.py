"""`Recipe`: every hyperparameter of a training run, in one place."""

import dataclasses
import math
import re

from cifar10 import look_up
from cifar10 import UserError


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a network is trained. An epoch is one pass over the training records.

  Attributes:
    epochs: length of the training.
    batch_size: images per tower and step.
    crop_size: side, in pixels, of the square images the network sees.
    augmentation: how training images are distorted; a name in
      augmentation.AUGMENTATIONS.
    normalization: what is done to pixel values, in training and evaluation; a
      name in augmentation.NORMALIZATIONS.
    optimizer: 'sgd', 'momentum', 'nesterov' or 'adam'.
    momentum: of momentum and nesterov.
    beta1, beta2, epsilon: of adam.
    learning_rate: the highest.
    learning_rate_batch: the global batch that it is meant for, to scale it
      with the one there is; 0: for any.
    schedule: what it is multiplied by, a function of epochs passed:
      'constant': 1;
      'exponential': decay_factor, each time epochs_per_decay have passed;
      'piecewise': the factor of the last of the `knots` passed, 1 before;
      'linear': a straight line from each of the `knots` to the next;
      'cosine': half a wave, from 1 to 0 after `epochs`.
    decay_factor, epochs_per_decay: of exponential.
    knots: tuple of (epoch, factor) pairs, in the order of their epochs.
    warmup_epochs: it also rises from 0 during so many epochs.
    weight_decay: factor of the L2 loss, sum(w**2) / 2, of the variables...
    decayed_variables: ...whose names this regular expression matches whole.
    moving_average_decay: of the averages of the variables that evaluation
      uses; early on it is min(this, (1 + step) / (10 + step)). With 0, there
      are none.
  """
  epochs: float
  batch_size: int
  learning_rate: float
  crop_size: int = 32
  augmentation: str = 'none'
  normalization: str = 'per_image'
  optimizer: str = 'sgd'
  momentum: float = 0.9
  beta1: float = 0.9
  beta2: float = 0.999
  epsilon: float = 1e-7
  learning_rate_batch: int = 0
  schedule: str = 'constant'
  decay_factor: float = 0.1
  epochs_per_decay: float = 1.0
  knots: tuple = ()
  warmup_epochs: float = 0.0
  weight_decay: float = 0.0
  decayed_variables: str = '.*/weights'
  moving_average_decay: float = 0.0

  def __post_init__(self):
    # As JSON has lists.
    object.__setattr__(self, 'knots', tuple(map(tuple, self.knots)))
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type in (int, float) and not (
          value >= 0 and math.isfinite(value)):
        raise UserError(f'recipe: {field.name}={value}: expected 0 or more')
    for name in 'epochs', 'batch_size', 'crop_size', 'epochs_per_decay':
      if not getattr(self, name):
        raise UserError(f'recipe: {name}=0: expected more')
    starts = [epoch for epoch, _ in self.knots]
    if starts != sorted(set(starts)):
      raise UserError(f'recipe: knots={_format(self.knots)}: expected epochs '
                      'in rising order')
    try:
      re.compile(self.decayed_variables)
    except re.error as e:
      raise UserError(f'recipe: decayed_variables={self.decayed_variables}: '
                      f'{e}') from e

  def num_steps(self, num_examples, global_batch):
    """Returns the steps that `epochs` take, the last batch counted whole."""
    return math.ceil(self.epochs * num_examples / global_batch)

  def changed(self):
    """Returns what differs from the defaults, 'name=value,...', as
    `override()` reads it."""
    return ','.join(
        f'{field.name}={_format(getattr(self, field.name))}'
        for field in dataclasses.fields(self)
        if getattr(self, field.name) != field.default)


def override(recipe, text):
  """Changes fields of a recipe.

  Args:
    recipe: a `Recipe`.
    text: 'name=value,...'; knots as epoch:factor pairs, '0:0/5:1/24:0'.

  Returns:
    The changed `Recipe`.

  Raises:
    UserError: there is no such field, or it takes no such value.
  """
  types = {field.name: field.type for field in dataclasses.fields(recipe)}
  changes = {}
  for assignment in filter(None, text.split(',')):
    name, _, value = assignment.partition('=')
    kind = look_up(name, types, 'recipe field')
    try:
      changes[name] = _parse(kind, value)
    except ValueError as e:
      expected = ('epoch:factor/epoch:factor' if kind is tuple
                  else kind.__name__)
      raise UserError(f'recipe: {name}={value!r}: expected {expected}') from e
  return dataclasses.replace(recipe, **changes)


def _parse(kind, value):
  if kind is tuple:
    knots = (knot.split(':') for knot in value.split('/') if knot)
    return tuple((float(epoch), float(factor)) for epoch, factor in knots)
  return kind(value)


def _format(value):
  if isinstance(value, tuple):
    return '/'.join(f'{epoch}:{factor}' for epoch, factor in value)
  return str(value)
