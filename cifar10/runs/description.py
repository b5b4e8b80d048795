"""What a training run is: `Options` that a user chooses, and the `Run` that
they make, which is kept beside its checkpoints as `run.json`.

Evaluation reads run.json, so that no forgotten flag can point it at another
network or other data. Training compares it, so that a run is never resumed as
another one.
"""

import dataclasses
import hashlib
import json
import os
import platform
from typing import Optional

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10 import __version__
from cifar10 import networks
from cifar10.data import directories
from cifar10.data import records
from cifar10.recipe import Recipe
from cifar10.util import fields
from cifar10.util import filesystem
from cifar10.util.errors import UserError
from cifar10.util.fields import field

VERSION = 1
# Types of activations and products; variables are float32.
DTYPES = 'float32', 'bfloat16', 'float16'


@dataclasses.dataclass(frozen=True)
class Options:
  """What a user chooses for a training.

  Those with a description are flags of the training programs. `recipe` is None
  for the network's own recipe; `num_towers` is the number of equal parts that
  a step's images are split into.
  """
  train_dir: str = field(
      '/tmp/cifar10_train', nonempty='a directory',
      help='Directory of checkpoints and event files. A run that it holds is '
      'resumed.')
  data_dir: str = field(
      '/tmp/cifar10_data', nonempty='a directory',
      help='Directory of the data. If the data is not there, it is downloaded '
      'to it.')
  data_url: tuple = field(
      (), help='URL (also file://) of an archive of the data, in place of the '
      'known mirrors. May be repeated.')
  dataset: Optional[str] = field(
      None, choices=directories.DATASETS, help='The data. synthetic: 8,000 + '
      '2,000 generated pictures of shapes. Default: own if data_dir has it, '
      'else cifar10.')
  network: str = field('convnet', choices=networks.NETWORKS,
                       help='The network to train.')
  recipe: Optional[Recipe] = None
  init_from: Optional[str] = field(
      None, nonempty='a checkpoint', help='Checkpoint, or train_dir of '
      'another run, whose variables of the same names and shapes the run '
      'starts from.')
  dtype: str = field('float32', choices=DTYPES, help='Type that the network '
                     'computes in; variables are float32.')
  num_towers: int = field(1, minimum=1)
  reduce_dtype: str = field(
      'float32', choices=('float32', 'bfloat16'), help='Type in which the '
      'hosts of a cluster send each other gradients.')
  holdout: int = field(0, minimum=0, help='Number of training records, the '
                       'last, to keep for eval --eval_data=holdout.')
  max_steps: Optional[int] = field(
      None, minimum=1, help='Step to stop at, counted from the first start. '
      "Default: as many steps as the recipe's epochs take.")
  seed: int = field(1, minimum=0, maximum=2**31 - 1, help='Seed of the initial '
                    'weights, and of the order and distortions of the images.')
  input: str = field(
      'tfdata', choices=('tfdata', 'queue'), help="queue: the tutorial's "
      'prefetch queues; a resumed run then sees other images than an '
      'uninterrupted one.')
  min_fraction_of_examples_in_queue: float = field(
      0.4, minimum=0, maximum=1,
      help='Fraction of an epoch that the prefetch queue holds at least.')
  checkpoint_steps: int = field(1000, minimum=1,
                                help='Steps between checkpoints.')
  summary_steps: int = field(100, minimum=1, help='Steps between summaries.')
  log_frequency: int = field(10, minimum=1, help='Steps between lines of text.')
  keep_checkpoints: int = field(5, minimum=1, maximum=2**31 - 1,
                                help='Number of newest checkpoints to keep.')
  log_device_placement: bool = field(
      False, help='Log the device of each operation.')

  def __post_init__(self):
    urls = self.data_url
    object.__setattr__(self, 'data_url', (urls,) if isinstance(urls, str)
                       else tuple(urls))
    for name in 'train_dir', 'data_dir', 'init_from':
      if isinstance(getattr(self, name), os.PathLike):
        object.__setattr__(self, name, os.fspath(getattr(self, name)))
    fields.check(self, '--{}={}')


@dataclasses.dataclass(frozen=True)
class Run(Options):
  """A training run: options with nothing left open, made by
  `preparation.prepare()`.

  Runs of earlier versions and of the 2016 code did not note everything: what is
  None is not known.

  Attributes:
    record_format: `records.Format` of the data.
    num_examples: number of records in an epoch.
    checksum: checksum of the files of training records.
  """
  record_format: Optional[records.Format] = None
  num_examples: Optional[int] = field(None, minimum=1)
  checksum: Optional[str] = None

  @property
  def global_batch(self):
    """Images in a step, over all towers."""
    return self.recipe.batch_size * self.num_towers

  def identity(self):
    """Returns what makes this run the same run as another one, by name.

    The number of towers does not belong to it, as towers share one global batch
    (for exceptions see `directory.check_towers()`). Neither does the
    length of the run, unless its steps depend on it.
    """
    recipe = dataclasses.asdict(self.recipe)
    del recipe['batch_size']
    if self.recipe.schedule != 'cosine' and not self.recipe.lookahead_steps:
      del recipe['epochs']
    return {'dataset': self.dataset, 'network': self.network,
            'init_from': self.init_from,
            'dtype': self.dtype, 'reduce_dtype': self.reduce_dtype,
            'seed': self.seed,
            'global batch': self.global_batch,
            'number of training records': self.num_examples,
            'checksum of the training records': self.checksum,
            'record format': self.record_format, **recipe}

  def digest(self):
    """Returns a short text for `identity()`."""
    text = json.dumps(self.identity(), default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def path(train_dir):
  """Returns the path of run.json in a train_dir."""
  return os.path.join(train_dir, 'run.json')


def versions():
  """Returns the versions of this package and of what it runs on, by name."""
  return {'cifar10': __version__, 'tensorflow': tf.__version__,
          'numpy': np.__version__, 'python': platform.python_version()}


def to_json(run):
  """Returns the text of run.json for a `Run`."""
  return json.dumps({
      'version': VERSION,
      'run': dataclasses.asdict(run),
      'versions': versions()}, indent=2)


def save(run):
  """Writes run.json into the run's train_dir, atomically."""
  filesystem.write_text(path(run.train_dir), to_json(run))


def load(train_dir):
  """Returns the `Run` that run.json in a train_dir describes; None without it.

  Raises:
    UserError: run.json is not what `save()` writes.
  """
  if not os.path.exists(path(train_dir)):
    return None
  text = filesystem.read_text(path(train_dir))
  try:
    content = json.loads(text)
    if content['version'] != VERSION:
      raise ValueError(f'it is of version {content["version"]}, this '
                       f'program of version {VERSION}')
    run = content['run']
    run.pop('batch_size', None)  # Of earlier versions; the recipe has it.
    run['recipe'] = Recipe(**run['recipe'])
    if run.get('record_format'):
      run['record_format'] = records.Format(**run['record_format'])
    return Run(**run)
  except (AttributeError, KeyError, RecursionError, TypeError, UserError,
          ValueError) as e:
    problem = e if isinstance(e, UserError) else f'{type(e).__name__}: {e}'
    raise UserError(f'{path(train_dir)}: is not a description of a run: '
                    f'{problem}') from e
