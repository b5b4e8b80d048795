"""`Recipe`: every hyperparameter of a training run, in one place."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a network is trained. An epoch is one pass over the training records.

  Attributes:
    epochs: length of the training.
    batch_size: images per tower and step.
    crop_size: side, in pixels, of the square images the network sees.
    learning_rate: of gradient descent, at the start.
    learning_rate_decay_factor: it is multiplied by this...
    epochs_per_decay: ...each time so many epochs have passed.
    weight_decay: factor of the L2 loss, sum(w**2) / 2, of the variables...
    decayed_variables: ...whose names this regular expression matches whole.
    moving_average_decay: of the averages of the variables that evaluation
      uses; early on it is min(this, (1 + step) / (10 + step)).
  """
  epochs: float
  batch_size: int
  crop_size: int
  learning_rate: float
  learning_rate_decay_factor: float
  epochs_per_decay: float
  weight_decay: float
  decayed_variables: str
  moving_average_decay: float

  def num_steps(self, num_examples, global_batch):
    """Returns the steps that `epochs` take, the last batch counted whole."""
    return math.ceil(self.epochs * num_examples / global_batch)
