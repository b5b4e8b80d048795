"""Locks, small text files, and messages for errors of the file system."""

import contextlib
import fcntl
import os
import re
import socket
import sys
import time

import tensorflow.compat.v1 as tf

from cifar10.util.errors import UserError


@contextlib.contextmanager
def explained(directory):
  """Converts errors of the file system (no space, no permission, no such file)
  to a UserError that names the file, or `directory` if the file is not known.
  """
  try:
    yield
  except OSError as e:
    raise UserError(f'{e.filename or directory}: {e.strerror or e}') from e
  except (tf.errors.AbortedError, tf.errors.DataLossError,
          tf.errors.FailedPreconditionError, tf.errors.NotFoundError,
          tf.errors.OutOfRangeError, tf.errors.PermissionDeniedError,
          tf.errors.ResourceExhaustedError, tf.errors.UnavailableError,
          tf.errors.UnknownError) as e:
    raise UserError(reason(e)) from e


def state(path):
  """Returns a value that differs if a file has changed: its size, inode and
  modification time.

  None after a very recent change, because another change could have the same
  modification time.
  """
  status = os.stat(path)
  # Files from a computer whose clock is fast can have a time in the future.
  if abs(time.time() - status.st_mtime) < 2:
    return None
  return status.st_size, status.st_ino, status.st_mtime_ns


def drop_from_cache(path):
  """Lets the operating system forget the contents of a file in its cache."""
  if hasattr(os, 'posix_fadvise'):  # Not on macOS.
    with open(path, 'rb') as file:
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reason(error):
  """Returns the line of an exception's message that describes the error."""
  text = getattr(error, 'message', None) or str(error)
  # Errors of graph operations begin with a description of the operation.
  text = text.partition('\nNode: ')[2].partition('\n')[2] or text
  text = text.removeprefix('Graph execution error:').lstrip('\n').split('\n')[0]
  said = re.fullmatch(r'assertion failed: \[(.*)\]', text)
  return said[1].replace('] [', ' ') if said else text


def read_text(path, limit=1 << 24):
  """Returns the text of a file of at most `limit` bytes.

  Raises:
    UserError: the file is longer, is not UTF-8, or cannot be read.
  """
  with explained(path), open(path, 'rb') as f:
    content = f.read(limit + 1)
  try:
    if len(content) <= limit:
      return content.decode()
    problem = f'has more than {limit:,} bytes'
  except UnicodeDecodeError as e:
    problem = f'is no text: {e}'
  raise UserError(f'{path}: {problem}')


def write_text(path, text):
  """Writes or replaces a file atomically, even if others do it just then."""
  part = f'{path}.{socket.gethostname()}-{os.getpid()}.part'
  with explained(path):
    with open(part, 'w', encoding='utf-8') as f:
      f.write(text + '\n')
    os.replace(part, path)


@contextlib.contextmanager
def locked(directory, wait=False):
  """Locks a directory against other processes, and creates it if needed.

  The operating system holds the lock, on DIRECTORY/.lock, and releases it
  whenever the process ends. The file remains and names its last owner.

  Args:
    directory: path of the directory.
    wait: whether to wait for a lock that another process holds, instead of
      raising an error.

  Raises:
    UserError: another process holds the lock. The message names it.
  """
  os.makedirs(directory, exist_ok=True)
  path = os.path.join(directory, '.lock')
  with open(path, 'a+', encoding='utf-8', errors='replace') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      busy = (f'{directory}: {file.read() or "another process"} is at work '
              'there')
      if not wait:
        raise UserError(busy) from None
      print(f'{busy}: waiting for it', file=sys.stderr)
      fcntl.flock(file, fcntl.LOCK_EX)
    if not os.path.exists(path) or not os.path.samestat(
        os.stat(path), os.fstat(file.fileno())):
      raise UserError(f'{directory}: was moved away just now. Try again')
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}, since '
               + time.strftime('%Y-%m-%d %H:%M:%S'))
    file.flush()
    yield
