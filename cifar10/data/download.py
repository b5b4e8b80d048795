"""Downloads a file of known size and MD5 from the first source that works.

A partial file is continued by the next attempt, source or process. A download
is complete only when size and MD5 have been verified.
"""

import errno
import hashlib
import http.client
import os
import queue
import sys
import threading
import time
import urllib.error
import urllib.request

from cifar10.util.console import Progress

_CHUNK = 1 << 16
# A source that delivers less than _LEAST_SPEED bytes per second in _SPEED_SECS
# seconds is given up. (The official server has been seen at 50 kB/s.)
_LEAST_SPEED, _SPEED_SECS = 5000, 30


def fetch(urls, part, size, md5, timeout=5):
  """Downloads a file to `part` from the first of `urls` that works.

  Args:
    urls: URLs to try, in this order. They may be file:// URLs.
    part: path of the file to write or to complete.
    size: size of the file, in bytes.
    md5: MD5 of the file, in hexadecimal.
    timeout: seconds to wait for data before a source fails.

  Returns:
    List of (url, reason) for the URLs that failed. The file is complete and
    verified if the list is shorter than `urls`.
  """
  failures = []
  for url in urls:
    try:
      _fetch_from(url, part, size, md5, timeout)
      return failures
    except (OSError, http.client.HTTPException, ValueError) as e:
      if isinstance(e, OSError) and (
          e.filename == part or e.errno in (errno.ENOSPC, errno.EDQUOT)):
        raise  # Not the fault of the source.
      reason = getattr(e, 'reason', None) or e
      failures.append((url, str(reason) or type(reason).__name__))
  return failures


def mismatch(path, size, md5):
  """Returns how a file differs from the expected one; None if it does not."""
  found = os.path.getsize(path)
  if found != size:
    return f'has {found:,} bytes, expected {size:,}'
  with open(path, 'rb') as f:
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in iter(lambda: f.read(_CHUNK), b''):
      digest.update(chunk)
  if digest.hexdigest() != md5:
    return f'has MD5 {digest.hexdigest()}, expected {md5}'
  return None


def _fetch_from(url, part, size, md5, timeout):
  """Completes `part` from one source, reconnecting while it makes progress."""
  resumed = _size(part) > 0
  while True:
    start = _size(part)
    if start < size:
      try:
        _append_from(url, part, size, timeout)
      except (OSError, http.client.HTTPException):
        # Each connection must deliver 1%, so that the loop ends.
        if _size(part) - start < max(1, size // 100):
          raise
        continue
    problem = mismatch(part, size, md5)
    if problem is None:
      return
    os.remove(part)
    if not resumed:
      raise ValueError(problem)
    resumed = False  # An earlier source may have sent the bad bytes.


def _append_from(url, part, size, timeout):
  """Appends the missing bytes to `part`, up to `size` bytes in total."""
  with open(part, 'ab') as f:
    start = f.tell()
    headers = {'Range': f'bytes={start}-'} if start else {}
    print(f'Downloading {url} ({size / 1e6:,.1f} MB)', file=sys.stderr)
    request = urllib.request.Request(url, headers=headers)
    with _open(request, timeout) as response:
      # A server without support for ranges sends the whole file.
      skip = 0 if response.status == 206 else start
      length = response.headers.get('Content-Length')
      expected = size - start + skip
      if length is not None and int(length) != expected:
        raise ValueError(f'offers {int(length):,} bytes, expected {expected:,}')
      progress = Progress(size, 'MB', start)
      mark, received = time.monotonic(), 0
      while f.tell() < size:
        chunk = response.read1(min(_CHUNK, skip or size - f.tell()))
        received += len(chunk)
        if (seconds := time.monotonic() - mark) > _SPEED_SECS:
          if received < _LEAST_SPEED * seconds:
            raise ConnectionError(
                f'delivers {received / seconds:,.0f} bytes a second, expected '
                f'{_LEAST_SPEED:,} or more')
          mark, received = time.monotonic(), 0
        if not chunk:
          raise ConnectionError(f'ended after {f.tell():,} of {size:,} bytes')
        if skip:
          skip -= len(chunk)
        else:
          f.write(chunk)
        progress.report(f.tell())


def _open(request, timeout):
  """Calls urlopen(), with a limit on the total time.

  The timeout of urlopen() limits each wait for data, but not the total time of
  headers that arrive byte by byte.
  """
  answers = queue.SimpleQueue()

  def answer():
    try:
      answers.put(urllib.request.urlopen(request, timeout=timeout))
    except Exception as e:
      answers.put(e)

  threading.Thread(target=answer, daemon=True).start()
  try:
    found = answers.get(timeout=_SPEED_SECS)
  except queue.Empty:
    raise TimeoutError(f'no answer in {_SPEED_SECS} seconds') from None
  if isinstance(found, Exception):
    raise found
  return found


def _size(path):
  return os.path.getsize(path) if os.path.exists(path) else 0
