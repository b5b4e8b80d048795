import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import inputs
from cifar10 import model
from cifar10.data import directories
from cifar10.data import record_files
from cifar10.data import records
from cifar10.nn import augmentation
from cifar10.runs import description
from cifar10.util.errors import UserError
from tests import numerics

TINY = records.Format(height=4, width=6, depth=3)
RECIPE = dataclasses.replace(model.RECIPE, crop_size=4)


@pytest.fixture
def files(tmp_path):
  """Seven records in two files: record i has label i and random pixels."""
  images = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), np.uint8)
  paths = [str(tmp_path / name) for name in ('a.bin', 'b.bin')]
  records.write(paths[0], images[:3], range(3))
  records.write(paths[1], images[3:], range(3, 7))
  return paths, images


def data_of(files, record_format=TINY):
  found = record_files.find(files, record_format)
  return directories.Dataset('own', found, found)


def run_of(batch_size, seed=1, recipe=RECIPE, num_examples=7, **options):
  return description.Run(
      recipe=dataclasses.replace(recipe, batch_size=batch_size), seed=seed,
      num_examples=num_examples, **options)


def batches(count, files, batch_size=4, seed=1, first_step=0):
  """Returns `count` training batches as a session at first_step gets them."""
  with tf.Graph().as_default():
    global_step = tf.train.get_or_create_global_step()
    fetches = inputs.distorted_inputs(run_of(batch_size, seed), data_of(files))
    with tf.Session() as session:
      session.run(global_step.initializer)
      session.run(global_step.assign(first_step))
      session.run([tf.local_variables_initializer(), tf.tables_initializer()])
      return [session.run(fetches) for _ in range(count)]


def test_statistics_are_of_what_is_cropped(files):
  _, images = files
  recipe = dataclasses.replace(RECIPE, normalization='mean_image')
  with tf.Graph().as_default(), tf.Session() as session:
    distort = inputs.distortion(
        recipe, TINY, 'float32', augmentation.central_crop,
        lambda: [images[:4], images[4:]])
    outputs = distort(tf.constant(images), None)
    session.run(tf.global_variables_initializer())
    found = session.run(outputs)
  cropped = np.float64(images[:, :, 1:5])
  numerics.assert_close(found, cropped - cropped.mean(0), 2, scale=255)


def evaluate(function, *arguments):
  with tf.Graph().as_default(), tf.Session() as session:
    return session.run(function(*arguments))


def numpy_standardize(image):
  image = np.float64(image)
  return (image - image.mean()) / max(image.std(), image.size**-0.5)


def test_every_epoch_has_every_record_once_in_an_order_of_its_own(files):
  labels = np.concatenate([y for _, y in batches(14, files[0])])
  epochs = labels.reshape(8, 7)
  for epoch in epochs:
    assert sorted(epoch) == list(range(7))
  assert len({tuple(epoch) for epoch in epochs}) > 5


def test_a_batch_depends_on_seed_and_step_alone(files):
  paths, _ = files
  run = batches(10, paths)
  resumed = batches(4, paths, first_step=6)
  other = batches(10, paths, seed=2)
  for (images, labels), (images_again, labels_again) in zip(run[6:], resumed):
    np.testing.assert_array_equal(images, images_again)
    np.testing.assert_array_equal(labels, labels_again)
  assert any((a[1] != b[1]).any() for a, b in zip(run, other))
  assert all((a[0] != b[0]).any() for a, b in zip(run, other))


def test_images_keep_their_labels(files):
  paths, originals = files
  # Without contrast, standardization undoes brightness: each training image is
  # a standardized crop or its mirror image.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(augmentation, 'random_contrast', lambda images, *_: images)
    (images, labels), = batches(1, paths, batch_size=50)
  for image, label in zip(images, labels):
    crops = [originals[label][:, x:x + 4] for x in range(3)]
    candidates = [numpy_standardize(c) for c in crops + [
        c[:, ::-1] for c in crops]]
    assert min(abs(image - c).max() for c in candidates) < 1e-3


def test_alternating_flip(files):
  """Each record is mirrored every other epoch; half of them, in each."""
  paths, originals = files
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.train.get_or_create_global_step()
    recipe = dataclasses.replace(RECIPE, normalization='unit',
                                 alternating_flip=True)
    fetches = inputs.distorted_inputs(
        run_of(7, recipe=recipe), data_of(paths),
        augment=lambda images, size, seed: images)
    session.run(step.initializer)
    session.run([tf.local_variables_initializer(), tf.tables_initializer()])
    epochs = []
    for _ in range(4):
      images, labels = session.run(fetches)
      images = np.rint(255 * images)
      mirrored = {}
      for image, label in zip(images, labels):
        original = originals[label]
        mirrored[label] = bool((image == original[:, ::-1]).all())
        assert mirrored[label] or (image == original).all()
      epochs.append([mirrored[label] for label in range(7)])
  assert epochs[0] == epochs[2] == [not one for one in epochs[1]]
  assert epochs[1] == epochs[3]
  assert sum(epochs[0]) in (3, 4)


def test_shuffle_is_a_permutation_of_each_epoch():
  n = 1000
  order = evaluate(inputs.record_at, np.arange(3 * n), n, 5).reshape(3, n)
  for epoch in order:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
    # No trace of the original order: correlation within 4 deviations of 0.
    assert abs(np.corrcoef(epoch, np.arange(n))[0, 1]) < 4 / np.sqrt(n)
  assert (order[0] == order[1]).sum() < 10


@pytest.mark.parametrize('num_examples, sizes', [
    (7, [3, 3, 1]), (6, [3, 3]), (2, [2])])
def test_evaluation_sees_each_record_once_in_order(files, num_examples, sizes):
  paths, originals = files
  with tf.Graph().as_default(), tf.Session() as session:
    recipe = dataclasses.replace(RECIPE, crop_size=2)
    preprocess = inputs.preprocessing(recipe, TINY, 'float32')
    fetches = inputs.inputs(record_files.find(paths, TINY), preprocess, 0,
                            num_examples, 3)
    session.run([tf.local_variables_initializer(), tf.tables_initializer()])
    found = [session.run(fetches) for _ in sizes]
    with pytest.raises(tf.errors.OutOfRangeError):
      session.run(fetches)
  assert [len(labels) for _, labels in found] == sizes
  images, labels = (np.concatenate(parts) for parts in zip(*found))
  assert labels.tolist() == list(range(num_examples))
  for image, original in zip(images, originals):
    numerics.assert_close(image, numpy_standardize(original[1:3, 2:4]), 12,
                          scale=255 / original[1:3, 2:4].std())


def test_queues_deliver_every_record_and_its_label(files):
  paths, originals = files
  with tf.Graph().as_default():
    # The queue holds 10 of 20 records, two passes over the files and more.
    fetches = inputs.distorted_inputs(
        run_of(5, num_examples=20, input='queue',
               min_fraction_of_examples_in_queue=0.5), data_of(paths))
    runners = tf.get_collection(tf.GraphKeys.QUEUE_RUNNERS)
    assert sum(len(runner.enqueue_ops) for runner in runners) == 1 + 16
    with tf.train.MonitoredSession() as session:
      found = [session.run(fetches) for _ in range(20)]
  seen = set()
  for images, labels in found:
    assert images.shape == (5, 4, 4, 3)
    np.testing.assert_allclose(images.mean((1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(images.std((1, 2, 3)), 1, atol=1e-3)
    for image, label in zip(images, labels):
      seen.add(label)
      # Contrast and standardization scale each channel around its mean, which
      # leaves the correlation with the original crop at 1.
      windows = [originals[label][:, x:x + 4] for x in range(3)]
      windows += [w[:, ::-1] for w in windows]
      assert max(np.corrcoef(w[..., 0].ravel(), image[..., 0].ravel())[0, 1]
                 for w in windows) > 0.999
  assert seen == set(range(7))


def test_records_are_not_in_the_graph_and_all_is_on_the_cpu(data_dir):
  path = f'{data_dir}/cifar-10-batches-bin/data_batch_1.bin'
  with tf.Graph().as_default() as graph, tf.device('/gpu:0'):
    inputs.distorted_inputs(run_of(8, recipe=model.RECIPE, num_examples=200),
                            data_of([path], records.CIFAR10))
  assert graph.as_graph_def().ByteSize() < 50_000
  # Reading a variable happens where it is, whatever the device says.
  assert {op.device for op in graph.get_operations()
          if op.type != 'ReadVariableOp' and 'Initializer' not in op.name
          } == {'/device:CPU:0'}


def test_what_a_recipe_asks_for_in_vain():
  for change, message in (
      ({'crop_size': 5}, 'crop_size=5: expected up to 1, or pixels up to 4 of'),
      ({'augmentation': 'cut'}, "no augmentation 'cut'. Did you mean none"),
      ({'normalization': 'x'}, "no normalization 'x'. Did you mean per_image")):
    with pytest.raises(UserError, match=message):
      inputs.distortion(dataclasses.replace(RECIPE, **change), TINY, 'float32')
