"""`Run`: what a training run is, kept beside its checkpoints as `run.json`.

Evaluation reads it, so that no forgotten flag can point it at another network
or other data, and training compares it, so that no run goes on as another one.
"""

import dataclasses
import json
import os
import platform
from typing import Optional

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10.data import records
from cifar10.recipe import Recipe
from cifar10.util.errors import UserError
from cifar10.util import fields
from cifar10.util.fields import field
from cifar10.util import filesystem

VERSION = 1
# What activations and products can be computed in; variables are float32.
DTYPES = 'float32', 'bfloat16', 'float16'


@dataclasses.dataclass(frozen=True)
class Run:
  """The arguments of a training run. None is for what is yet to be found out.

  Attributes:
    train_dir: where checkpoints, event files and run.json go.
    data_dir: where the record files are, or go.
    data_url: where to download from, instead of the known places: one URL, or
      several.
    dataset: name of the data, see dataset.py; None: what data_dir holds.
    record_format: of its records, found by `loop.prepare()`.
    network: name of the network, see networks/.
    recipe: its hyperparameters; None: those it was published with.
    init_from: checkpoint, or train_dir, whose variables to start from.
    batch_size: images per tower and step, instead of the recipe's.
    dtype: what the network computes in, one of DTYPES.
    num_towers: how many parts a step's images are split into.
    holdout: how many records, the last, are not trained on.
    num_examples: how many are, found by `loop.prepare()` too.
    checksum: of the files of training records, so too.
    max_steps: the step to stop at, counted from the first start; None: as
      many as the recipe's epochs take.
    seed: of initial weights, order and distortions.
    input: 'tfdata', or 'queue' for the tutorial's prefetch queues.
    min_fraction_of_examples_in_queue: how much of an epoch those hold.
    checkpoint_steps, summary_steps, log_frequency: steps from one checkpoint,
      summary, line of text to the next.
    keep_checkpoints: how many of the newest to keep.
    log_device_placement: whether to log where each operation runs.
  """
  train_dir: str = '/tmp/cifar10_train'
  data_dir: str = '/tmp/cifar10_data'
  data_url: tuple = ()
  dataset: Optional[str] = None
  record_format: Optional[records.Format] = None
  network: str = 'convnet'
  recipe: Optional[Recipe] = None
  init_from: Optional[str] = None
  batch_size: Optional[int] = field(None, minimum=1)
  dtype: str = field('float32', choices=DTYPES)
  num_towers: int = field(1, minimum=1)
  holdout: int = field(0, minimum=0)
  num_examples: Optional[int] = field(None, minimum=1)
  checksum: Optional[str] = None
  max_steps: Optional[int] = field(None, minimum=1)
  seed: int = field(1, minimum=0, maximum=2**31 - 1)
  input: str = field('tfdata', choices=('tfdata', 'queue'))
  min_fraction_of_examples_in_queue: float = field(0.4, minimum=0, maximum=1)
  checkpoint_steps: int = field(1000, minimum=1)
  summary_steps: int = field(100, minimum=1)
  log_frequency: int = field(10, minimum=1)
  keep_checkpoints: int = field(5, minimum=1, maximum=2**31 - 1)
  log_device_placement: bool = False

  def __post_init__(self):
    urls = self.data_url
    object.__setattr__(self, 'data_url', (urls,) if isinstance(urls, str)
                       else tuple(urls))
    for name in 'train_dir', 'data_dir', 'init_from':
      if isinstance(getattr(self, name), os.PathLike):
        object.__setattr__(self, name, os.fspath(getattr(self, name)))
    fields.check(self, '--{}={}')

  @property
  def global_batch(self):
    """Images in a step, over all towers."""
    return self.recipe.batch_size * self.num_towers

  def identity(self):
    """Returns what must stay the same for a run to be the same, by name.

    Not the number of towers, as they share out one global batch (where it
    matters all the same, `directory.describe()` sees to it), and not the
    length of the run, unless its steps depend on it.
    """
    recipe = dataclasses.asdict(self.recipe)
    del recipe['batch_size']
    if self.recipe.schedule != 'cosine' and not self.recipe.lookahead_steps:
      del recipe['epochs']
    return {'dataset': self.dataset, 'network': self.network,
            'init_from': self.init_from,
            'dtype': self.dtype, 'seed': self.seed,
            'global batch': self.global_batch,
            'number of training records': self.num_examples,
            'checksum of the training records': self.checksum,
            'record format': self.record_format, **recipe}


def path(train_dir):
  return os.path.join(train_dir, 'run.json')


def describe(run):
  """Returns what run.json says of a run."""
  return json.dumps({
      'version': VERSION,
      'run': dataclasses.asdict(run),
      'versions': {'python': platform.python_version(),
                   'tensorflow': tf.__version__, 'numpy': np.__version__}},
                    indent=2)


def save(run):
  """Writes run.json into the run's train_dir, all of it or nothing."""
  filesystem.write_text(path(run.train_dir), describe(run))


def load(train_dir):
  """Returns the `Run` that run.json in train_dir describes, None without one.

  Raises:
    UserError: it is not what `save()` writes.
  """
  if not os.path.exists(path(train_dir)):
    return None
  text = filesystem.read_text(path(train_dir))
  try:
    description = json.loads(text)
    if description['version'] != VERSION:
      raise ValueError(f'it is of version {description["version"]}, this '
                       f'program of version {VERSION}')
    run = description['run']
    run['recipe'] = Recipe(**run['recipe'])
    if run.get('record_format'):
      run['record_format'] = records.Format(**run['record_format'])
    return Run(**run)
  except (UserError, ValueError, KeyError, TypeError, RecursionError) as e:
    problem = e if isinstance(e, UserError) else f'{type(e).__name__}: {e}'
    raise UserError(f'{path(train_dir)}: is not a description of a run: '
                    f'{problem}') from e
