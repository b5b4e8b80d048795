"""The datasets by name: finds, downloads, verifies and converts their files.

CIFAR-10's archive exists with binary records and with Python pickles; either
will do, and so will what somebody extracted from it:

    DATA_DIR/cifar-10-batches-bin/      used as it is
    DATA_DIR/cifar-10-batches-py/       converted
    DATA_DIR/cifar-10-binary.tar.gz     extracted
    DATA_DIR/cifar-10-python.tar.gz     extracted and converted

--dataset=cifar100 does the same with CIFAR-100, into DATA_DIR/cifar100/;
--dataset=synthetic makes up records in DATA_DIR/synthetic/. One's own pictures
are in DATA_DIR/own/, which is then what DATA_DIR is taken to hold.
"""

import dataclasses
import pathlib

from cifar10.data import archives as archives_lib
from cifar10.data import directories
from cifar10.data import records
from cifar10.data import synthetic
from cifar10.util.errors import look_up
from cifar10.util.errors import UserError
from cifar10.util import filesystem

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
