"""`Recipe`: all hyperparameters of a training run."""

import dataclasses
import math
import re

from cifar10.util import fields
from cifar10.util.errors import look_up
from cifar10.util.errors import UserError
from cifar10.util.fields import field


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a network is trained. An epoch is one pass over the training records.

  Attributes:
    epochs: length of the training, in epochs.
    batch_size: number of images per tower and step.
    crop_size: side of the square images that the network sees, in pixels. A
      value of at most 1 is a fraction of the records' shorter side.
    augmentation: distortion of training images, a name in
      augmentation.AUGMENTATIONS.
    alternating_flip: whether to mirror each image in every other epoch, before
      the augmentation: half of the images in the first epoch, the other half in
      the second epoch.
    normalization: normalization of pixel values in training and evaluation, a
      name in normalization.NORMALIZATIONS.
    optimizer: 'sgd', 'momentum', 'nesterov' or 'adam'.
    momentum: momentum of the optimizers momentum and nesterov.
    beta1, beta2, epsilon: parameters of the optimizer adam.
    learning_rate: base learning rate.
    learning_rate_batch: global batch size for which learning_rate is meant. The
      learning rate is scaled in proportion to the actual one. 0: not scaled.
    schedule: factor of the learning rate, a function of the epochs passed:
      'constant': 1;
      'exponential': decays by decay_factor every epochs_per_decay epochs;
      'piecewise': the factor of the last of the `knots` passed, 1 before;
      'linear': linear interpolation between the `knots`;
      'cosine': half a cosine wave, from 1 to 0 after `epochs`.
    decay_factor, epochs_per_decay: parameters of the schedule exponential.
    knots: tuple of (epoch, factor) pairs, in the order of their epochs.
    warmup_epochs: number of epochs in which a second factor of the learning
      rate rises linearly from 0 to 1.
    weight_decay: factor of the L2 loss, sum(w**2) / 2, of decayed variables.
    decayed_variables: regular expression for the full names of the variables
      that have weight decay.
    learning_rate_factor: factor of the learning rate of scaled variables. It
      multiplies their gradients, so it has almost no effect with adam. It does
      not change their weight decay.
    scaled_variables: regular expression for the full names of the variables
      that learning_rate_factor applies to.
    label_smoothing: fraction of each label that is spread over all classes.
    select: fraction of the images of each tower and step to train on: those
      with the largest losses in the selector. Epochs count all images; the loss
      is the mean over those selected.
    selector: name of a small network, which is trained in the same steps, to
      select images; see networks/selection.py. '': none. The names of its
      variables start with selector/.
    lookahead_steps: interval, in steps, at which the variables are set to a
      slow average of their values. 0: never.
    lookahead_decay: decay of the slow average at the end of the training.
      Before that, it is multiplied by the cube of the fraction of steps done.
    moving_average_decay: decay of the moving averages of the variables, which
      evaluation uses; at most (1 + step) / (10 + step). 0: no moving averages.
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
  select: float = field(1.0, positive=True, maximum=1)
  selector: str = ''
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
    if (self.select < 1) != bool(self.selector):
      raise UserError(f'recipe: select={self.select}, selector='
                      f'{self.selector!r}: expected a selector if select is '
                      'below 1, and none otherwise')
    for name in 'decayed_variables', 'scaled_variables':
      try:
        re.compile(getattr(self, name))
      except re.error as e:
        raise UserError(f'recipe: {name}={getattr(self, name)}: {e}') from e

  def crop(self, record_format):
    """Returns the side, in pixels, of the square images that a network sees of
    records of a `records.Format`."""
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
    """Returns the number of steps in `epochs`, rounded up."""
    return math.ceil(self.epochs * num_examples / global_batch)

  def changed(self):
    """Returns the fields that differ from their defaults, as 'name=value,...'
    for `override()`, which reads all but regular expressions with commas."""
    return ','.join(
        f'{declared.name}={_format(getattr(self, declared.name))}'
        for declared in dataclasses.fields(self)
        if getattr(self, declared.name) != declared.default)


def override(recipe, text) -> Recipe:
  """Changes fields of a recipe.

  Args:
    recipe: a `Recipe`.
    text: 'name=value,...'. Knots are epoch:factor pairs, like '0:0/5:1/24:0'.

  Returns:
    The changed `Recipe`.

  Raises:
    UserError: a field does not exist or is given twice, or a value is invalid.
  """
  declared = {field.name: field for field in dataclasses.fields(recipe)}
  changes = {}
  for assignment in filter(None, text.split(',')):
    name, _, value = assignment.partition('=')
    look_up(name, declared, 'recipe field')
    if name in changes:
      raise UserError(f'recipe: {name} is given twice: {text}')
    parse = _parse_knots if name == 'knots' else fields.parse
    try:
      changes[name] = parse(declared[name], value)
    except ValueError as e:
      raise UserError(f'recipe: {name}={value!r}: {e}') from e
  return dataclasses.replace(recipe, **changes)


def _parse_knots(unused_field, text):
  try:
    knots = (knot.split(':') for knot in text.split('/') if knot)
    return tuple((float(epoch), float(factor)) for epoch, factor in knots)
  except ValueError:
    raise ValueError('expected epoch:factor/epoch:factor') from None


def _format(value):
  if isinstance(value, tuple):
    return '/'.join(':'.join(map(_format, knot)) for knot in value)
  return str(value).removesuffix('.0' if isinstance(value, float) else '')
