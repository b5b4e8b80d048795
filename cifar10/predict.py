r"""Classifies image files by the newest checkpoint of a run.

    python -m cifar10.predict --checkpoint_dir=/tmp/cifar10_train IMAGE...

JPEG, PNG, BMP and GIF files of any size, folders of them, and patterns such as
'holiday/**/*.jpg'. An image is cut and resized to the size of the records that
were trained on, and goes through what evaluation does to these. A file that
cannot be read is reported, and does not stop the others; the exit code is then
1.
"""

import contextlib
import itertools
import json
import signal
import sys

from absl import flags
import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10.data import image_files
from cifar10.runs import trained
from cifar10.util import console
from cifar10.util.errors import UserError

FLAGS = flags.FLAGS
_BATCH_SIZE = 250


def predict(paths, checkpoint_dir, device=None, dtype=None, run=None):
  """Classifies image files.

  Args:
    paths: of the files.
    checkpoint_dir: train_dir of the run whose newest checkpoint to use.
    device: where to compute; None: the GPU, if there is one.
    dtype: what to compute in; None: what the run was trained in.
    run: the `Run`; None: what checkpoint_dir says that it is.

  Yields:
    For each path, in their order: path, probabilities, reason. Probabilities
    are a float32 [classes] array, or None if the file cannot be read, for the
    `reason`.

  Raises:
    UserError: there is no checkpoint, or it cannot be restored.
  """
  run = run or trained.run_of(checkpoint_dir)
  f = run.record_format
  with tf.Graph().as_default(), trained.device(device):
    images = tf.placeholder(tf.uint8, [None, f.height, f.width, f.depth])
    probabilities = trained.probabilities(images, run, dtype)
    session = trained.session(device)
    trained.restore_newest(session, checkpoint_dir, run)

  with contextlib.closing(session):
    files = image_files.read(paths, f)
    while batch := list(itertools.islice(files, _BATCH_SIZE)):
      readable = [image for _, image, _ in batch if image is not None]
      found = iter(session.run(probabilities, {images: readable})
                   if readable else ())
      for index, image, reason in batch:
        yield paths[index], None if image is None else next(found), reason


def best(probabilities, class_names, top_k):
  """Returns the `top_k` most probable classes, as JSON has them."""
  return [{'class': int(label), 'name': class_names[label],
           'probability': float(probabilities[label])}
          for label in (-probabilities).argsort(kind='stable')[:top_k]]


def main(arguments):
  if not arguments:
    raise UserError('expected image files, folders or patterns: '
                    'python -m cifar10.predict IMAGE...')
  paths = image_files.find(arguments)
  run = trained.run_of(FLAGS.checkpoint_dir)
  class_names = run.record_format.class_names
  path_width = min(max(map(len, paths)), 60)
  name_width = max(map(len, class_names))
  failed = 0
  for path, probabilities, reason in predict(
      paths, FLAGS.checkpoint_dir, FLAGS.device, FLAGS.dtype, run):
    line = {'file': path}
    if reason:
      failed += 1
      line['error'] = reason
      print(f'error: {path}: {reason}', file=sys.stderr, flush=True)
    else:
      line['classes'] = best(probabilities, class_names, FLAGS.top_k)
    if FLAGS.json:
      print(json.dumps(line), flush=True)
    elif not reason:
      print(f'{path:{path_width}}', *(
          f"  {one['name']:{name_width}} {one['probability']:6.1%}"
          for one in line['classes']), flush=True)
    if not console.has_reader():
      sys.exit(128 + signal.SIGPIPE)  # As of other tools, in `predict | head`.
  if failed:
    sys.exit(f'{failed:,} of {len(paths):,} files could not be read')


if __name__ == '__main__':
  cli.define_checkpoint_flags('classify by')
  cli.define_device_flag()
  flags.DEFINE_integer('top_k', 3, 'How many classes to tell, the most '
                       'probable first.', lower_bound=1)
  flags.DEFINE_bool('json', False, 'Print a line of JSON for each file, also '
                    'for those that cannot be read.')
  cli.run(main, with_arguments=True)
