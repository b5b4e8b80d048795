"""Finds, downloads, verifies and converts the files of a dataset.

CIFAR-10's archive exists with binary records and with Python pickles. Either
archive can be used, and so can the files extracted from it:

    DATA_DIR/cifar-10-batches-bin/      used as it is
    DATA_DIR/cifar-10-batches-py/       converted
    DATA_DIR/cifar-10-binary.tar.gz     extracted
    DATA_DIR/cifar-10-python.tar.gz     extracted and converted

--dataset=cifar100 does the same with CIFAR-100, into DATA_DIR/cifar100/.
--dataset=synthetic generates records in DATA_DIR/synthetic/. Imported pictures
are in DATA_DIR/own/. If that exists, it is the default dataset of DATA_DIR.
"""

import dataclasses
import pathlib

from cifar10.data import archives as archives_lib
from cifar10.data import directories
from cifar10.data import records
from cifar10.data import synthetic
from cifar10.util import filesystem
from cifar10.util.errors import look_up
from cifar10.util.errors import UserError


def ensure(name, data_dir, urls=(), archives=None):
  """Checks the record files of a dataset, and creates them if needed.

  Args:
    name: one of `directories.DATASETS`; None: `own` if data_dir has it, else
      `cifar10`.
    data_dir: parent of the dataset's directory.
    urls: URLs to download from instead of the known ones, see
      `archives.prepare()`.
    archives: `archives.Archive`s to use instead of the known ones.

  Returns:
    The `directories.Dataset`.

  Raises:
    UserError: the files cannot be created, or a file is damaged.
  """
  data_dir = pathlib.Path(data_dir).absolute()
  if name is None:
    own = data_dir / directories.DATASETS['own']
    name = 'own' if own.exists() else 'cifar10'
  directory = data_dir / look_up(name, directories.DATASETS, 'dataset')
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
    return directories.load(name, directory)


def _synthesize(directory):
  images, labels = synthetic.make(10000, seed=1)
  with directories.create(directory) as part:
    for i in range(4):
      batch = slice(i * 2000, (i + 1) * 2000)
      records.write(part / directories.training_file(i + 1), images[batch],
                    labels[batch])
    records.write(part / directories.TEST, images[8000:], labels[8000:])
    (part / directories.NAMES).write_text('\n'.join(synthetic.CLASS_NAMES))
