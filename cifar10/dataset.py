r"""Prepares record files: finds, downloads, verifies, converts or imports them.

    python -m cifar10.dataset --data_dir=/tmp/cifar10_data
    python -m cifar10.dataset --import_dir=PICTURES --data_dir=/tmp/pictures

The training programs run the first command by themselves, see data/datasets.py.
Pictures are imported to DATA_DIR/own/, which is then the default dataset of
DATA_DIR.
"""

import dataclasses
import pathlib
from typing import Optional

from absl import flags

from cifar10 import cli
from cifar10.data import datasets
from cifar10.data import directories
from cifar10.data import importers
from cifar10.runs import description
from cifar10.util import filesystem
from cifar10.util.errors import UserError
from cifar10.util.fields import field

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class ImportOptions:
  """Options of an import, which are flags of dataset."""
  import_csv: Optional[str] = field(
      None, nonempty='a file', help='Import the pictures in a list, a file of '
      'lines PATH,LABEL.')
  import_dir: Optional[str] = field(
      None, nonempty='a directory', help='Import the pictures in a directory '
      'that has a folder for each class; or that has the folders train and '
      'test, which have these.')
  import_svhn: Optional[str] = field(
      None, nonempty='a directory', help="Import SVHN's train_32x32.mat and "
      'test_32x32.mat from a directory.')
  image_size: int = field(32, minimum=1, maximum=2**12, help='Height and width '
                          'of imported pictures, in pixels.')
  test_fraction: float = field(0.2, positive=True, below=1, help='Fraction of '
                               'each class to import as test records.')
  strict: bool = field(False, help='Refuse to import, instead of leaving out '
                       'pictures that cannot be read or have two labels.')


_IMPORTERS = {'import_csv': importers.import_csv,
              'import_dir': importers.import_folders,
              'import_svhn': importers.import_svhn}


def _import(data_dir, importer, *arguments):
  """Imports pictures to the directory that `datasets.ensure()` reads."""
  directory = pathlib.Path(data_dir).absolute() / directories.DATASETS['own']
  with filesystem.explained(data_dir), filesystem.locked(directory.parent):
    if directory.exists():
      raise UserError(f'{directory}: is there already. Move it away, or choose '
                      'another --data_dir')
    importer(directory, *arguments)


def main():
  chosen = [flag for flag in _IMPORTERS if FLAGS[flag].value is not None]
  if len(chosen) > 1 or chosen and FLAGS.dataset not in (None, 'own'):
    raise UserError(f'--{chosen[0]}: imports to --dataset=own, and goes with '
                    'no other import')
  for flag in 'test_fraction', 'strict':
    if FLAGS.import_svhn is not None and FLAGS[flag].present:
      raise UserError('--import_svhn: SVHN has test records and no unreadable '
                      f'pictures: expected no --{flag}')
  if chosen and not FLAGS['data_dir'].present:
    # All other commands would use pictures in the default --data_dir.
    raise UserError(f'--{chosen[0]}: expected --data_dir=DIRECTORY, to import '
                    'to')
  if chosen:
    flag, = chosen
    _import(FLAGS.data_dir, _IMPORTERS[flag], FLAGS[flag].value,
            FLAGS.image_size, FLAGS.test_fraction, FLAGS.strict)
  data = datasets.ensure('own' if chosen else FLAGS.dataset, FLAGS.data_dir,
                         FLAGS.data_url)
  for files in data.train, data.test:
    for path, count in zip(files.paths, files.counts):
      print(f'{path}: {count:,} records')
  print(f'{data.name}: {len(data.train):,} records to train on, '
        f'{len(data.test):,} to evaluate on, of '
        f'{data.format.height}x{data.format.width} pixels, '
        f'{data.format.num_classes} classes: '
        + ', '.join(data.format.class_names))


if __name__ == '__main__':
  cli.define(description.Options, 'data_dir', 'dataset', 'data_url')
  cli.define(ImportOptions)
  cli.run(main)
