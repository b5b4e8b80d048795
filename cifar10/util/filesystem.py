"""Locks, and what to say when the file system refuses."""

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
  """Turns what the file system refuses (no room, no permission, nothing there)
  into a UserError that names the file, or the directory if that is not known.
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
  """Returns what is another one when a file has changed: its size, inode and
  time of change; a value of its own while that is so recent that a further
  change could have the same time."""
  status = os.stat(path)
  if time.time() - status.st_mtime < 2:
    return object()
  return status.st_size, status.st_ino, status.st_mtime_ns


def reason(error):
  """Returns the line of an exception that says what happened."""
  text = getattr(error, 'message', None) or str(error)
  # What an operation of a graph raises tells of the operation first.
  text = text.partition('\nNode: ')[2].partition('\n')[2] or text
  text = text.removeprefix('Graph execution error:').lstrip('\n').split('\n')[0]
  said = re.fullmatch(r'assertion failed: \[(.*)\]', text)
  return said[1].replace('] [', ' ') if said else text


def read_text(path, limit=1 << 20):
  """Returns the text of a file of at most `limit` bytes.

  Raises:
    UserError: it is longer, is no text, or cannot be read.
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
  """Writes a file, all of it or nothing, in place of one that may be there."""
  with open(f'{path}.part', 'w', encoding='utf-8') as f:
    f.write(text + '\n')
  os.replace(f'{path}.part', path)


@contextlib.contextmanager
def locked(directory, wait=False):
  """Keeps other processes out of a directory, which is made if need be.

  The lock, on DIRECTORY/.lock, is the operating system's: it ends with the
  process, whatever ends that. The file stays, and tells who had it last.

  Args:
    directory: its path.
    wait: whether to wait for another process to end, or to refuse.

  Raises:
    UserError: another process, which it names, has the lock.
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
