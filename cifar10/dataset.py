r"""Gets record files onto disk: finds, downloads, verifies, converts, imports.

    python -m cifar10.dataset --data_dir=/tmp/cifar10_data
    python -m cifar10.dataset --import_dir=PICTURES --data_dir=/tmp/pictures

The training programs do the first by themselves. CIFAR-10's archive exists with
binary records and with Python pickles; either will do, and so will what
somebody extracted from it:

    DATA_DIR/cifar-10-batches-bin/      used as it is
    DATA_DIR/cifar-10-batches-py/       converted
    DATA_DIR/cifar-10-binary.tar.gz     extracted
    DATA_DIR/cifar-10-python.tar.gz     extracted and converted

--dataset=cifar100 does the same with CIFAR-100, into DATA_DIR/cifar100/;
--dataset=synthetic makes up records in DATA_DIR/synthetic/. One's own pictures
are imported to DATA_DIR/own/, which is then what DATA_DIR is taken to hold.
"""

import dataclasses
import pathlib

from absl import flags

from cifar10 import archives as archives_lib
from cifar10 import cli
from cifar10 import directories
from cifar10 import filesystem
from cifar10 import importers
from cifar10 import look_up
from cifar10 import records
from cifar10 import synthetic
from cifar10 import UserError

FLAGS = flags.FLAGS
# The directory of each, in data_dir.
DATASETS = {'cifar10': 'cifar-10-batches-bin', 'cifar100': 'cifar100',
            'synthetic': 'synthetic', 'own': 'own'}


def ensure(name, data_dir, urls=(), archives=None):
  """Makes sure that the record files are there, and sound.

  Args:
    name: one of DATASETS; None: `own` where there is such, else `cifar10`.
    data_dir: directory to find them below, or to put them there.
    urls: where to download from, instead of the known places, see
      `archives.prepare()`.
    archives: `archives.Archive`s to use, instead of the known ones.

  Returns:
    The `directories.Dataset`.

  Raises:
    UserError: there is no getting them, or a file is damaged.
  """
  data_dir = pathlib.Path(data_dir).absolute()
  if name is None:
    name = 'own' if (data_dir / DATASETS['own']).exists() else 'cifar10'
  directory = data_dir / look_up(name, DATASETS, 'dataset')
  with filesystem.explained(data_dir):
    if not directory.exists():
      if name == 'own':
        raise UserError(f'{directory}: is missing. To make it: python -m '
                        f'cifar10.dataset --import_dir=PICTURES '
                        f'--data_dir={data_dir}')
      with filesystem.locked(data_dir, wait=True):
        if directory.exists():
          pass  # Another process was faster.
        elif name == 'synthetic':
          _synthesize(directory)
        else:
          source = archives_lib.SOURCES[name]
          if archives is not None:
            source = dataclasses.replace(source, archives=tuple(archives))
          archives_lib.prepare(directory, source, urls)
    return directories.read(name, directory)


def _synthesize(directory):
  images, labels = synthetic.make(10000, seed=1)
  with directories.create(directory) as part:
    for i in range(4):
      batch = slice(i * 2000, (i + 1) * 2000)
      records.write(part / directories.training_file(i + 1), images[batch],
                    labels[batch])
    records.write(part / directories.TEST, images[8000:], labels[8000:])
    (part / directories.NAMES).write_text('\n'.join(synthetic.CLASS_NAMES))


_IMPORTERS = {'import_csv': importers.import_csv,
              'import_dir': importers.import_folders,
              'import_svhn': importers.import_svhn}


def _import(data_dir, importer, *arguments):
  """Imports pictures to where `ensure()` finds them."""
  directory = pathlib.Path(data_dir).absolute() / DATASETS['own']
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
  data = ensure(name, FLAGS.data_dir, FLAGS.data_url)
  for path in data.train + data.test:
    print(f'{path}: {records.count(path, data.format):,} records')
  print(f'{data.name}: {data.count(data.train):,} records to train on, '
        f'{data.count(data.test):,} to evaluate on, of '
        f'{data.format.height}x{data.format.width} pixels, '
        f'{data.format.num_classes} classes: '
        + ', '.join(data.format.class_names))


if __name__ == '__main__':
  cli.define_data_flags(DATASETS)
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
