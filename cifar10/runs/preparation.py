"""Makes a `Run` of `Options`: gets the data, and checks that they fit."""

import dataclasses
import functools
import os

from cifar10 import inputs
from cifar10 import networks
from cifar10.data import datasets
from cifar10.networks import sizes
from cifar10.runs import checkpoints
from cifar10.runs.description import Run
from cifar10.util.errors import UserError


def prepare(options, augment=None):
  """Gets the data of a training, and resolves what its options leave open.

  Args:
    options: the `Options`.
    augment: function to use in place of the recipe's augmentation, if any.

  Returns:
    run: the `Run`.
    data: its `directories.Dataset`.

  Raises:
    UserError: the data is not available, or the options do not fit it.
  """
  checkpoints.check_path(os.path.abspath(options.train_dir))
  recipe = options.recipe or networks.find(options.network).RECIPE
  if augment:
    recipe = dataclasses.replace(
        recipe, augmentation=inputs.CUSTOM + _name_of(augment))
  data = datasets.ensure(options.dataset, options.data_dir, options.data_url)
  num_examples = len(data.train) - options.holdout
  if num_examples <= 0:
    raise UserError(f'--holdout={options.holdout}: leaves nothing of '
                    f'{len(data.train):,} records to train on')
  if options.input == 'queue' and (options.holdout or recipe.alternating_flip):
    raise UserError('--input=queue: reads whole files, and knows no epochs: '
                    'expected no --holdout and no alternating_flip')
  # Published recipes give sizes for 32x32 images.
  recipe = dataclasses.replace(recipe, crop_size=recipe.crop(data.format))
  sizes.check(options.network, recipe, data.format, augment)
  run = Run(**{
      **vars(options),
      'recipe': recipe, 'dataset': data.name, 'record_format': data.format,
      'num_examples': num_examples, 'checksum': data.checksum,
      'train_dir': os.path.abspath(options.train_dir),
      'data_dir': os.path.abspath(options.data_dir),
      'data_url': (),  # It can hold a signature, and the data is there now.
      'init_from': options.init_from and checkpoints.path_of(
          options.init_from)})
  if run.global_batch > num_examples:
    raise UserError(
        f'--batch_size={recipe.batch_size}: a step of {run.num_towers} towers '
        f'takes {run.global_batch:,} images; there are {num_examples:,} to '
        'train on')
  if run.max_steps is None:
    run = dataclasses.replace(run, max_steps=recipe.num_steps(
        run.num_examples, run.global_batch))
  return run, data


def _name_of(function):
  while isinstance(function, functools.partial):
    function = function.func
  return getattr(function, '__name__', type(function).__name__)
