r"""Classifies image files with the newest checkpoint of a run.

    python -m cifar10.predict --checkpoint_dir=/tmp/cifar10_train IMAGE...

IMAGE is a JPEG, PNG, BMP or GIF file of any size, a folder of these files, or a
pattern, for example 'holiday/**/*.jpg'. Images are cropped and resized to the
size of the training records, and preprocessed as in evaluation. Files that
cannot be read are reported and skipped; the exit code is then 1.
"""

import contextlib
import dataclasses
import itertools
import json
import signal
import sys
from typing import Iterator, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10.data import image_files
from cifar10.runs import sessions
from cifar10.runs import trained
from cifar10.util import console
from cifar10.util.errors import UserError
from cifar10.util.fields import field


@dataclasses.dataclass(frozen=True)
class Options(trained.Options):
  """Options of a prediction, which are the flags of predict."""
  top_k: int = field(3, minimum=1, help='Number of classes to print, the most '
                     'probable first.')
  json: bool = field(False, help='Print a line of JSON for each file, also for '
                     'those that cannot be read.')


def predict(paths, options, run=None) -> Iterator[
    tuple[str, Optional[np.ndarray], Optional[str]]]:
  """Classifies image files.

  Args:
    paths: paths of the files.
    options: the `Options`, or a `trained.Options`.
    run: the `Run`; None: the run in options.checkpoint_dir.

  Yields:
    (path, probabilities, reason) for each path, in order. Probabilities are a
    float32 [classes] array. If the file cannot be read, they are None and
    `reason` is the error message.

  Raises:
    UserError: there is no checkpoint, or it cannot be restored.
  """
  run = run or trained.run_of(options.checkpoint_dir)
  f = run.record_format
  with tf.Graph().as_default(), sessions.device(options.device):
    images = tf.placeholder(tf.uint8, [None, f.height, f.width, f.depth])
    probabilities = trained.probabilities(images, run, options.dtype)
    session = sessions.session(options.device)
    trained.restore_newest(session, options.checkpoint_dir, run)

  with contextlib.closing(session):
    files = image_files.decode_files(paths, f)
    while batch := list(itertools.islice(files, trained.batch_size(f))):
      readable = [image for _, image, _ in batch if image is not None]
      found = iter(session.run(probabilities, {images: readable})
                   if readable else ())
      for index, image, reason in batch:
        yield paths[index], None if image is None else next(found), reason


def best(probabilities, class_names, top_k):
  """Returns the `top_k` most probable classes as a list of dicts, for JSON."""
  return [{'class': int(label), 'name': class_names[label],
           'probability': float(probabilities[label])}
          for label in (-probabilities).argsort(kind='stable')[:top_k]]


def main(arguments):
  if not arguments:
    raise UserError('expected image files, folders or patterns: '
                    'python -m cifar10.predict IMAGE...')
  options = Options(**cli.values_of(Options))
  paths = image_files.expand(arguments)
  run = trained.run_of(options.checkpoint_dir)
  class_names = run.record_format.class_names
  path_width = min(max(map(len, paths)), 60)
  name_width = max(map(len, class_names))
  failed = 0
  for path, probabilities, reason in predict(paths, options, run):
    line, path = {'file': path}, console.one_line(path)
    if reason:
      failed += 1
      line['error'] = reason
      print(f'error: {path}: {reason}', file=sys.stderr, flush=True)
    else:
      line['classes'] = best(probabilities, class_names, options.top_k)
    if options.json:
      print(json.dumps(line), flush=True)
    elif not reason:
      print(f'{path:{path_width}}', *(
          f"  {one['name']:{name_width}} {one['probability']:6.1%}"
          for one in line['classes']), flush=True)
    if not console.has_reader():
      sys.exit(128 + signal.SIGPIPE)  # As other tools do in `tool | head`.
  if failed:
    sys.exit(f'{failed:,} of {len(paths):,} files could not be read')


if __name__ == '__main__':
  cli.define(Options)
  cli.run(main, with_arguments=True)
