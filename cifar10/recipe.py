"""`Recipe`: every hyperparameter of a training run, in one place."""

import dataclasses
import math
import re

from cifar10.util.errors import look_up
from cifar10.util.errors import UserError
from cifar10.util import fields
from cifar10.util.fields import field


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a network is trained. An epoch is one pass over the training records.

  Attributes:
    epochs: length of the training.
    batch_size: images per tower and step.
    crop_size: side of the square images the network sees, in pixels; or, if it
      is 1 or less, as a part of the records' shorter side.
    augmentation: how training images are distorted; a name in
      augmentation.AUGMENTATIONS.
    alternating_flip: whether each image is mirrored every other epoch, before
      that: half of them in the first, the others in the second.
    normalization: what is done to pixel values, in training and evaluation; a
      name in normalization.NORMALIZATIONS.
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
    learning_rate_factor: how many times as fast variables learn...
    scaled_variables: ...whose names this regular expression matches whole.
    label_smoothing: the part of each label that goes to all classes alike.
    lookahead_steps: after so many steps at a time, the variables go back to a
      slow average of them, which they then start from; with 0, never.
    lookahead_decay: of that average, at the end of the training; before, it is
      less by the cube of the part that is done.
    moving_average_decay: of the averages of the variables that evaluation
      uses; early on it is min(this, (1 + step) / (10 + step)). With 0, there
      are none.
  """
  epochs: float = field(positive=True)
  batch_size: int = field(minimum=1)
  learning_rate: float = field(minimum=0)
  crop_size: float = field(1.0, positive=True)
  augmentation: str = 'none'
  alternating_flip: bool = False
  normalization: str = 'per_image'
  optimizer: str = 'sgd'
  momentum: float = field(0.9, minimum=0, below=1)
  beta1: float = field(0.9, minimum=0, below=1)
  beta2: float = field(0.999, minimum=0, below=1)
  epsilon: float = field(1e-7, positive=True)
  learning_rate_batch: int = field(0, minimum=0)
  schedule: str = 'constant'
  decay_factor: float = field(0.1, minimum=0)
  epochs_per_decay: float = field(1.0, positive=True)
  knots: tuple = ()
  warmup_epochs: float = field(0.0, minimum=0)
  weight_decay: float = field(0.0, minimum=0)
  decayed_variables: str = '.*/weights'
  learning_rate_factor: float = field(1.0, minimum=0)
  scaled_variables: str = ''
  label_smoothing: float = field(0.0, minimum=0, below=1)
  lookahead_steps: int = field(0, minimum=0)
  lookahead_decay: float = field(0.77, minimum=0, maximum=1)
  moving_average_decay: float = field(0.0, minimum=0, maximum=1)

  def __post_init__(self):
    try:  # JSON has lists.
      knots = tuple((float(epoch), float(factor))
                    for epoch, factor in self.knots)
    except (OverflowError, TypeError, ValueError):
      knots = None
    starts = [epoch for epoch, _ in knots or ()]
    if knots is None or starts != sorted(set(starts)) or not all(
        map(math.isfinite, sum(knots, ()))):
      raise UserError(f'recipe: knots={self.knots}: expected pairs of '
                      'epoch and factor, the epochs rising')
    object.__setattr__(self, 'knots', knots)
    fields.check(self, 'recipe: {}={}')
    for name in 'decayed_variables', 'scaled_variables':
      try:
        re.compile(getattr(self, name))
      except re.error as e:
        raise UserError(f'recipe: {name}={getattr(self, name)}: {e}') from e

  def crop(self, record_format):
    """Returns the side, in pixels, of the images that a network sees of records
    of a `records.Format`."""
    side = min(record_format.height, record_format.width)
    if self.crop_size <= 1:
      return min(side, max(2, round(self.crop_size * side)))
    if self.crop_size > side or self.crop_size % 1:
      raise UserError(
          f'recipe: crop_size={self.crop_size}: expected up to 1, or pixels up '
          f'to {side} of records of {record_format.height}x'
          f'{record_format.width}')
    return int(self.crop_size)

  def num_steps(self, num_examples, global_batch):
    """Returns the steps that `epochs` take, the last batch counted whole."""
    return math.ceil(self.epochs * num_examples / global_batch)

  def changed(self):
    """Returns what differs from the defaults, 'name=value,...', as
    `override()` reads it."""
    return ','.join(
        f'{declared.name}={_format(getattr(self, declared.name))}'
        for declared in dataclasses.fields(self)
        if getattr(self, declared.name) != declared.default)


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
  types = {declared.name: declared.type
           for declared in dataclasses.fields(recipe)}
  changes = {}
  for assignment in filter(None, text.split(',')):
    name, _, value = assignment.partition('=')
    kind = look_up(name, types, 'recipe field')
    if name in changes:
      raise UserError(f'recipe: {name} is given twice: {text}')
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
  if kind is bool:
    return {'true': True, 'false': False}.get(value.lower(), value)
  return kind(value)


def _format(value):
  if isinstance(value, tuple):
    return '/'.join(f'{epoch:g}:{factor:g}' for epoch, factor in value)
  return str(value)
