"""Reads the pickled batches of CIFAR-10's Python archive, and nothing else.

Unpickling calls what a pickle names. These files need three names of NumPy's,
for which harmless ones stand in here; any other is refused.
"""

import io
import pickle
import pickletools

import numpy as np

from cifar10.util.errors import UserError

_LARGEST = 1 << 26  # Bytes; a batch has 31 million.


def read_batch(name, file):
  """Reads a batch of images.

  Args:
    name: of the file, for messages.
    file: binary file object.

  Returns:
    uint8 [n, 32, 32, 3] array of images, and uint8 [n] array of their labels.

  Raises:
    UserError: it is something else, or damaged.
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
  """Reads the names of the classes; arguments and errors as of read_batch().

  Returns:
    List of bytes; None if there are none.
  """
  names = _read(name, file).get(b'label_names')
  if names is None or isinstance(names, list) and all(
      isinstance(label_name, bytes) for label_name in names):
    return names
  raise UserError(f'{name}: is not a list of class names')


def _read(name, file):
  """Returns the dict in a pickle that Python 2 wrote; UserError without one."""
  try:
    pickled = file.read(_LARGEST + 1)
    if len(pickled) > _LARGEST:
      raise ValueError(f'more than {_LARGEST:,} bytes')
    # A few bytes could otherwise reserve gigabytes for what never comes.
    for opcode, argument, _ in pickletools.genops(pickled):
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
  """Takes the place of a pickled NumPy array: keeps its bytes."""
  data = None

  def __init__(self, *unused_args):
    pass

  def __setstate__(self, state):
    self.data = state[-1]


class _Unpickler(pickle.Unpickler):
  """Admits the three names that occur in the batches; none is called."""

  def find_class(self, module, name):
    if (module, name) in (('numpy.core.multiarray', '_reconstruct'),
                          ('numpy', 'ndarray'), ('numpy', 'dtype')):
      return _Array
    raise pickle.UnpicklingError(f'{module}.{name} is not for a batch')
