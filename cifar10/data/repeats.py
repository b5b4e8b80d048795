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


def leave_out(train, test, strict=False):
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
  contents = _contents([path for path, _ in pictures])
  same = collections.defaultdict(list)
  for content, picture in zip(contents, pictures):
    same[content].append(picture)
  contradicts = {content: len({label for _, label in found}) > 1
                 for content, found in same.items()}
  for content, found in same.items():
    if contradicts[content]:
      message = 'the same picture with different labels: ' + ', '.join(
          f'{console.one_line(path)} ({label})' for path, label in found)
      if strict:
        raise UserError(message)
      print(f'left out: {message}', file=sys.stderr)

  kept, part_of, repeats = ([], []), {}, [0, 0]
  for i, (content, picture) in enumerate(zip(contents, pictures)):
    part = int(i >= len(test))
    if not contradicts[content]:
      if content not in part_of:
        part_of[content] = part
        kept[part].append(picture)
      else:
        repeats[part != part_of[content]] += 1
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
