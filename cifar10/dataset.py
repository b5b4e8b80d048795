r"""Gets record files onto disk: finds, downloads, verifies, converts, imports.

    python -m cifar10.dataset --data_dir=/tmp/cifar10_data
    python -m cifar10.dataset --import_dir=PICTURES --data_dir=/tmp/pictures

The training programs do the first by themselves, see data/datasets.py. One's
own pictures are imported to DATA_DIR/own/, which is then what DATA_DIR is taken
to hold.
"""

import pathlib

from absl import flags

from cifar10 import cli
from cifar10.data import datasets
from cifar10.data import importers
from cifar10.data import records
from cifar10.util.errors import UserError
from cifar10.util import filesystem

FLAGS = flags.FLAGS
_IMPORTERS = {'import_csv': importers.import_csv,
              'import_dir': importers.import_folders,
              'import_svhn': importers.import_svhn}


def _import(data_dir, importer, *arguments):
  """Imports pictures to where `datasets.ensure()` finds them."""
  directory = pathlib.Path(data_dir).absolute() / datasets.DATASETS['own']
  with filesystem.explained(data_dir), filesystem.locked(directory.parent):
    if directory.exists():
      raise UserError(f'{directory}: is there already. Move it away, or choose '
                      'another --data_dir')
    importer(directory, *arguments)


def main():
  name = FLAGS.dataset
  chosen = [flag for flag in _IMPORTERS if FLAGS[flag].value is not None]
  if len(chosen) > 1 or chosen and name not in (None, 'own'):
    raise UserError(f'--{chosen[0]}: imports to --dataset=own, and goes with '
                    'no other import')
  if not 0 < FLAGS.test_fraction < 1:
    raise UserError(f'--test_fraction={FLAGS.test_fraction}: expected more '
                    'than 0, less than 1')
  for flag in 'test_fraction', 'strict':
    if FLAGS.import_svhn is not None and FLAGS[flag].present:
      raise UserError('--import_svhn: has a file to test on, and no picture '
                      f'that cannot be read: expected no --{flag}')
  if chosen and not FLAGS['data_dir'].present:
    # What is there would be taken for the data of all other commands.
    raise UserError(f'--{chosen[0]}: expected --data_dir=DIRECTORY, to import '
                    'to')
  for flag in chosen:
    name = 'own'
    _import(FLAGS.data_dir, _IMPORTERS[flag], FLAGS[flag].value,
            FLAGS.image_size, FLAGS.test_fraction, FLAGS.strict)
  data = datasets.ensure(name, FLAGS.data_dir, FLAGS.data_url)
  for path in data.train + data.test:
    print(f'{path}: {records.count(path, data.format):,} records')
  print(f'{data.name}: {data.count(data.train):,} records to train on, '
        f'{data.count(data.test):,} to evaluate on, of '
        f'{data.format.height}x{data.format.width} pixels, '
        f'{data.format.num_classes} classes: '
        + ', '.join(data.format.class_names))


if __name__ == '__main__':
  cli.define_data_flags(datasets.DATASETS)
  flags.DEFINE_string('import_csv', None, 'Import the pictures in a list, a '
                      'file of lines PATH,LABEL.')
  flags.DEFINE_string('import_dir', None, 'Import the pictures in a directory '
                      'that has a folder for each class (or train and test, '
                      'which have them).')
  flags.DEFINE_string('import_svhn', None, "Import SVHN's train_32x32.mat and "
                      'test_32x32.mat from a directory.')
  flags.DEFINE_integer('image_size', 32, 'Height and width to import pictures '
                       'with, in pixels.', lower_bound=1, upper_bound=4096)
  flags.DEFINE_float('test_fraction', 0.2, 'The part of each class to import '
                     'as test records.')
  flags.DEFINE_bool('strict', False, 'Refuse to import, rather than leave out '
                    'pictures that cannot be read or have two labels.')
  cli.run(main)
