"""Files of records as one sequence, of which only what is asked for is read."""

import dataclasses
import mmap
import os

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10.data import records
from cifar10.util.errors import UserError

_MAPPED_BYTES = 1 << 29  # Of files, to have in memory at a time.
_PAGES_BYTES = 1 << 16  # Linux maps so many bytes around what is read.
_ALL = 1 << 40


@dataclasses.dataclass(frozen=True)
class RecordFiles:
  """The records in several files, as one sequence.

  Attributes:
    paths: tuple of the paths of the files.
    counts: tuple of the numbers of records in them.
    format: their `records.Format`.
    is_mapped: whether the files are mapped into memory to be read. If not, as
      some file systems cannot do it, they are read when a session starts.
  """
  paths: tuple
  counts: tuple
  format: records.Format = records.CIFAR10
  is_mapped: bool = True

  def __len__(self):
    return sum(self.counts)

  def read(self, indices):
    """Returns the images of some records: uint8 [n, height, width, depth]
    array."""
    f, ends = self.format, np.cumsum(self.counts)
    rows = np.empty([len(indices), f.record_bytes], np.uint8)
    for row, index in zip(rows, indices):
      k = np.searchsorted(ends, index, side='right')
      self._read(k, index - ends[k] + self.counts[k], row)
    return records.images(rows, f)

  def chunks(self, end):
    """Yields the images of the first `end` records, some at a time, as
    `read()` does."""
    for k, count in enumerate(self.counts):
      count = min(count, end)
      end -= count
      size = max(records.PART_BYTES // self.format.record_bytes, 1)
      for start in range(0, count, size):
        rows = np.empty([min(size, count - start), self.format.record_bytes],
                        np.uint8)
        self._read(k, start, rows)
        yield records.images(rows, self.format)

  def _read(self, k, start, rows):
    """Fills an array with records of file k."""
    with open(self.paths[k], 'rb') as file:
      file.seek(int(start) * self.format.record_bytes)
      if file.readinto(rows) != rows.nbytes:
        raise UserError(f'{self.paths[k]}: has become shorter')

  def records_at_a_time(self):
    """Returns how many records to read before the files are mapped anew. Pages
    that were read stay in memory until then."""
    if sum(self.counts) * self.format.record_bytes <= _MAPPED_BYTES:
      return _ALL
    return _MAPPED_BYTES // (self.format.record_bytes + _PAGES_BYTES)

  def reader(self):
    """Returns two functions that read records in the graph.

    Returns:
      contents: function that returns the contents of the files: list of uint8
        [count, record_bytes] tensors. They are mapped into memory as long as
        these tensors exist.
      read: function of the indices of records, int64 [n], and of the contents,
        that returns
          images: uint8 [n, height, width, depth];
          labels: int32 [n].
    """
    f, ends = self.format, np.cumsum(self.counts, dtype=np.int64)
    files = [(path, [count, f.record_bytes])
             for path, count in zip(self.paths, self.counts)]
    if not self.is_mapped:
      print(f'{os.path.dirname(self.paths[0])}: the files cannot be mapped '
            f'into memory, so all {len(self):,} records are read into it.',
            flush=True)
      variables = [_loaded(*file) for file in files]

    def contents():
      return [_mapped(*file) for file in files] if self.is_mapped else variables

    def read(indices, contents):
      number = tf.searchsorted(ends, indices, side='right')  # Of the file.
      places = indices - tf.gather(ends - self.counts, number)
      rows = [tf.gather(content, part) for content, part in zip(
          contents, tf.dynamic_partition(places, number, len(files)))]
      order = tf.dynamic_partition(tf.range(tf.size(number)), number,
                                   len(files))
      rows = tf.ensure_shape(tf.dynamic_stitch(order, rows),
                             [indices.shape[0], f.record_bytes])
      return records.parse(rows, f)

    return contents, read


def find(paths, record_format=records.CIFAR10):
  """Returns the `RecordFiles` of some paths. Raises UserError as
  `records.count()` does."""
  counts = tuple(records.count(path, record_format) for path in paths)
  return RecordFiles(tuple(map(str, paths)), counts, record_format,
                     all(map(_can_be_mapped, paths)))


def _can_be_mapped(path):
  try:
    with open(path, 'rb') as file:
      mmap.mmap(file.fileno(), 1, access=mmap.ACCESS_READ).close()
    return True
  except OSError:
    return False


def _mapped(path, shape):
  """Returns a file that is mapped into memory, as a uint8 tensor."""
  data = tf.raw_ops.ImmutableConst(dtype=tf.uint8, shape=shape,
                                   memory_region_name=path)
  # TensorFlow computes constants once, when it optimizes a graph, and would
  # copy the whole file to do so. It leaves nodes with this attribute alone,
  # which says nothing else if it is empty.
  data.op._set_attr('_scoped_allocator',
                    tf.AttrValue(list=tf.AttrValue.ListValue()))
  return data


def _loaded(path, shape):
  """Returns a local variable that reads a file when it is initialized."""
  return tf.Variable(
      tf.reshape(tf.decode_raw(tf.read_file(path), tf.uint8), shape),
      trainable=False, use_resource=True, name='records',
      collections=[tf.GraphKeys.LOCAL_VARIABLES])
