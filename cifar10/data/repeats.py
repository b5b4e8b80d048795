"""Finds duplicate pictures, so that no picture has two labels or is in both the
training and the test records."""

import collections
import contextlib
import hashlib
import os
import sys

from cifar10.data import image_files
from cifar10.util import console
from cifar10.util.errors import UserError


def leave_out(train, test, strict):
  """Removes duplicates: the same file by another path, or the same bytes.

  A picture in both lists stays in `test`. Duplicates with different labels
  contradict each other and are all removed. Removals are reported on stderr.

  Args:
    train, test: lists of (path, label).
    strict: whether to refuse contradictions instead of removing them.

  Returns:
    The lists `train` and `test` without duplicates, in their original order.

  Raises:
    UserError: there is a contradiction, and `strict` is true.
  """
  pictures = test + train
  same = collections.defaultdict(list)
  for i, content in enumerate(_contents([path for path, _ in pictures])):
    same[content].append(i)
  kept, repeats = ([], []), [0, 0]
  for first, *others in same.values():
    found = [pictures[i] for i in (first, *others)]
    if len({label for _, label in found}) > 1:
      message = 'the same picture with different labels: ' + ', '.join(
          f'{console.one_line(path)} ({label})' for path, label in found)
      if strict:
        raise UserError(message)
      print(f'left out: {message}', file=sys.stderr)
    else:
      kept[first >= len(test)].append(pictures[first])
      for i in others:
        repeats[first < len(test) <= i] += 1
  for count, what in zip(repeats, ('that repeat others',
                                   'to train on that are to test on too')):
    if count:
      print(f'left out: {count:,} pictures {what}', file=sys.stderr)
  return kept[1], kept[0]


def _contents(paths):
  """Returns a key for each path. Files with the same bytes have the same key.

  Only files of the same size are read.
  """
  real = [os.path.realpath(path) for path in paths]
  sizes = {}
  for path in set(real):
    with contextlib.suppress(OSError):  # Decoding will report it.
      if not image_files.refusal(path):
        sizes[path] = os.path.getsize(path)
  counts = collections.Counter(sizes.values())
  counts[0] = 0  # Empty files are not duplicates: decoding will report each.
  keys = {}
  for path, size in sizes.items():
    if counts[size] > 1:
      with contextlib.suppress(OSError):
        keys[path] = _digest(path)
  return [keys.get(path, path) for path in real]


def _digest(path):
  digest = hashlib.blake2b()
  with open(path, 'rb') as file:
    while chunk := file.read(1 << 20):
      digest.update(chunk)
  return digest.digest()
