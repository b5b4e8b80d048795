"""Record files to batches of images, in the graph and on the CPU.

The training batch of a step is a pure function of (seed, step). The records
sit in memory; batch `s` takes positions [s * n, (s + 1) * n) of an endless
sequence that shuffles every epoch anew; all random numbers are stateless. So a
run goes on exactly where it stopped by knowing its step, every record is seen
once an epoch, and any number of towers shares out the same batch.

`queue_inputs()` is the tutorial's own way instead: reader, queues, 16 threads.
"""

from typing import Callable, NamedTuple

import tensorflow.compat.v1 as tf

from cifar10.data import records
from cifar10.nn import augmentation
from cifar10.nn import normalization
from cifar10.nn import summaries
from cifar10.util.errors import look_up
from cifar10.util.errors import UserError

QUEUE_THREADS = 16
# Prefix of the name in a recipe of an augmentation that is passed in.
CUSTOM = 'custom:'
_PARALLEL_BATCHES = 4


class Images(NamedTuple):
  """What is done to images, by a recipe.

  Attributes:
    distort: uint8 [n, height, width, depth] and `augmentation.Seed` to what a
      network is trained on, [n, crop_size, crop_size, depth].
    preprocess: uint8 [n, height, width, depth] to what it is given outside
      training, [n, crop_size, crop_size, depth].
  """
  distort: Callable
  preprocess: Callable


def images_of(recipe, record_format, examples=None, augment=None,
              dtype='float32'):
  """Returns what a recipe does to images.

  Args:
    recipe: the `Recipe`.
    record_format: the `records.Format` of the images.
    examples: function that returns the images to take statistics from, uint8
      [n, height, width, depth] array; None where these will be restored.
    augment: a function to use in place of the recipe's augmentation, as those
      of augmentation.AUGMENTATIONS are.
    dtype: type of the resulting images, which networks compute in.

  Returns:
    `Images`.

  Raises:
    UserError: the recipe asks for what there is not.
  """
  f, size = record_format, recipe.crop(record_format)
  if augment is None and not recipe.augmentation.startswith(CUSTOM):
    augment = look_up(recipe.augmentation, augmentation.AUGMENTATIONS,
                      'augmentation')
  normalize = look_up(recipe.normalization, normalization.NORMALIZATIONS,
                      'normalization')
  cropped = examples and (
      lambda: augmentation.central_crop(examples(), size))
  statistics = normalization.statistics(
      recipe.normalization, [size, size, f.depth], cropped)

  def distort(images, seed):
    if augment is None:
      raise UserError(f'recipe: augmentation={recipe.augmentation}: is a '
                      'function that was passed from Python, by augment=')
    return tf.cast(normalize(augment(images, size, seed), statistics), dtype)

  def preprocess(images):
    return tf.cast(normalize(augmentation.central_crop(images, size),
                             statistics), dtype)

  return Images(distort, preprocess)


def distorted_inputs(files, record_format, distort, batch_size, seed,
                     num_examples=None, alternating_flip=False,
                     num_records=None, part=None):
  """Training batches: shuffled, and randomly distorted.

  The first batch is that of the global step at the time the local variables
  are initialized; sessions do that after restoring a checkpoint.

  Args:
    files: paths of the record files.
    record_format: their `records.Format`.
    distort: what to do to images, see `Images`.
    batch_size: images in a batch, over all towers.
    seed: int.
    num_examples: use only so many records, the first; None: all.
    alternating_flip: see `Recipe`.
    num_records: how many records there are in the files; None: look.
    part: a range, which of the images of a batch to make; None: all.

  Returns:
    images: what `distort` returns, n = batch_size, or len(part).
    labels: int32 [n].
  """
  part = range(batch_size) if part is None else part
  with tf.device('/cpu:0'), tf.name_scope('input'):
    images, labels = _records_in_memory(files, record_format, num_records)
    num_examples = num_examples or int(labels.shape[0])

    def batch(step):
      positions = step * batch_size + tf.range(part.start, part.stop,
                                               dtype=tf.int64)
      chosen = shuffle(positions, num_examples, seed)
      batch_images = tf.gather(images, chosen)
      if alternating_flip:
        # Half of them begin: every other one of another permutation.
        turn = shuffle(chosen, num_examples, seed + 1) + (
            positions // num_examples)
        batch_images = augmentation.flip(batch_images, tf.equal(turn % 2, 1))
      distorted = distort(batch_images, augmentation.Seed(
          tf.stack([tf.constant(seed, tf.int64), step]), part.start,
          batch_size))
      return distorted, tf.gather(labels, chosen)

    first_step = tf.train.get_or_create_global_step()
    images, labels = _next_batch(
        tf.data.Dataset.range(first_step, tf.int64.max), batch)
  if part.start == 0:
    summaries.image('images', images)
  return images, labels


def inputs(files, record_format, preprocess, batch_size, start, end):
  """Evaluation batches: each record once, in order.

  Args:
    files: paths of the record files.
    record_format: their `records.Format`.
    preprocess: what to do to images, see `Images`.
    batch_size: images in a batch; the last may have fewer.
    start: the first record...
    end: ...and the one after the last.

  Returns:
    images: what `preprocess` returns; tf.errors.OutOfRangeError after the last.
    labels: int32 [n].
  """
  with tf.device('/cpu:0'), tf.name_scope('input'):
    images, labels = _records_in_memory(files, record_format)

    def batch(first):
      last = tf.minimum(first + batch_size, end)
      return preprocess(images[first:last]), labels[first:last]

    images, labels = _next_batch(
        tf.data.Dataset.range(start, end, batch_size), batch)
  summaries.image('images', images)
  return images, labels


def queue_inputs(files, record_format, distort, batch_size, seed,
                 min_queue_examples):
  """Training batches as `distorted_inputs()` gives, through prefetch queues.

  A queue of file names, a record reader, and 16 threads that distort a record
  each and fill a queue, from which batches are drawn at random (tutorial:
  "Model Inputs"). Their order depends on the threads: a resumed run goes on
  with other images than an uninterrupted one.

  Args:
    files, record_format, distort, batch_size, seed: see `distorted_inputs()`.
    min_queue_examples: how many records the queue holds at least: the more,
      the better they are mixed.

  Returns:
    images, labels: see `distorted_inputs()`.
  """
  with tf.device('/cpu:0'), tf.name_scope('input'):
    filenames = tf.train.string_input_producer(files, seed=seed)
    reader = tf.FixedLengthRecordReader(record_format.record_bytes)
    _, record = reader.read(filenames)
    images, labels = records.parse(
        tf.decode_raw(record, tf.uint8)[tf.newaxis], record_format)
    random_seed = tf.random_uniform([2], maxval=tf.int64.max, dtype=tf.int64,
                                    seed=seed)
    images = distort(images, augmentation.Seed(random_seed))
    images, labels = tf.train.shuffle_batch(
        [tf.ensure_shape(images, [1] + images.shape[1:])[0], labels[0]],
        batch_size, num_threads=QUEUE_THREADS,
        capacity=min_queue_examples + 3 * batch_size,
        min_after_dequeue=min_queue_examples, seed=seed)
  summaries.image('images', images)
  return images, labels


def _records_in_memory(files, record_format, num_records=None):
  """Reads the files into local variables, when those are initialized.

  Args:
    files: paths of the record files.
    record_format: their `records.Format`.
    num_records: how many records they hold; None: look.

  Returns:
    images: uint8 [n, height, width, depth] local variable.
    labels: int32 [n] local variable.
  """
  f = record_format
  num_records = num_records or sum(records.count(path, f) for path in files)
  data = tf.concat([tf.decode_raw(tf.read_file(path), tf.uint8)
                    for path in files], 0)
  images, labels = records.parse(
      tf.reshape(data, [num_records, f.record_bytes]), f)
  images = tf.ensure_shape(images, [num_records, f.height, f.width, f.depth])
  return (_local_variable('images', images), _local_variable('labels', labels))


def _local_variable(name, initial_value):
  return tf.get_variable(
      f'input/{name}', initializer=initial_value, trainable=False,
      collections=[tf.GraphKeys.LOCAL_VARIABLES])


def _next_batch(dataset, batch):
  """Returns the next of the batches that `batch` makes of a dataset."""
  # Without autograph, which would read and rewrite the source of `batch`.
  batch = tf.autograph.experimental.do_not_convert(batch)
  dataset = dataset.map(batch, _PARALLEL_BATCHES).prefetch(_PARALLEL_BATCHES)
  # Autotuning has a thread that sleeps up to a minute, and that closing the
  # session waits for.
  options = tf.data.Options()
  options.autotune.enabled = False
  iterator = tf.data.make_initializable_iterator(dataset.with_options(options))
  # Sessions run these once the step is restored.
  tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
  return iterator.get_next()


def shuffle(positions, num_examples, seed):
  """Maps positions of an endless sequence to records.

  Args:
    positions: int64 [n], from 0. The epoch of a position is
      position // num_examples, and each epoch is a permutation of its own.
    num_examples: records in an epoch.
    seed: int.

  Returns:
    int64 [n] in [0, num_examples).
  """
  epochs = positions // num_examples
  seeds = tf.stack([tf.fill(tf.shape(epochs), tf.constant(seed, tf.int64)),
                    epochs, tf.zeros_like(epochs)], axis=1)
  # tf.random.experimental.index_shuffle pads a batch of seeds along the wrong
  # axis.
  return tf.raw_ops.RandomIndexShuffle(
      index=positions % num_examples, seed=seeds,
      max_index=tf.constant(num_examples - 1, tf.int64), rounds=4)
