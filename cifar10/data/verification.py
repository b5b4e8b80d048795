"""Verifies record files: each state of a file once.

Verifying reads the whole file, a second or so per gigabyte. The result is noted
beside the file, in .verified.json, with the state of the file: size, inode and
modification time. While these are the same, no process reads the file again.
"""

import ctypes
import json
import os
import re
import signal
import sys

from cifar10.data import records
from cifar10.util import filesystem
from cifar10.util.console import Progress
from cifar10.util.errors import UserError

NOTES = '.verified.json'
# What this process knows, by directory and name: the state and format that was
# verified (None: a file too new to tell its states apart), and the CRC-32.
_notes = {}
_sizes = {}  # By path.
# What Linux reads in sequence it caches in pages of up to 2 MB. A process that
# maps one of them has all of it in memory, for a single record. So these pages
# are dropped, unless there are few.
_CACHED_BYTES = 1 << 29


def checksums(paths, record_format):
  """Returns the CRC-32s of record files, whose labels are valid.

  Args:
    paths: pathlib.Paths of the files, all in one directory.
    record_format: the `records.Format` of their records.

  Returns:
    Tuple of CRC-32s, in hexadecimal.

  Raises:
    UserError: see `records.check()`.
  """
  directory, f = paths[0].parent, record_format
  notes, states, size = _notes.setdefault(directory, {}), {}, 0
  for path in paths:
    _sizes[path] = records.count(path, f) * f.record_bytes
    state = filesystem.state(path)
    states[path] = state and [*state, f.skipped_bytes, f.label_bytes,
                              f.record_bytes, f.num_classes]

  def is_noted(path):
    return states[path] and notes.get(path.name, [None])[0] == states[path]

  if not all(map(is_noted, paths)):
    notes.update(_read(directory))
  missing = [path for path in paths if not is_noted(path)]
  progress = Progress(sum(path.stat().st_size for path in missing), 'MB')
  for path in missing:
    notes[path.name] = [states[path], records.check(
        path, f, lambda done, before=size: progress.report(before + done))]
    size += path.stat().st_size
  if size > _CACHED_BYTES:
    for path in missing:
      filesystem.drop_from_cache(path)
  if any(states[path] for path in missing):
    _write(directory, notes)
  return tuple(notes[path.name][1] for path in paths)


def _read(directory):
  try:
    notes = json.loads(filesystem.read_text(directory / NOTES))
    return {name: [state, checksum] for name, (state, checksum) in notes.items()
            if re.fullmatch('[0-9a-f]{8}', checksum)}
  except (AttributeError, RecursionError, TypeError, UserError, ValueError):
    return {}  # There are none, or they are damaged.


def _write(directory, notes):
  try:
    filesystem.write_text(directory / NOTES, json.dumps(notes))
  except UserError as e:
    print(f'{e}. So each program verifies the record files again',
          file=sys.stderr)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _report_bus_error(unused_number):
  paths = [str(path) for path, size in _sizes.items()
           if path.exists() and path.stat().st_size < size]
  os.write(2, f'error: {", ".join(paths) or "a file"}: has become shorter '
           'while it was read\n'.encode())
  os._exit(1)


def explain_bus_errors():
  """Makes this program end with a message if a file becomes shorter just while
  its records are read: the operating system would kill it without a word."""
  ctypes.CDLL(None).signal(signal.SIGBUS, _report_bus_error)
