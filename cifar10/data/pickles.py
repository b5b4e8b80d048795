"""Reads the pickled batches of CIFAR-10's Python archive safely.

Unpickling can call any function that a pickle names. These files name three
NumPy objects, which are replaced by a harmless class. Other names are refused.
"""

import io
import pickle
import pickletools

import numpy as np

from cifar10.util.errors import UserError

_LARGEST = 1 << 26  # Bytes; a batch has 31 million.
_MOST_TUPLES = 20  # A batch has six.


def read_batch(name, file):
  """Reads a batch of images.

  Args:
    name: name of the file, for messages.
    file: binary file object.

  Returns:
    images: uint8 [n, 32, 32, 3] array.
    labels: uint8 [n] array.

  Raises:
    UserError: the file is not a batch of images, or is damaged.
  """
  batch = _read(name, file)
  try:
    planes = np.frombuffer(batch[b'data'].data, np.uint8)
    labels = np.frombuffer(bytes(list(batch[b'labels'])), np.uint8)
    planes = planes.reshape(len(labels), 3, 32, 32)
    return planes.transpose(0, 2, 3, 1), labels
  except (KeyError, AttributeError, TypeError, ValueError) as e:
    raise UserError(f'{name}: is not a batch of CIFAR-10 images: {e!r}') from e


def read_label_names(name, file):
  """Reads the class names. For arguments and errors, see `read_batch()`.

  Returns:
    List of bytes; None if the file has no class names.
  """
  names = _read(name, file).get(b'label_names')
  if names is None or isinstance(names, list) and all(
      isinstance(label_name, bytes) for label_name in names):
    return names
  raise UserError(f'{name}: is not a list of class names')


def _read(name, file):
  """Returns the dict in a pickle of Python 2, or raises UserError."""
  try:
    pickled = file.read(_LARGEST + 1)
    if len(pickled) > _LARGEST:
      raise ValueError(f'more than {_LARGEST:,} bytes')
    # Otherwise, a large memo index in a few bytes could allocate gigabytes, and
    # the hash of tuples of tuples of tuples take years.
    tuples = 0
    for opcode, argument, _ in pickletools.genops(pickled):
      tuples += 'TUPLE' in opcode.name
      if tuples > _MOST_TUPLES:
        raise ValueError(f'more than {_MOST_TUPLES} tuples')
      if 'PUT' in opcode.name and isinstance(argument, int) and (
          argument > len(pickled)):
        raise ValueError(f'{opcode.name} {argument}')
    content = _Unpickler(io.BytesIO(pickled), encoding='bytes').load()
    if isinstance(content, dict):
      return content
    reason = f'holds a {type(content).__name__}, expected a dict'
  except Exception as e:  # Damaged pickles raise almost anything.
    reason = f'{type(e).__name__}: {e}'
  raise UserError(f'{name}: cannot be unpickled: {reason}')


class _Array:
  """Replaces a pickled NumPy array and keeps its bytes."""
  data = None

  def __init__(self, *unused_args):
    pass

  def __setstate__(self, state):
    self.data = state[-1]


class _Unpickler(pickle.Unpickler):
  """Replaces the three names in the batches, and refuses all others."""

  def find_class(self, module, name):
    if (module, name) in (('numpy.core.multiarray', '_reconstruct'),
                          ('numpy', 'ndarray'), ('numpy', 'dtype')):
      return _Array
    raise pickle.UnpicklingError(f'{module}.{name} is not for a batch')
