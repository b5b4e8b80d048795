"""Input: record files to batches of images, in the graph and on the CPU.

    images, labels = inputs.distorted_inputs(run, data)  # Training.
    images, labels = inputs.inputs(data.test, preprocess, 0, 10000,
                                   batch_size=250)  # Evaluation.

The training batch of a step is a pure function of (seed, step). Batch `s` takes
positions [s * n, (s + 1) * n) of an endless sequence that shuffles each epoch
anew; all random numbers are stateless. So a run resumes exactly where it
stopped by knowing its step, each record is seen once an epoch, and any number
of towers shares the same batch. Only the records of a batch are read from the
files, which can be larger than memory.

`--input=queue` is the tutorial's own way: reader, prefetch queues, 16 threads.
"""

import tensorflow.compat.v1 as tf

from cifar10.data import records
from cifar10.nn import augmentation
from cifar10.nn import normalization
from cifar10.nn import summaries
from cifar10.util.errors import look_up
from cifar10.util.errors import UserError

QUEUE_THREADS = 16
# In a recipe, the prefix of the name of a function that is passed in place of
# an augmentation.
CUSTOM = 'custom:'
_PARALLEL_BATCHES = 4
_STATISTICS = 50_000  # Number of images for statistics: all of CIFAR-10's.


def distorted_inputs(run, data, augment=None, files=None, part=None):
  """Returns the next training batch: shuffled, and randomly distorted.

  The first batch is that of the restored global step: sessions initialize the
  iterator after they restore a checkpoint.

  Args:
    run: the `Run`.
    data: its `directories.Dataset`.
    augment: function to use in place of the recipe's augmentation, if any; see
      augmentation.py.
    files: the `RecordFiles` on the host that reads them; None: data.train.
    part: range, the images of the step's batch to make; None: all.

  Returns:
    images: [n, crop_size, crop_size, depth] of run.dtype; n is run.global_batch
      or len(part). (The normalization `whiten` returns another shape.)
    labels: int32 [n].
  """
  distort = distortion(
      run.recipe, data.format, run.dtype, augment,
      lambda: data.train.chunks(min(run.num_examples, _STATISTICS)))
  with tf.device('/cpu:0'):
    first_step = tf.train.get_or_create_global_step()
  if run.input == 'queue':
    return _queue_inputs(run, data, distort)
  n, seed, num_examples = run.global_batch, run.seed, run.num_examples
  part = range(n) if part is None else part
  with tf.device('/cpu:0'), tf.name_scope('input'):
    def batch(step, read):
      positions = step * n + tf.range(part.start, part.stop, dtype=tf.int64)
      chosen = record_at(positions, num_examples, seed)
      images, labels = read(chosen)
      if run.recipe.alternating_flip:
        # Another permutation selects the half that is mirrored in even epochs;
        # the other half is mirrored in odd ones.
        half = record_at(chosen, num_examples, seed + 1)
        epoch = positions // num_examples
        images = augmentation.flip(images, tf.equal((half + epoch) % 2, 1))
      images = distort(images, augmentation.Seed(
          tf.stack([tf.constant(seed, tf.int64), step]), part.start, n))
      return images, labels

    images, labels = _next_batch(files or data.train, batch, first_step,
                                 tf.int64.max, 1, len(part))
  if part.start == 0:
    summaries.image('images', images)
  return images, labels


def inputs(files, preprocess, start, end, batch_size):
  """Returns the next evaluation batch: each record once, in order.

  Args:
    files: the `RecordFiles`.
    preprocess: function of uint8 images, see `preprocessing()`.
    start, end: the first record, and the one after the last.
    batch_size: images in a batch; the last one may have fewer.

  Returns:
    images: what `preprocess` returns; tf.errors.OutOfRangeError after the last.
    labels: int32 [n].
  """
  with tf.device('/cpu:0'), tf.name_scope('input'):
    def batch(first, read):
      last = tf.minimum(first + batch_size, end)
      images, labels = read(tf.range(first, last))
      return preprocess(images), labels

    images, labels = _next_batch(files, batch, start, end, batch_size,
                                 batch_size)
  summaries.image('images', images)
  return images, labels


def distortion(recipe, record_format, dtype, augment=None, examples=None):
  """Returns the function that distorts and normalizes training images.

  Args:
    recipe: the `Recipe`.
    record_format: the `records.Format` of the images.
    dtype: type of the resulting images, which networks compute in.
    augment: function to use in place of the recipe's augmentation, if any.
    examples: function that yields training images in parts, from which a
      normalization takes statistics when a run starts.

  Returns:
    Function of images, uint8 [n, height, width, depth], and an
    `augmentation.Seed` to images, [n, crop_size, crop_size, depth].

  Raises:
    UserError: the recipe names an augmentation or normalization that does not
      exist, or is impossible with these images.
  """
  if augment is None:
    if recipe.augmentation.startswith(CUSTOM):
      raise UserError(f'recipe: augmentation={recipe.augmentation}: is a '
                      'function that was passed from Python, by augment=')
    augment = look_up(recipe.augmentation, augmentation.AUGMENTATIONS,
                      'augmentation')
  size = recipe.crop(record_format)
  normalize = _normalization(recipe, record_format, examples)
  return lambda images, seed: tf.cast(
      normalize(augment(images, size, seed)), dtype)


def preprocessing(recipe, record_format, dtype):
  """Returns the function that prepares images for a network outside training.

  Args:
    recipe, record_format, dtype: see `distortion()`.

  Returns:
    Function of images, uint8 [n, height, width, depth], to images, [n,
    crop_size, crop_size, depth].
  """
  size = recipe.crop(record_format)
  normalize = _normalization(recipe, record_format)
  return lambda images: tf.cast(
      normalize(augmentation.central_crop(images, size)), dtype)


def _normalization(recipe, record_format, examples=None):
  size = recipe.crop(record_format)
  return look_up(
      recipe.normalization, normalization.NORMALIZATIONS, 'normalization')(
          [size, size, record_format.depth],
          examples and (lambda: (augmentation.central_crop(images, size)
                                 for images in examples())))


def _queue_inputs(run, data, distort):
  """Returns training batches that come through prefetch queues.

  A queue of file names, a record reader, and 16 threads, each of which distorts
  a record and puts it in a queue that batches are drawn from at random
  (tutorial: "Model Inputs"). The order depends on the threads: a resumed run
  sees other images than an uninterrupted one.
  """
  min_queue_examples = int(
      run.num_examples * run.min_fraction_of_examples_in_queue)
  print(f'Filling queue with {min_queue_examples} CIFAR images before starting '
        'to train. This will take a few minutes. The order of the images is '
        'not the same again when this run is resumed.', flush=True)
  with tf.device('/cpu:0'), tf.name_scope('input'):
    filenames = tf.train.string_input_producer(data.train.paths, seed=run.seed)
    reader = tf.FixedLengthRecordReader(data.format.record_bytes)
    _, record = reader.read(filenames)
    images, labels = records.parse(
        tf.decode_raw(record, tf.uint8)[tf.newaxis], data.format)
    seed = tf.random_uniform([2], maxval=tf.int64.max, dtype=tf.int64,
                             seed=run.seed)
    images = distort(images, augmentation.Seed(seed))
    images, labels = tf.train.shuffle_batch(
        [tf.ensure_shape(images, [1] + images.shape[1:])[0], labels[0]],
        run.global_batch, num_threads=QUEUE_THREADS,
        capacity=min_queue_examples + 3 * run.global_batch,
        min_after_dequeue=min_queue_examples, seed=run.seed)
  summaries.image('images', images)
  return images, labels


def _next_batch(files, batch, start, end, stride, size):
  """Returns the next batch.

  Args:
    files: the `RecordFiles`.
    batch: function of a step or first record, and of a function of the indices
      of records that reads them, that returns images and labels.
    start, end, stride: the steps or first records, as in range().
    size: number of images in a batch.
  """
  contents, read = files.reader()
  # After so many batches, the files are mapped anew.
  count = stride * max(files.records_at_a_time() // size, 1)

  def batches(first):
    mapped = contents()
    numbers = tf.data.Dataset.range(
        first, first + tf.minimum(end - first, count), stride)
    return numbers.map(
        _plain(lambda number: batch(
            number, lambda indices: read(indices, mapped))), _PARALLEL_BATCHES)

  dataset = tf.data.Dataset.range(start, end, count).flat_map(_plain(batches))
  # The autotuning thread sleeps up to a minute, and closing the session waits
  # for it.
  options = tf.data.Options()
  options.autotune.enabled = False
  iterator = tf.data.make_initializable_iterator(
      dataset.prefetch(_PARALLEL_BATCHES).with_options(options))
  # Sessions run these initializers after they restore the step.
  tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
  return iterator.get_next()


# Without autograph, which would read and rewrite the source of functions.
_plain = tf.autograph.experimental.do_not_convert


def record_at(positions, num_examples, seed):
  """Maps positions of an endless, shuffled sequence to records.

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
