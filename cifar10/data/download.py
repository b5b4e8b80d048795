"""Downloads one file that is known by its size and MD5, from whoever has it.

Bytes go to a `.part` file that the next attempt, the next source or the next
process goes on with; only a whole, verified file counts.
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

from cifar10.util.progress import Progress

_CHUNK = 1 << 16
# A source that delivers less, in bytes a second over so many seconds, is left
# for the next one. (The official server has been seen at 50 kB/s.)
_LEAST_SPEED, _SPEED_SECS = 5000, 30


def fetch(urls, part, size, md5, timeout=5):
  """Downloads to `part` from the first of `urls` that delivers.

  Args:
    urls: where to try, in this order; also file://.
    part: path of the file to write, or to complete.
    size: its size, in bytes.
    md5: its MD5, in hexadecimal.
    timeout: seconds that a source may stay silent.

  Returns:
    List of (url, reason) of those that failed; whole and verified is the file
    if they are fewer than `urls`.
  """
  failures = []
  for url in urls:
    try:
      _fetch_from(url, part, size, md5, timeout)
      return failures
    except (OSError, http.client.HTTPException, ValueError) as e:
      if isinstance(e, OSError) and (
          e.filename == part or e.errno in (errno.ENOSPC, errno.EDQUOT)):
        raise  # That is not the source's fault.
      reason = getattr(e, 'reason', None) or e
      failures.append((url, str(reason) or type(reason).__name__))
  return failures


def mismatch(path, size, md5):
  """Returns what is wrong with the file at `path`, None if it is the one."""
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
  """Completes `part` from one source, going on for as long as it delivers."""
  resumed = _size(part) > 0
  while True:
    start = _size(part)
    if start < size:
      try:
        _append_from(url, part, size, timeout)
      except (OSError, http.client.HTTPException):
        # A connection cut off after a fair share is worth another one.
        if _size(part) - start < max(1, size // 100):
          raise
        continue
    problem = mismatch(part, size, md5)
    if problem is None:
      return
    os.remove(part)
    if not resumed:
      raise ValueError(problem)
    resumed = False  # The bad bytes may have been there before.


def _append_from(url, part, size, timeout):
  """Appends what `part` lacks, up to `size` bytes in all."""
  with open(part, 'ab') as f:
    start = f.tell()
    headers = {'Range': f'bytes={start}-'} if start else {}
    print(f'Downloading {url} ({size / 1e6:,.1f} MB)', file=sys.stderr)
    request = urllib.request.Request(url, headers=headers)
    with _open(request, timeout) as response:
      # Without support for ranges the file comes from its beginning.
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
  """Returns what urlopen() does, or raises what it raises, but in a bounded
  time: its own timeout bounds silences, not headers that come byte by byte."""
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
