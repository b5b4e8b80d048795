"""Record files to batches of images, in the graph and on the CPU.

The training batch of a step is a pure function of (seed, step). The records
sit in memory; batch `s` takes positions [s * n, (s + 1) * n) of an endless
sequence that shuffles every epoch anew; all random numbers are stateless. So a
run goes on exactly where it stopped by knowing its step, every record is seen
once an epoch, and any number of towers shares out the same batch.

`queue_inputs()` is the tutorial's own way instead: reader, queues, 16 threads.
"""

import tensorflow.compat.v1 as tf

from cifar10 import layers
from cifar10 import records
from cifar10 import UserError

QUEUE_THREADS = 16
_PARALLEL_BATCHES = 4


def distorted_inputs(files, record_format, crop_size, batch_size, seed):
  """Training batches: shuffled, randomly distorted, standardized.

  The first batch is that of the global step at the time the local variables
  are initialized; sessions do that after restoring a checkpoint.

  Args:
    files: paths of the record files.
    record_format: their `records.Format`.
    crop_size: side, in pixels, of the random crops.
    batch_size: images in a batch, over all towers.
    seed: int.

  Returns:
    images: float32 [batch_size, crop_size, crop_size, depth], each image with
      mean 0 and variance 1.
    labels: int32 [batch_size].
  """
  _check_crop(crop_size, record_format)
  with tf.device('/cpu:0'), tf.name_scope('input'):
    images, labels = _records_in_memory(files, record_format)
    num_examples = int(labels.shape[0])

    def batch(step):
      positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
      chosen = shuffle(positions, num_examples, seed)
      distorted = distort(tf.gather(images, chosen), crop_size,
                          tf.stack([tf.constant(seed, tf.int64), step]))
      return distorted, tf.gather(labels, chosen)

    first_step = tf.train.get_or_create_global_step()
    images, labels = _next_batch(
        tf.data.Dataset.range(first_step, tf.int64.max), batch)
  layers.image_summary('images', images)
  return images, labels


def inputs(files, record_format, crop_size, batch_size, num_examples):
  """Evaluation batches: central crops, standardized, each record once.

  Args:
    files: paths of the record files.
    record_format: their `records.Format`.
    crop_size: side, in pixels, of the crops.
    batch_size: images in a batch; the last may have fewer.
    num_examples: stop after so many records.

  Returns:
    images: float32 [n, crop_size, crop_size, depth], each with mean 0 and
      variance 1; tf.errors.OutOfRangeError after the last.
    labels: int32 [n].
  """
  _check_crop(crop_size, record_format)
  with tf.device('/cpu:0'), tf.name_scope('input'):
    images, labels = _records_in_memory(files, record_format)

    def batch(start):
      end = tf.minimum(start + batch_size, num_examples)
      return preprocess(images[start:end], crop_size), labels[start:end]

    images, labels = _next_batch(
        tf.data.Dataset.range(0, num_examples, batch_size), batch)
  layers.image_summary('images', images)
  return images, labels


def queue_inputs(files, record_format, crop_size, batch_size, seed,
                 min_queue_examples):
  """Training batches as `distorted_inputs()` gives, through prefetch queues.

  A queue of file names, a record reader, and 16 threads that distort a record
  each and fill a queue, from which batches are drawn at random (tutorial:
  "Model Inputs"). Their order depends on the threads: a resumed run goes on
  with other images than an uninterrupted one.

  Args:
    files, record_format, crop_size, batch_size, seed: see `distorted_inputs()`.
    min_queue_examples: how many records the queue holds at least: the more,
      the better they are mixed.

  Returns:
    images, labels: see `distorted_inputs()`.
  """
  _check_crop(crop_size, record_format)
  with tf.device('/cpu:0'), tf.name_scope('input'):
    filenames = tf.train.string_input_producer(files, seed=seed)
    reader = tf.FixedLengthRecordReader(record_format.record_bytes)
    _, record = reader.read(filenames)
    images, labels = records.parse(
        tf.decode_raw(record, tf.uint8)[tf.newaxis], record_format)
    random_seed = tf.random_uniform([2], maxval=tf.int64.max, dtype=tf.int64,
                                    seed=seed)
    image = distort(images, crop_size, random_seed)[0]
    image.set_shape([crop_size, crop_size, record_format.depth])
    images, labels = tf.train.shuffle_batch(
        [image, labels[0]], batch_size, num_threads=QUEUE_THREADS,
        capacity=min_queue_examples + 3 * batch_size,
        min_after_dequeue=min_queue_examples, seed=seed)
  layers.image_summary('images', images)
  return images, labels


def _check_crop(crop_size, record_format):
  if crop_size > min(record_format.height, record_format.width):
    raise UserError(
        f'crop_size {crop_size} is larger than the images, '
        f'{record_format.height}x{record_format.width}')


def _records_in_memory(files, record_format):
  """Reads the files into local variables, when those are initialized.

  Returns:
    images: uint8 [n, height, width, depth] local variable.
    labels: int32 [n] local variable.
  """
  f = record_format
  num_records = sum(records.count(path, f) for path in files)
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


def distort(images, crop_size, seed):
  """The tutorial's random distortions, of each image by itself.

  A crop, a flip, brightness up to 63 (of 255) up or down, contrast times 0.2
  to 1.8, and standardization. (What brightness adds, standardization takes
  away again; it is here because the tutorial has it.)

  Args:
    images: uint8 [n, height, width, depth].
    crop_size: side of the crops, in pixels.
    seed: int64 [2]; equal seeds give equal distortions.

  Returns:
    float32 [n, crop_size, crop_size, depth].
  """
  seeds = tf.unstack(tf.random.split(seed, 4))
  images = random_crop(images, crop_size, seeds[0])
  images = random_flip(images, seeds[1])
  images = tf.cast(images, tf.float32)
  images = random_brightness(images, 63.0, seeds[2])
  images = random_contrast(images, 0.2, 1.8, seeds[3])
  return standardize(images)


def preprocess(images, crop_size):
  """What an image goes through outside training: crop, standardization.

  Args:
    images: uint8 [n, height, width, depth].
    crop_size: side of the central crops, in pixels.

  Returns:
    float32 [n, crop_size, crop_size, depth].
  """
  top = (images.shape[1] - crop_size) // 2
  left = (images.shape[2] - crop_size) // 2
  images = images[:, top:top + crop_size, left:left + crop_size]
  return standardize(tf.cast(images, tf.float32))


def random_crop(images, size, seed):
  """Cuts a size x size window out of each image, at any place alike."""
  n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
  seeds = tf.unstack(tf.random.split(seed, 2))
  rows = _random_windows(n, height, size, seeds[0])
  columns = _random_windows(n, width, size, seeds[1])
  images = tf.gather(images, rows, axis=1, batch_dims=1)
  return tf.gather(images, columns, axis=2, batch_dims=1)


def _random_windows(n, length, size, seed):
  starts = tf.random.stateless_uniform([n, 1], seed, 0, length - size + 1,
                                       tf.int32)
  return starts + tf.range(size)


def random_flip(images, seed):
  """Mirrors each image, left to right, with probability 1/2."""
  flip = _uniform_per_image(images, 0.0, 1.0, seed) < 0.5
  return tf.where_v2(flip, tf.reverse(images, [2]), images)


def random_brightness(images, max_delta, seed):
  """Adds to each float image a number from [-max_delta, max_delta)."""
  return images + _uniform_per_image(images, -max_delta, max_delta, seed)


def random_contrast(images, lower, upper, seed):
  """Multiplies each float image's distance from the means of its channels by a
  number from [lower, upper)."""
  means = tf.reduce_mean(images, [1, 2], keepdims=True)
  return (images - means) * _uniform_per_image(
      images, lower, upper, seed) + means


def standardize(images):
  """Brings each float image to mean 0 and variance 1.

  The divisor is at least 1 / sqrt(number of values), which keeps a uniform
  image finite, as tf.image.per_image_standardization does.
  """
  num_values = images.shape[1] * images.shape[2] * images.shape[3]
  means, variances = tf.nn.moments(images, [1, 2, 3], keepdims=True)
  return (images - means) / tf.maximum(tf.sqrt(variances), num_values**-0.5)


def _uniform_per_image(images, lower, upper, seed):
  return tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed,
                                     lower, upper)
